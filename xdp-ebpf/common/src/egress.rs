//! What happens to a frame that leaves: a reply of one of our backends gets the VIP as its source.

use crate::{
    abi::{Config, kind, protocol},
    flows,
    hash::Tuple,
    lookup::Hashed,
    mss,
    packet::{Packet, tcp_flag},
    parse,
    rewrite::{End, Rewrite},
    tables::{Scratch, Tables},
    verdict::{Reason, Verdict},
};

/// Decides about, and edits, the frame `packet`. Everything is passed.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(link) = parse::link(packet) else {
        return Verdict::pass(Reason::EgressNotOurs);
    };
    let (Some(mut scratch), Some(config)) = (tables.scratch(), tables.config()) else {
        return Verdict::pass(Reason::EgressNotOurs);
    };
    let s = &mut *scratch;
    if parse::ip(packet, link.l3, link.ethertype, &mut s.ip).is_err() {
        return Verdict::pass(Reason::EgressNotOurs);
    }
    tables.settle(s);
    reply(packet, tables, config, s)
}

#[inline(always)]
fn reply<P: Packet, T: Tables>(packet: &mut P, tables: &T, config: &Config, s: &mut Scratch) -> Verdict {
    let not_ours = Verdict::pass(Reason::EgressNotOurs);
    if !matches!(s.ip.protocol, protocol::TCP | protocol::UDP) || s.ip.fragment {
        return not_ours;
    }
    if parse::transport(packet, &s.ip, &mut s.transport).is_err() {
        return not_ours;
    }
    tables.settle(s);
    let source = Hashed::new(s.ip.source);
    if source
        .entry_of(tables, s.transport.source_port, s.ip.protocol, kind::BACKEND)
        .is_none()
    {
        return not_ours;
    }
    s.flow = Tuple {
        source: s.ip.destination,
        destination: s.ip.source,
        source_port: s.transport.destination_port,
        destination_port: s.transport.source_port,
        protocol: s.ip.protocol,
    };
    let Some((vip, vip_port)) = flows::vip(tables, config, s) else {
        return Verdict::pass(Reason::EgressNoFlow);
    };
    let (ip, transport) = (&s.ip, &s.transport);
    let mut rewrite = Rewrite::new(ip, transport, End::Source, vip, vip_port);
    if transport.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK {
        let limit = if ip.v6 { config.mss_v6 } else { config.mss_v4 };
        if let Some(clamp) = mss::clamp(packet, ip, transport, limit) {
            packet.store(clamp.at, clamp.value);
            rewrite = rewrite.with_body_change(clamp.difference);
        }
    }
    rewrite.apply(packet, 0);
    Verdict::pass(Reason::EgressReply)
}
