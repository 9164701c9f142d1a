//! What happens to a frame that leaves: a reply of one of our backends gets the VIP as its source.

use crate::{
    abi::{kind, protocol},
    addr::Address,
    flows, fragments, icmp,
    lookup::Hashed,
    mss,
    packet::{Packet, tcp_flag},
    parse::{self, Fragment},
    rewrite::{End, Rewrite},
    scratch::{Part, Scratch},
    stages::Decisions,
    tables::Tables,
    verdict::{Reason, Verdict},
};

/// Decides about, and edits, the frame `packet`. Everything is passed.
#[inline(always)]
pub fn process<P: Packet, T: Decisions>(packet: &mut P, tables: &T) -> Verdict {
    let not_ours = Verdict::pass(Reason::EgressNotOurs);
    let (Some(link), Some(mut scratch)) = (parse::link(packet), tables.scratch()) else {
        return not_ours;
    };
    let s = &mut *scratch;
    if parse::ip(packet, link.l3, link.ethertype, &mut s.ip).is_err() {
        return not_ours;
    }
    tables.settle(s);
    if !flow(packet, tables, s) {
        return not_ours;
    }
    tables.settle(s);
    let (pod, port) = (s.ip.source, s.transport.destination_port);
    if Hashed::new(pod)
        .entry_of(tables, port, s.protocol, kind::BACKEND)
        .is_none()
    {
        return not_ours;
    }
    if s.ip.fragment == Fragment::First {
        // As they stand in the packet.
        fragments::teach(tables, s, (s.transport.destination_port, s.transport.source_port));
        tables.settle(s);
    }
    s.aim(pod, port);
    let Some((vip, vip_port)) = flows::reply(tables, s) else {
        return Verdict::pass(Reason::EgressNoFlow);
    };
    if s.part == Part::Error {
        return if icmp::depart(packet, s, vip, vip_port) {
            Verdict::pass(Reason::EgressReply)
        } else {
            not_ours
        };
    }
    reply(packet, tables, s, (vip, vip_port))
}

/// Finds out which flow the packet at `s.ip` belongs to. As everywhere, the flow's source is the client, and so
/// `s.transport` is turned round.
#[inline(always)]
fn flow<P: Packet, T: Tables>(packet: &P, tables: &T, s: &mut Scratch) -> bool {
    s.part = Part::Packet;
    s.client = s.ip.destination;
    s.protocol = s.ip.protocol;
    if !matches!(s.ip.protocol, protocol::TCP | protocol::UDP) {
        return icmp::carries(&s.ip) && s.ip.fragment == Fragment::Whole && icmp::read(packet, s, End::Destination);
    }
    let read = match s.ip.fragment {
        Fragment::Whole | Fragment::First => parse::transport(packet, &s.ip, &mut s.transport).is_ok(),
        Fragment::Later => fragments::recall(tables, s).is_ok(),
        Fragment::Unsound => false,
    };
    if !read {
        return false;
    }
    tables.settle(s);
    core::mem::swap(&mut s.transport.source_port, &mut s.transport.destination_port);
    true
}

#[inline(always)]
fn reply<P: Packet, T: Tables>(packet: &mut P, tables: &T, s: &mut Scratch, (vip, port): (Address, u16)) -> Verdict {
    // As it stands in the packet again.
    core::mem::swap(&mut s.transport.source_port, &mut s.transport.destination_port);
    let mut rewrite = Rewrite::new(&s.ip, &s.transport, s.part, End::Source, vip, port);
    let synchronizes = s.transport.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK;
    if synchronizes
        && s.part == Part::Packet
        && let Some(config) = tables.config()
    {
        let limit = if s.ip.v6 { config.mss_v6 } else { config.mss_v4 };
        if let Some(clamp) = mss::clamp(packet, &s.ip, &s.transport, limit) {
            packet.store(clamp.at, clamp.value);
            rewrite = rewrite.with_body_change(clamp.difference);
        }
    }
    rewrite.apply(packet, 0);
    Verdict::pass(Reason::EgressReply)
}
