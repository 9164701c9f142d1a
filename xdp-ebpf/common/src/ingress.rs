//! What happens to a frame that arrives: the order of the questions asked, cheapest first.

use crate::{
    abi::{kind, protocol},
    addr::Address,
    arp, direct, echo, forward,
    fragments::{self, Unknown},
    icmp,
    lookup::Hashed,
    ndp,
    packet::{Ethernet, Icmp, Ipv4, Ipv6, Packet, ethertype},
    parse::{self, Fragment, ICMPV6, Link},
    rewrite::End,
    scratch::{Part, Scratch},
    stages::Stages,
    tables::Tables,
    verdict::{Reason, Verdict},
};

/// Where the IP header of a frame without tags stands.
const UNTAGGED: usize = size_of::<Ethernet>();

/// Decides about, and edits, the frame `packet` that came in by the interface `ifindex`.
#[inline(always)]
pub fn process<P: Packet, T: Stages<P>>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let Some(link) = parse::link(packet) else {
        return Verdict::pass(Reason::Truncated);
    };
    match link.ethertype {
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
        }
        ethertype::ARP => return Verdict::of_responder(arp::respond(packet, tables, ifindex)),
        _ => return Verdict::pass(Reason::NotIp),
    }
    tables.ours(packet, ifindex)
}

/// Whether a neighbour solicitation stands behind the fixed IPv6 header.
#[inline(always)]
fn is_solicitation<P: Packet>(packet: &P, link: &Link) -> bool {
    packet
        .load::<Icmp>(link.l3 + size_of::<Ipv6>())
        .is_some_and(|icmp| icmp.kind == ndp::SOLICITATION)
}

/// The filter let the destination through: go the long way. Only the order of its stages is here, so that they do not stand
/// on the stack together.
#[inline(always)]
pub fn ours<P: Packet, T: Stages<P>>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let Some(mut scratch) = tables.scratch() else {
        return Verdict::pass(Reason::NotServed);
    };
    let s = &mut *scratch;
    let class = tables.classify(packet, s);
    tables.settle(s);
    let prepared = match class {
        Class::Pass => return Verdict::pass(s.reason),
        Class::Drop => return Verdict::drop(s.reason),
        Class::Answered => return Verdict::transmit(s.reason),
        Class::Frontend => tables.choose(s),
        Class::Tunnel => tables.open(packet, s),
    };
    tables.settle(s);
    if prepared {
        return forward::forward(packet, tables, ifindex, s);
    }
    match s.reason {
        Reason::NotServed | Reason::NoBackend | Reason::StackFlow => Verdict::pass(s.reason),
        reason => Verdict::drop(reason),
    }
}

/// What a packet for one of our addresses is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing we serve: passed for `s.reason`.
    Pass = 0,
    /// Dropped for `s.reason`.
    Drop = 1,
    /// Answered in place, for `s.reason`.
    Answered = 2,
    /// Of a flow of a frontend.
    Frontend = 3,
    /// Of the tunnel.
    Tunnel = 4,
}

/// Reads the packet's layers and the flow it is of into `s`, and finds out what it is to us.
#[inline(always)]
pub fn classify<P: Packet, T: Tables>(packet: &mut P, tables: &T, s: &mut Scratch) -> Class {
    // A packet for one host that the link layer gives to a group is for nobody (RFC 1122 §3.3.6), and every node of the
    // group would send it on.
    const GROUP: u16 = u16::from_ne_bytes([1, 0]);
    s.reason = Reason::NotServed;
    if packet.load::<u16>(0).is_none_or(|first| first & GROUP != 0) {
        return Class::Pass;
    }
    let Some(link) = parse::link(packet) else {
        return Class::Pass;
    };
    s.link = link;
    if let Err(reason) = parse::ip(packet, link.l3, link.ethertype, &mut s.ip) {
        s.reason = reason;
        return Class::Pass;
    }
    tables.settle(s);
    s.tunneled = false;
    s.hops = 0;
    s.flags = 0;
    let destination = Hashed::new(s.ip.destination);
    let vip = destination.entry_of(tables, 0, protocol::ANY, kind::VIP).is_some();
    if vip && s.ip.fragment == Fragment::Whole && echo::respond(packet, &s.ip) {
        s.reason = Reason::EchoReply;
        return Class::Answered;
    }
    if let Err(reason) = flow(packet, tables, s) {
        if vip || !matches!(reason, Reason::NoFrontend | Reason::Fragment | Reason::FragmentHeld) {
            s.reason = reason;
        }
        return if s.reason == Reason::FragmentHeld {
            unknown_fragment(packet, tables, s)
        } else {
            Class::Pass
        };
    }
    tables.settle(s);
    // Whoever gets the first one gets the others, also the stack.
    if vip && s.ip.fragment == Fragment::First {
        fragments::teach(tables, s, (s.transport.source_port, s.transport.destination_port));
        tables.settle(s);
    }
    let entry = destination.entry(tables, s.transport.destination_port, s.protocol);
    match entry.map_or(kind::FREE, |entry| entry.kind) {
        kind::FRONTEND => Class::Frontend,
        kind::TUNNEL if s.part == Part::Packet && s.ip.fragment == Fragment::Whole => Class::Tunnel,
        kind::FREE if vip => {
            s.reason = if s.part == Part::Error {
                Reason::IcmpErrorUnknown
            } else {
                Reason::NoFrontend
            };
            Class::Pass
        }
        _ => Class::Pass,
    }
}

/// Finds out which flow the packet at `s.ip` belongs to, and what it is to it. `Err` for what is of no flow that we could
/// know: [`Reason::NoFrontend`] for another protocol.
#[inline(always)]
pub fn flow<P: Packet, T: Tables>(packet: &P, tables: &T, s: &mut Scratch) -> Result<(), Reason> {
    s.part = Part::Packet;
    s.client = s.ip.source;
    s.protocol = s.ip.protocol;
    if !matches!(s.ip.protocol, protocol::TCP | protocol::UDP) {
        if s.ip.fragment != Fragment::Whole {
            return Err(Reason::Fragment);
        }
        let error = icmp::carries(&s.ip) && icmp::read(packet, s, End::Source);
        return if error { Ok(()) } else { Err(Reason::NoFrontend) };
    }
    match s.ip.fragment {
        Fragment::Whole | Fragment::First => parse::transport(packet, &s.ip, &mut s.transport),
        Fragment::Later => fragments::recall(tables, s),
        Fragment::Unsound => Err(Reason::Fragment),
    }
}

/// A later fragment for a VIP came before its first.
#[inline(always)]
fn unknown_fragment<P: Packet, T: Tables>(packet: &P, tables: &T, s: &mut Scratch) -> Class {
    let unknown = fragments::hold(packet, tables);
    if unknown != Unknown::Held {
        s.reason = Reason::Fragment;
    }
    if unknown == Unknown::Aside {
        Class::Pass
    } else {
        Class::Drop
    }
}
