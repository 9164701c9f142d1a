//! A tunnel packet from another node: check it, and read what it carries and for whom.

use crate::{
    abi::{kind, protocol},
    fragments::{self, Unknown},
    ingress,
    lookup::Hashed,
    packet::{Packet, WireAddress},
    parse::{self, Fragment},
    scratch::{Scratch, Target},
    tables::Tables,
    tunnel::{self, Header, Second},
    verdict::Reason,
};

/// Reads the tunnel packet whose outer layers are in `s`, and puts there the packet inside and the backends it is for. False
/// when it is not taken, for `s.reason`: [`Reason::NotServed`] when it is none of Weir's.
#[inline(always)]
pub fn open<P: Packet, T: Tables>(packet: &mut P, tables: &T, s: &mut Scratch) -> bool {
    match read(packet, tables, s) {
        Ok(()) => true,
        Err(reason) => {
            s.reason = reason;
            false
        }
    }
}

#[inline(always)]
fn read<P: Packet, T: Tables>(packet: &P, tables: &T, s: &mut Scratch) -> Result<(), Reason> {
    let (foreign, malformed) = (Reason::NotServed, Reason::TunnelMalformed);
    let header: Header = packet.load(s.ip.l4).ok_or(foreign)?;
    let long = header.check().map_err(|ours| if ours { malformed } else { foreign })?;
    if place(tables, Hashed::new(s.ip.source)) == Target::NOWHERE {
        return Err(Reason::TunnelUnknownSender);
    }
    s.outer = s.ip;
    s.tunneled = true;
    s.hops = header.choice.hops;
    s.flags = header.choice.flags;
    // The source port holds the upper bits of the sender's hash: enough to make that port and a flow label of again.
    let entropy = u64::from(u16::from_be(s.transport.source_port));
    s.hash = entropy << 50 | entropy << 20;
    s.chosen = Target {
        id: 0,
        address: header.choice.backend.address(),
        port: header.choice.port,
        place: Target::HERE,
    };
    s.second.place = Target::NOWHERE;
    let mut inner = s.outer.l4 + size_of::<Header>();
    if long {
        let second: Second = packet.load(inner).ok_or(malformed)?;
        inner += size_of::<Second>();
        s.second = Target {
            id: 0,
            address: second.backend.address(),
            port: second.port,
            place: place_of(tables, s, second.node),
        };
    }
    parse::ip(packet, inner, header.geneve.protocol, &mut s.ip).map_err(|_| malformed)?;
    tables.settle(s);
    let of_one_family = tunnel::is_v6(&s.chosen.address) == s.ip.v6;
    if !of_one_family || s.outer.l3 + s.outer.len < s.ip.l3 + s.ip.len {
        return Err(malformed);
    }
    match ingress::flow(packet, tables, s) {
        Err(Reason::FragmentHeld) if fragments::hold(packet, tables) == Unknown::Held => Err(Reason::FragmentHeld),
        Err(Reason::FragmentHeld) => Err(Reason::Fragment),
        Ok(()) if matches!(s.protocol, protocol::TCP | protocol::UDP) => {
            if s.ip.fragment == Fragment::First {
                fragments::teach(tables, s, (s.transport.source_port, s.transport.destination_port));
                tables.settle(s);
            }
            Ok(())
        }
        _ => Err(malformed),
    }
}

/// Where a tunnel address is, our own included.
#[inline(always)]
fn place_of<T: Tables>(tables: &T, s: &Scratch, address: WireAddress) -> u32 {
    let address = address.address();
    if address.words() == s.outer.destination.words() {
        Target::HERE
    } else {
        place(tables, Hashed::new(address))
    }
}

/// The id of the node with this tunnel address.
#[inline(always)]
fn place<T: Tables>(tables: &T, address: Hashed) -> u32 {
    address
        .entry_of(tables, 0, protocol::ANY, kind::PEER)
        .map_or(Target::NOWHERE, |peer| peer.id)
}
