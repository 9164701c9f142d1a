//! A packet with its backends chosen: find out which of them knows the flow, and get it there.
//!
//! The rule is the same for a packet fresh from a client and for one another node sent, because the node of a backend is
//! the only one that knows that backend's flows:
//!
//! 1. a chosen backend on this node that knows the flow gets the packet;
//! 2. so does, for a packet that can only belong to an existing flow, the row's previous backend, when it is here;
//! 3. when that one is elsewhere, its node is asked, once: the second chance;
//! 4. else it is a new flow of the chosen backend: noted and delivered here, or sent to that backend's node.

use crate::{
    abi::{Config, Node, kind},
    addr::Address,
    flows,
    hash::Tuple,
    lookup::Hashed,
    packet::{Packet, Udp, ethertype},
    parse::Transport,
    rewrite::{End, Rewrite},
    tables::{Scratch, Tables, Target},
    tunnel::{self, Choice, Encapsulation, Header, Inner, Outer, Previous},
    verdict::{Action, Reason, Verdict},
};
use core::mem::offset_of;

/// What became of the decision; the target is in `Scratch::chosen`.
enum Way {
    /// It is on this node.
    Here(Reason),
    /// It is on another.
    There(Reason),
    /// Nobody gets the packet.
    Nowhere(Verdict),
}

/// Gets the packet in `s` to the backend that it belongs to.
#[inline(always)]
pub fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    ifindex: u32,
    s: &mut Scratch,
) -> Verdict {
    let way = decide(tables, config, s);
    tables.settle(s);
    let verdict = match way {
        Way::Here(reason) => here(packet, s, reason),
        Way::There(reason) => there(packet, tables, config, ifindex, s, reason),
        Way::Nowhere(verdict) => verdict,
    };
    // Where the choice was made, and only what got its way: the backend's node does not count it again.
    if matches!(verdict.reason, Reason::Local | Reason::Tunnel) || verdict.reason == Reason::SecondChance && !s.tunneled
    {
        tables.count_backend(s.chosen.id, s.ip.len as u64);
    }
    verdict
}

/// Whether a packet can only belong to a flow that already exists.
#[inline(always)]
fn continues(transport: &Transport) -> bool {
    !transport.udp && !transport.is_bare_syn()
}

#[inline(always)]
fn decide<T: Tables>(tables: &T, config: &Config, s: &mut Scratch) -> Way {
    let delivered = if s.tunneled {
        Reason::Decapsulated
    } else {
        Reason::Local
    };
    let ask = s.previous.place != Target::NOWHERE && continues(&s.transport);
    if s.chosen.place == Target::HERE {
        aim(s, s.chosen);
        if flows::note(tables, config, s) {
            return Way::Here(delivered);
        }
    }
    if ask && s.previous.place == Target::HERE {
        aim(s, s.previous);
        if flows::note(tables, config, s) {
            s.chosen = s.previous;
            return Way::Here(delivered);
        }
    }
    if s.chosen.place != Target::HERE {
        return Way::There(Reason::Tunnel);
    }
    if ask && s.previous.place != Target::HERE {
        s.chosen = s.previous;
        s.previous.place = Target::NOWHERE;
        return Way::There(Reason::SecondChance);
    }
    aim(s, s.chosen);
    let (refused, unknown) = if s.tunneled {
        (Verdict::drop(Reason::FlowTableFull), !is_ours(tables, s))
    } else {
        (Verdict::pass(Reason::FlowTableFull), false)
    };
    if unknown {
        return Way::Nowhere(Verdict::drop(Reason::TunnelUnknownBackend));
    }
    if flows::insert(tables, config, s) {
        Way::Here(delivered)
    } else {
        Way::Nowhere(refused)
    }
}

/// Makes `s.flow` the packet's flow as `target` sees it.
#[inline(always)]
fn aim(s: &mut Scratch, target: Target) {
    s.flow = Tuple {
        source: s.ip.source,
        destination: target.address,
        source_port: s.transport.source_port,
        destination_port: target.port,
        protocol: s.ip.protocol,
    };
}

/// Whether the flow's backend is one of this node's.
#[inline(always)]
fn is_ours<T: Tables>(tables: &T, s: &Scratch) -> bool {
    let pod = Hashed::new(s.flow.destination);
    pod.entry_of(tables, s.flow.destination_port, s.flow.protocol, kind::BACKEND)
        .is_some()
}

/// Rewrites the packet to `s.chosen`, out of the tunnel if it came in one, and hands it to the stack.
#[inline(always)]
fn here<P: Packet>(packet: &mut P, s: &Scratch, reason: Reason) -> Verdict {
    let rewrite = Rewrite::new(&s.ip, &s.transport, End::Destination, s.chosen.address, s.chosen.port);
    let mut back = 0;
    if s.tunneled {
        back = s.ip.l3 - s.link.l3;
        if !unwrap(packet, s, back) {
            return Verdict::drop(Reason::NoHeadroom);
        }
    }
    rewrite.apply(packet, back);
    Verdict::pass(reason)
}

