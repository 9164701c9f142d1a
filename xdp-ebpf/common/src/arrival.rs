//! A tunnel packet from another node: check it, and read what it carries and for whom.

use crate::{
    abi::{kind, protocol},
    lookup::Hashed,
    packet::{Packet, WireAddress},
    parse,
    tables::{Scratch, Tables, Target},
    tunnel::{self, Header, Previous},
    verdict::Reason,
};

/// Reads the tunnel packet whose outer layers are in `s`, and puts there the packet inside and the backends it is for.
/// `Err` says why one is not taken: [`Reason::NotServed`] when it is none of Weir's. Not inlined, as
/// [`crate::ndp::respond`].
#[inline(never)]
pub fn open<P: Packet, T: Tables>(packet: &P, tables: &T, s: &mut Scratch) -> Result<(), Reason> {
    let (foreign, malformed) = (Reason::NotServed, Reason::TunnelMalformed);
    let header: Header = packet.load(s.ip.l4).ok_or(foreign)?;
    let long = header.check().map_err(|ours| if ours { malformed } else { foreign })?;
    if place(tables, Hashed::new(s.ip.source)) == Target::NOWHERE {
        return Err(Reason::TunnelUnknownSender);
    }
    s.outer = s.ip;
    s.tunneled = true;
    s.hops = header.choice.hops;
    // The source port holds the upper bits of the sender's hash: enough to make a flow label of.
    s.hash = u64::from(u16::from_be(s.transport.source_port)) << 20;
    s.chosen = Target {
        id: 0,
        address: header.choice.backend.address(),
        port: header.choice.port,
        place: Target::HERE,
    };
    s.previous.place = Target::NOWHERE;
    let mut inner = s.outer.l4 + size_of::<Header>();
    if long {
        let previous: Previous = packet.load(inner).ok_or(malformed)?;
        inner += size_of::<Previous>();
        if header.choice.flags & tunnel::FLAG_PREVIOUS_TRIED == 0 && s.hops < tunnel::MAX_HOPS {
            s.previous = Target {
                id: 0,
                address: previous.backend.address(),
                port: previous.port,
                place: place_of(tables, s, previous.node),
            };
        }
    }
    parse::ip(packet, inner, header.geneve.protocol, &mut s.ip).map_err(|_| malformed)?;
    tables.settle(s);
    let carried = matches!(s.ip.protocol, protocol::TCP | protocol::UDP) && !s.ip.fragment;
    let of_one_family = tunnel::is_v6(&s.chosen.address) == s.ip.v6;
    if !carried || !of_one_family || s.outer.l3 + s.outer.len < s.ip.l3 + s.ip.len {
        return Err(malformed);
    }
    parse::transport(packet, &s.ip, &mut s.transport).map_err(|_| malformed)
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
