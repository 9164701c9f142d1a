//! What happens to a frame that arrives: the order of the questions asked, cheapest first.

use crate::{
    abi::{kind, protocol},
    addr::Address,
    arp, arrival, direct, echo, forward,
    lookup::Hashed,
    ndp,
    packet::{Ethernet, Icmp, Ipv4, Ipv6, Packet, ethertype},
    parse::{self, ICMPV6, Link},
    steer,
    tables::Tables,
    verdict::{Reason, Verdict},
};

/// Where the IP header of a frame without tags stands.
const UNTAGGED: usize = size_of::<Ethernet>();

/// Decides about, and edits, the frame `packet` that came in by the interface `ifindex`.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let Some(link) = parse::link(packet) else {
        return Verdict::pass(Reason::Truncated);
    };
    let destination = match link.ethertype {
        ethertype::IPV4 => {
            let Some(header) = packet.load::<Ipv4>(link.l3) else {
                return Verdict::pass(Reason::Truncated);
            };
            let destination = Hashed::new(Address::from_v4_word(header.destination));
            if !destination.may_be_ours(tables) {
                return Verdict::pass(Reason::NotOurs);
            }
            if link.l3 == UNTAGGED
                && let Some(verdict) = direct::v4(packet, tables, ifindex, &header, &destination)
            {
                return verdict;
            }
            destination
        }
        ethertype::IPV6 => {
            let Some(header) = packet.load::<Ipv6>(link.l3) else {
                return Verdict::pass(Reason::Truncated);
            };
            if header.next_header == ICMPV6 && is_solicitation(packet, &link) {
                return Verdict::of_responder(ndp::respond(packet, tables, ifindex));
            }
            let destination = Hashed::new(header.destination.address());
            if !destination.may_be_ours(tables) {
                return Verdict::pass(Reason::NotOurs);
            }
            if link.l3 == UNTAGGED
                && let Some(verdict) = direct::v6(packet, tables, ifindex, &header, &destination)
            {
                return verdict;
            }
            destination
        }
        ethertype::ARP => return Verdict::of_responder(arp::respond(packet, tables, ifindex)),
        _ => return Verdict::pass(Reason::NotIp),
    };
    ours(packet, tables, ifindex, &link, &destination)
}

/// Whether a neighbour solicitation stands behind the fixed IPv6 header.
#[inline(always)]
fn is_solicitation<P: Packet>(packet: &P, link: &Link) -> bool {
    packet
        .load::<Icmp>(link.l3 + size_of::<Ipv6>())
        .is_some_and(|icmp| icmp.kind == ndp::SOLICITATION)
}

/// The filter let the destination through: find out what it is to us.
#[inline(always)]
fn ours<P: Packet, T: Tables>(packet: &mut P, tables: &T, ifindex: u32, link: &Link, destination: &Hashed) -> Verdict {
    // A packet for one host that the link layer gives to a group is for nobody (RFC 1122 §3.3.6), and every node of the
    // group would send it on.
    if packet.load::<u8>(0).is_none_or(|first| first & 1 != 0) {
        return Verdict::pass(Reason::NotServed);
    }
    let (Some(mut scratch), Some(config)) = (tables.scratch(), tables.config()) else {
        return Verdict::pass(Reason::NotServed);
    };
    let s = &mut *scratch;
    s.link = *link;
    if let Err(reason) = parse::ip(packet, link.l3, link.ethertype, &mut s.ip) {
        return Verdict::pass(reason);
    }
    tables.settle(s);
    if matches!(s.ip.protocol, protocol::TCP | protocol::UDP) && !s.ip.fragment {
        if let Err(reason) = parse::transport(packet, &s.ip, &mut s.transport) {
            return Verdict::pass(reason);
        }
        tables.settle(s);
        if let Some(entry) = destination.entry(tables, s.transport.destination_port, s.ip.protocol) {
            let prepared = match entry.kind {
                kind::FRONTEND => steer::choose(tables, config, s, entry),
                kind::TUNNEL => arrival::open(packet, tables, s),
                _ => Err(Reason::NotServed),
            };
            tables.settle(s);
            return match prepared {
                Ok(()) => forward::forward(packet, tables, config, ifindex, s),
                Err(reason @ (Reason::NotServed | Reason::NoBackend)) => Verdict::pass(reason),
                Err(reason) => Verdict::drop(reason),
            };
        }
    }
    if destination.entry_of(tables, 0, protocol::ANY, kind::VIP).is_none() {
        return Verdict::pass(Reason::NotServed);
    }
    if s.ip.fragment {
        return Verdict::pass(Reason::Fragment);
    }
    Verdict::of_responder(if echo::respond(packet, &s.ip) {
        Reason::EchoReply
    } else {
        Reason::NoFrontend
    })
}
