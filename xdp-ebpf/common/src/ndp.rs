//! The NDP responder (RFC 4861 §7.2.4): answers neighbour solicitations for the VIPs this node owns on an interface,
//! duplicate address detection (RFC 4862 §5.4.3) included.

use crate::{
    arp::responder,
    checksum,
    packet::{Ethernet, Icmp, Ipv6, Packet, WireAddress},
    parse::{self, ICMPV6},
    tables::Tables,
    verdict::Reason,
};
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// Neighbour solicitation.
pub const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const SOLICITED: u32 = 0x4000_0000;
const OVERRIDE: u32 = 0x2000_0000;
/// Longest solicitation that is answered, in words of 8 bytes: header and 40 bytes of options, five times the usual.
const MAX_WORDS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Neighbor {
    icmp: Icmp,
    flags: u32,
    target: WireAddress,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Advertisement {
    neighbor: Neighbor,
    option: [u8; 2],
    mac: [u16; 3],
}

/// Answers the solicitation in an IPv6 frame, or says why it is passed.
///
/// Not inlined: solicitations are rare, and the kernel's stack is 512 bytes.
#[inline(never)]
pub fn respond<P: Packet, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Reason {
    let Some(link) = parse::link(packet) else {
        return Reason::Truncated;
    };
    let l4 = link.l3 + size_of::<Ipv6>();
    let Some(neighbor) = packet.load::<Neighbor>(l4) else {
        return Reason::Truncated;
    };
    if neighbor.icmp.kind != SOLICITATION {
        return Reason::NotOurs;
    }
    let target = neighbor.target.address();
    let Some(responder) = responder(tables, target, ifindex, &link).filter(|_| crate::tunnel::is_v6(&target)) else {
        return Reason::NeighborNotOurs;
    };
    if !is_valid(packet, link.l3, &neighbor) {
        return Reason::NeighborInvalid;
    }
    let (Some(ethernet), Some(source)) = (
        packet.load::<Ethernet>(0),
        packet.load::<WireAddress>(link.l3 + offset_of!(Ipv6, source)),
    ) else {
        return Reason::Truncated;
    };
    let probe = is_unspecified(&source);
    let len = size_of::<Advertisement>();
    if !packet.set_len(l4 + len) {
        return Reason::NoHeadroom;
    }

    // A prober has no address yet: all nodes are told (RFC 4861 §7.2.4).
    let destination = if probe { ALL_NODES } else { source };
    let flags = if probe { OVERRIDE } else { OVERRIDE | SOLICITED };
    let mac: [u16; 3] = bytemuck::must_cast(responder.mac);
    let kind = u16::from_ne_bytes([ADVERTISEMENT, 0]);
    let option = [TARGET_LINK_LAYER, 1];
    let mut sum = pseudo_header(&neighbor.target, &destination, len as u32);
    sum += u64::from(kind) + u64::from(flags.to_be()) + u64::from(u16::from_ne_bytes(option));
    for word in neighbor.target.words {
        sum += u64::from(word);
    }
    for word in mac {
        sum += u64::from(word);
    }
    let checksum = !checksum::folded(sum);
    packet.store(
        0,
        Ethernet {
            destination: if probe { ALL_NODES_MAC } else { ethernet.source },
            source: mac,
            ethertype: ethernet.ethertype,
        },
    );
    packet.store(
        link.l3,
        Ipv6 {
            version_class_flow: (6_u32 << 28).to_be(),
            payload_len: (len as u16).to_be(),
            next_header: ICMPV6,
            hop_limit: 255,
            source: neighbor.target,
            destination,
        },
    );
    packet.store(
        l4,
        Advertisement {
            neighbor: Neighbor {
                icmp: Icmp {
                    kind: ADVERTISEMENT,
                    code: 0,
                    checksum,
                },
                flags: flags.to_be(),
                target: neighbor.target,
            },
            option,
            mac,
        },
    );
    Reason::NeighborAdvertisement
}

const ALL_NODES: WireAddress = WireAddress {
    words: [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()],
};
const ALL_NODES_MAC: [u16; 3] = [0x3333_u16.to_be(), 0, 1_u16.to_be()];
/// ff02::1:ff00:0/104, to which the last 24 bits of the target are added (RFC 4291 §2.7.1).
const SOLICITED_NODE: [u32; 3] = [0xff02_0000_u32.to_be(), 0, 1_u32.to_be()];

/// Whether a solicitation comes from a node that has no address yet (RFC 4862 §5.4.2).
#[inline(always)]
fn is_unspecified(source: &WireAddress) -> bool {
    source.words == [0; 4]
}

/// RFC 4861 §7.1.1.
#[inline(always)]
fn is_valid<P: Packet>(packet: &P, l3: usize, neighbor: &Neighbor) -> bool {
    let Some(header) = packet.load::<Ipv6>(l3) else {
        return false;
    };
    let l4 = l3 + size_of::<Ipv6>();
    let probe = is_unspecified(&header.source);
    let len = usize::from(u16::from_be(header.payload_len));
    if u32::from_be(header.version_class_flow) >> 28 != 6
        || header.next_header != ICMPV6
        || header.hop_limit != 255
        || neighbor.icmp.code != 0
        || len < size_of::<Neighbor>()
        || len > MAX_WORDS * 8
        || len % 8 != 0
        || !packet.holds(l4 + len)
    {
        return false;
    }
    let words = header.destination.words;
    let multicast = [words[0], words[1], words[2]] == SOLICITED_NODE && words[3].to_ne_bytes()[0] == 0xff;
    if probe && !multicast {
        return false;
    }
    let mut sum = pseudo_header(&header.source, &header.destination, len as u32);
    // Options stand at every 8 bytes from the header's end on, if they are as short as those in use (nonce: RFC 3971).
    let mut next_option = size_of::<Neighbor>();
    for word in 0..MAX_WORDS {
        let at = word * 8;
        if at >= len {
            break;
        }
        let Some([a, b]) = packet.load::<[u32; 2]>(l4 + at) else {
            return false;
        };
        sum += u64::from(a) + u64::from(b);
        if at == next_option {
            let [kind, units, ..] = a.to_ne_bytes();
            if units == 0 || probe && kind == SOURCE_LINK_LAYER {
                return false;
            }
            next_option += usize::from(units) * 8;
        }
    }
    next_option == len && checksum::folded(sum) == 0xffff
}

/// The sum of the pseudo-header (RFC 8200 §8.1).
#[inline(always)]
fn pseudo_header(source: &WireAddress, destination: &WireAddress, len: u32) -> u64 {
    let mut sum = u64::from(len.to_be()) + u64::from(u32::from(ICMPV6).to_be());
    for word in source.words {
        sum += u64::from(word);
    }
    for word in destination.words {
        sum += u64::from(word);
    }
    sum
}
