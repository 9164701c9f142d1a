//! Tunnel packets as they are on the wire between this node and another.

use crate::packets::frames::{Geneve, Ip, Link, Steering, Udp};
use crate::packets::world::{Family, NODE_MAC, OTHER_INTERFACE, TUNNEL_PORT, Target};
use weir_common::verdict::Action;

/// Flag of the option: who does not know the flow sends the packet back to the second backend.
pub(super) const RETURN: u8 = 1;
/// Flag of the option, for who is asked first: what comes in the round begins there.
pub(super) const AHEAD: u8 = 4;
/// Flag of the option: back from who does not know the flow.
pub(super) const BACK: u8 = 8;
/// Flag of the option: somebody cannot be asked.
pub(super) const BLOCKED: u8 = 16;
/// Flags of the option for who is asked first.
pub(super) const FIRST: u8 = AHEAD | RETURN;

/// The outer source port of packets built here, of the range that is expected.
const SOURCE_PORT: u16 = 0xc0de;
/// The outer flow label of packets built here.
const FLOW_LABEL: u32 = 0x0beef;

/// A tunnel packet's outer IP header.
pub(super) fn outer(from: std::net::IpAddr, to: std::net::IpAddr, tos: u8) -> Ip {
    Ip {
        id: 0,
        tos,
        flow_label: FLOW_LABEL,
        ..Ip::between(from, to)
    }
}

/// The UDP datagram of a tunnel packet.
pub(super) fn datagram(geneve: &Geneve) -> Udp {
    Udp::new(SOURCE_PORT, TUNNEL_PORT, &geneve.bytes()).unchecked()
}

/// What this node sends to `target`'s node: the frame, and the offset of its outer IP header.
pub(super) fn sent(target: Target, family: Family, tos: u8, steering: &Steering, inner: &[u8]) -> (Vec<u8>, usize) {
    let link = target.link(family);
    let outer = outer(target.underlay(family).tunnel(), target.node(family), tos);
    let frame = link.carry(&outer.carry(&datagram(&Geneve::new(steering, inner.to_vec()))));
    (frame, 14 + 4 * link.tags.len())
}

/// What is done with a frame sent to `target`'s node.
pub(super) fn action(target: Target) -> Action {
    match target {
        Target::Far => Action::Redirect(OTHER_INTERFACE),
        _ => Action::Transmit,
    }
}

/// The link header under which another node's packet arrives.
pub(super) fn from_node(target: Target, family: Family) -> Link {
    Link::between(target.next_hop(family), NODE_MAC)
}

/// What this node receives from `target`'s node.
pub(super) fn received(target: Target, family: Family, steering: &Steering, inner: &[u8]) -> Vec<u8> {
    let outer = outer(target.node(family), target.underlay(family).tunnel(), 0);
    from_node(target, family).carry(&outer.carry(&datagram(&Geneve::new(steering, inner.to_vec()))))
}
