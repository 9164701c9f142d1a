//! The ARP responder (RFC 826): answers requests and probes (RFC 5227 §1.1) for the VIPs this node owns on an interface.

use crate::{
    abi::{Responder, ResponderKey},
    addr::Address,
    lookup::Hashed,
    packet::{Arp, Ethernet, Packet, ethertype},
    parse::{self, Link},
    tables::Tables,
    verdict::Reason,
};

const ETHERNET: u16 = 1_u16.to_be();
const LENGTHS: u16 = u16::from_ne_bytes([6, 4]);
const REQUEST: u16 = 1_u16.to_be();
const REPLY: u16 = 2_u16.to_be();

/// The responder for `address` where the frame came in.
#[inline(always)]
pub(crate) fn responder<T: Tables>(tables: &T, address: Address, ifindex: u32, link: &Link) -> Option<Responder> {
    if !Hashed::new(address).may_be_ours(tables) {
        return None;
    }
    tables.responder(&ResponderKey {
        address,
        ifindex,
        vlan: link.vlan.to_ne_bytes(),
        reserved: [0; 2],
    })
}

/// Answers an ARP frame, or says why it is passed. Not inlined, as [`crate::ndp::respond`].
#[inline(never)]
pub fn respond<P: Packet, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Reason {
    let Some((link, arp)) = parse::link(packet).and_then(|link| packet.load::<Arp>(link.l3).map(|arp| (link, arp)))
    else {
        return Reason::Truncated;
    };
    let request = arp.hardware == ETHERNET
        && arp.protocol == ethertype::IPV4
        && arp.lengths == LENGTHS
        && arp.operation == REQUEST
        // Somebody announcing the address as theirs asks nothing.
        && arp.sender != arp.target;
    let target = Address::from_v4_word(bytemuck::must_cast(arp.target));
    let (true, Some(responder)) = (request, responder(tables, target, ifindex, &link)) else {
        return Reason::ArpNotOurs;
    };
    let Some(ethernet) = packet.load::<Ethernet>(0) else {
        return Reason::Truncated;
    };
    let mac = bytemuck::must_cast(responder.mac);
    packet.store(
        0,
        Ethernet {
            destination: arp.sender_mac,
            source: mac,
            ethertype: ethernet.ethertype,
        },
    );
    packet.store(
        link.l3,
        Arp {
            operation: REPLY,
            sender_mac: mac,
            sender: arp.target,
            target_mac: arp.sender_mac,
            target: arp.sender,
            ..arp
        },
    );
    Reason::ArpReply
}