/// Moves the link layer the frame came with up to the inner IP packet, `back` bytes further in.
#[inline(never)]
fn unwrap<P: Packet>(packet: &mut P, s: &Scratch, back: usize) -> bool {
    let (Some(macs), tag, inner_tag) = (
        packet.load::<[u32; 3]>(0),
        packet.load::<u32>(12),
        packet.load::<u32>(16),
    ) else {
        return false;
    };
    if !packet.adjust_head(back as i32) {
        return false;
    }
    packet.store(0, macs);
    if let (true, Some(tag)) = (s.link.l3 >= 18, tag) {
        packet.store(12, tag);
    }
    if let (true, Some(tag)) = (s.link.l3 >= 22, inner_tag) {
        packet.store(16, tag);
    }
    packet.store(s.link.l3 - 2, if s.ip.v6 { ethertype::IPV6 } else { ethertype::IPV4 });
    true
}

/// Sends the packet to the node of `s.chosen`.
#[inline(always)]
fn there<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    ifindex: u32,
    s: &Scratch,
    reason: Reason,
) -> Verdict {
    let stood_aside = |reason| {
        if s.tunneled {
            Verdict::drop(reason)
        } else {
            Verdict::pass(reason)
        }
    };
    let Some(node) = tables.node(s.chosen.place).filter(|node| node.ifindex != 0) else {
        return stood_aside(Reason::NodeUnreachable);
    };
    let out = if node.ifindex == ifindex {
        Action::Transmit
    } else {
        Action::Redirect(node.ifindex)
    };
    if s.tunneled {
        return match pass_on(packet, s, node) {
            Ok(()) => Verdict { action: out, reason },
            Err(reason) => Verdict::drop(reason),
        };
    }
    let encapsulation = Encapsulation {
        backend: s.chosen.address.into(),
        backend_port: s.chosen.port,
        node,
        outer: Outer::towards(node),
        previous: previous(tables, s, node),
        hash: s.hash,
        port: u16::from_ne_bytes(config.tunnel_port),
    };
    if s.ip.len + encapsulation.overhead() > usize::from(node.mtu) {
        return Verdict::pass(Reason::TooBigForTunnel);
    }
    let inner = Inner {
        l3: s.ip.l3,
        len: s.ip.len,
        v6: s.ip.v6,
        tos: s.ip.tos,
    };
    if !encapsulation.apply(packet, &inner) {
        return Verdict::pass(Reason::NoHeadroom);
    }
    Verdict { action: out, reason }
}

/// The option's second part, for a row in transition.
#[inline(always)]
fn previous<T: Tables>(tables: &T, s: &Scratch, towards: &Node) -> Option<Previous> {
    let node: Address = match s.previous.place {
        Target::NOWHERE => return None,
        // It is ours, and does not know the flow or was not asked because the packet may start one.
        Target::HERE => towards.source,
        place => tables.node(place)?.address,
    };
    Some(Previous {
        backend: s.previous.address.into(),
        port: s.previous.port,
        reserved: 0,
        node: node.into(),
    })
}

/// Readdresses the tunnel packet to `node` and to `s.chosen`.
#[inline(never)]
fn pass_on<P: Packet>(packet: &mut P, s: &Scratch, node: &Node) -> Result<(), Reason> {
    let outer = Outer::towards(node);
    // The outer header is written over, so it must be as long as ours, without options or extension headers.
    if outer.v6 != s.outer.v6 || s.outer.l4 - s.outer.l3 != outer.ip_len() {
        return Err(Reason::TunnelMalformed);
    }
    if s.outer.len > usize::from(node.mtu) {
        return Err(Reason::TooBigForTunnel);
    }
    if !packet.adjust_head(s.link.l3 as i32 - outer.l3 as i32) {
        return Err(Reason::NoHeadroom);
    }
    tunnel::store_link(packet, node, outer);
    tunnel::store_ip(packet, node, outer, s.outer.len as u16, s.outer.tos, s.hash);
    let header = outer.l3 + outer.ip_len();
    let choice = Choice {
        backend: s.chosen.address.into(),
        port: s.chosen.port,
        hops: s.hops + 1,
        flags: tunnel::FLAG_PREVIOUS_TRIED,
    };
    packet.store(header + offset_of!(Header, choice), choice);
    // A sender that used one made it of what has just changed; a tunnel may do without (RFC 768, RFC 6935).
    packet.store(header + offset_of!(Udp, checksum), 0_u16);
    Ok(())
}
