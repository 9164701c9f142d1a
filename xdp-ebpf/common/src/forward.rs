//! Gets a packet where [`crate::decide`] wants it: to a backend on this node, or through the tunnel to another node.

use crate::{
    abi::{Config, Node, protocol},
    decide::{self, Way},
    icmp, mss,
    packet::{Packet, ethertype},
    parse::Fragment,
    rewrite::{End, Rewrite},
    scratch::{Part, Scratch, Target},
    stages::Stages,
    tables::Tables,
    tunnel::{self, Encapsulation, Inner, Other, Outer},
    verdict::{Action, Reason, Verdict},
};

/// Gets the packet in `s`, whose backend is chosen, to the one that it belongs to.
#[inline(always)]
pub fn forward<P: Packet, T: Stages<P>>(packet: &mut P, tables: &T, ifindex: u32, s: &mut Scratch) -> Verdict {
    let way = decide::decide(tables, s);
    tables.settle(s);
    let done = match way {
        Way::Nowhere => false,
        Way::Here if s.part == Part::Error => tables.deliver_error(packet, s),
        Way::Here => tables.deliver(packet, s),
        Way::There => tables.send(packet, s),
    };
    if !done {
        return refused(packet, tables, s);
    }
    // Where the choice was made, and only what got its way: the backend's node does not count it again.
    if !s.tunneled {
        tables.count_backend(s.chosen.id, s.ip.len as u64);
    }
    let action = match way {
        Way::Here => Action::Pass,
        _ if s.out == ifindex => Action::Transmit,
        _ => Action::Redirect(s.out),
    };
    Verdict {
        action,
        reason: s.reason,
    }
}

/// A packet that nobody gets. A client's own stands aside, for the stack to do what it can; one from the tunnel is not the
/// stack's. Whom only the tunnel's MTU keeps from sending is told.
#[inline(always)]
fn refused<P: Packet, T: Stages<P>>(packet: &mut P, tables: &T, s: &mut Scratch) -> Verdict {
    if s.tunneled {
        return Verdict::drop(s.reason);
    }
    if s.reason == Reason::TooBigForTunnel && s.ip.dont_fragment {
        // Later fragments and ICMP errors are never answered (RFC 1122 §3.2.2). The first fragment was no shorter, so it was
        // answered, and nobody waits for the rest.
        if s.part == Part::Fragment || s.part == Part::Packet && !icmp::may_answer(tables) {
            return Verdict::drop(Reason::TooBigSilent);
        }
        if s.part == Part::Packet && tables.too_big(packet, s) {
            return Verdict::transmit(Reason::TooBigAnswered);
        }
    }
    // A segment of a connection is not for the stack: whoever serves the VIP there would reset it. Its client tries again.
    if s.protocol == protocol::TCP && s.part != Part::Error && !s.begins() {
        return Verdict::drop(s.reason);
    }
    if s.ip.fragment == Fragment::First {
        tables.stand_aside(s);
    }
    Verdict::pass(s.reason)
}

/// Rewrites the packet to `s.chosen`, out of the tunnel if it came in one. False, and nothing changed, when the kernel has
/// no room, which is then `s.reason`.
#[inline(always)]
pub fn deliver<P: Packet, T: Tables>(packet: &mut P, tables: &T, s: &mut Scratch) -> bool {
    let (address, port) = (s.chosen.address, s.chosen.port);
    let mut rewrite = Rewrite::new(&s.ip, &s.transport, s.part, End::Destination, address, port);
    let mut clamp = None;
    if s.begins()
        && let Some(config) = tables.config()
    {
        let limit = if s.ip.v6 { config.syn_mss_v6 } else { config.syn_mss_v4 };
        clamp = mss::clamp(packet, &s.ip, &s.transport, limit);
    }
    let Some(back) = unwrap(packet, s) else {
        s.reason = Reason::NoHeadroom;
        return false;
    };
    if let Some(clamp) = clamp {
        packet.store(clamp.at - back, clamp.value);
        rewrite = rewrite.with_body_change(clamp.difference);
    }
    rewrite.apply(packet, back);
    true
}

/// Moves the link layer the frame came with up to the inner IP packet, if there is one; gives by how many bytes the IP
/// header comes nearer to the frame's start.
#[inline(always)]
pub fn unwrap<P: Packet>(packet: &mut P, s: &Scratch) -> Option<usize> {
    if !s.tunneled {
        return Some(0);
    }
    let back = s.ip.l3 - s.link.l3;
    let macs = packet.load::<[u32; 3]>(0)?;
    let (tag, inner_tag) = (packet.load::<u32>(12)?, packet.load::<u32>(16)?);
    if !packet.adjust_head(back as i32) {
        return None;
    }
    packet.store(0, macs);
    if s.link.l3 >= 18 {
        packet.store(12, tag);
    }
    if s.link.l3 >= 22 {
        packet.store(16, inner_tag);
    }
    packet.store(s.link.l3 - 2, if s.ip.v6 { ethertype::IPV6 } else { ethertype::IPV4 });
    Some(back)
}

/// Sends the packet through the tunnel to the node of `s.chosen`, and says in `s.out` where it leaves. False, and nothing
/// changed, when that cannot be done, for `s.reason`.
#[inline(always)]
pub fn send<P: Packet, T: Tables>(packet: &mut P, tables: &T, s: &mut Scratch) -> bool {
    let (Some(config), Some(node)) = (tables.config(), tables.node(s.chosen.place)) else {
        s.reason = Reason::NodeUnreachable;
        return false;
    };
    if node.ifindex == 0 {
        s.reason = Reason::NodeUnreachable;
        return false;
    }
    let encapsulation = encapsulation(tables, config, s, node);
    let outer = encapsulation.outer;
    if s.ip.len + encapsulation.overhead() > usize::from(node.mtu) {
        s.reason = Reason::TooBigForTunnel;
        // What is said must also do for packets that name a second backend.
        s.mtu = node.mtu.saturating_sub(tunnel::overhead(outer.v6, true) as u16);
        return false;
    }
    let inner = Inner {
        l3: s.ip.l3,
        len: s.ip.len,
        v6: s.ip.v6,
        tos: s.ip.tos,
    };
    let done = encapsulation.apply(packet, &inner);
    s.out = node.ifindex;
    if !done {
        s.reason = Reason::NoHeadroom;
    }
    done
}

#[inline(always)]
fn encapsulation<'a, T: Tables>(tables: &'a T, config: &Config, s: &'a Scratch, node: &'a Node) -> Encapsulation<'a> {
    let outer = Outer::towards(node);
    // A packet that only fits without its second backend goes without: the chosen one's node has rows of its own.
    let fits = s.ip.len + tunnel::overhead(outer.v6, true) <= usize::from(node.mtu);
    let asking = s.flags & tunnel::FLAG_RETURN != 0;
    Encapsulation {
        backend: s.chosen.address.into(),
        backend_port: s.chosen.port,
        node,
        outer,
        second: if fits { second(tables, s, node) } else { None },
        hops: s.hops + u8::from(asking),
        flags: s.flags,
        hash: s.hash,
        port: u16::from_ne_bytes(config.tunnel_port),
    }
}

/// The option's second part.
#[inline(always)]
fn second<'a, T: Tables>(tables: &'a T, s: &'a Scratch, towards: &'a Node) -> Option<Other<'a>> {
    let node = match s.second.place {
        Target::NOWHERE => return None,
        Target::HERE => &towards.source,
        place => &tables.node(place)?.address,
    };
    Some(Other {
        backend: &s.second.address,
        port: s.second.port,
        node,
    })
}
