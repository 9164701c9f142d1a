//! Tunnel packets from other nodes: decapsulated and delivered, or given their second chance.

use super::wrap::{BACK, FIRST, RETURN, action, datagram, from_node, outer, received, sent};
use super::{CLIENT_PORT, Case, Step, answered, came, data, following, opening, syn, to_vip};
use crate::packets::frames::{Geneve, Ip, Previous, Steering, Tcp, Udp, Upper};
use crate::packets::world::{self, Family, Protocol, Target, VLAN};
use weir_common::verdict::{Action, Reason};

pub(super) const TCP: Protocol = Protocol::Tcp;

/// The cases of one family (of the inner packet; but for one, the outer one's too).
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        cases.extend(delivered(family, protocol));
    }
    cases.extend(second_chance(family));
    cases.extend(no_second_chance(family));
    cases
}

pub(super) fn name(text: &str, family: Family) -> String {
    format!("tunnel, {text} {}", family.name())
}

/// The client's packet as it is inside.
pub(super) fn inner(family: Family, upper: &dyn Upper) -> Vec<u8> {
    to_vip(family).carry(upper)
}

/// `steering` with a previous backend.
fn with_previous(steering: Steering, previous: Previous) -> Steering {
    Steering {
        previous: Some(previous),
        ..steering
    }
}

pub(super) fn to_local(family: Family) -> Steering {
    Target::Local.steering(family, TCP, 0)
}

/// To the local backend, or the one the row had on `previous`' node.
pub(super) fn moved_here(family: Family, previous: Target) -> Steering {
    with_previous(to_local(family), previous.as_previous(family, TCP))
}

/// A packet in the tunnel for `target` on this node arrives from `Near`'s and is delivered to `pod`.
fn taken_out(text: &str, family: Family, steering: &Steering, upper: &Tcp, pod: Target) -> Case {
    let at = pod.backend(family, TCP);
    let frame = received(Target::Near, family, steering, &inner(family, upper));
    let packet = to_vip(family).to(at.ip()).carry(&upper.ports(CLIENT_PORT, at.port()));
    let expected = from_node(Target::Near, family).carry(&packet);
    Case::ingress(name(text, family), frame, Action::Pass, Reason::Decapsulated, expected)
}

fn delivered(family: Family, protocol: Protocol) -> Vec<Case> {
    let pod = Target::Local.backend(family, protocol);
    let steering = Target::Local.steering(family, protocol, 0);
    let text = |text: &str| name(&format!("{text} {protocol:?}").to_lowercase(), family);
    let (port, ip) = (world::LOCAL.port, to_vip(family));
    let mut cases = Vec::new();
    for (kind, before, after) in [
        ("first", opening(protocol, port), opening(protocol, pod.port())),
        ("later", following(protocol, port), following(protocol, pod.port())),
    ] {
        let packet = ip.to(pod.ip()).carry(&*after);
        for (over, target) in [("", Target::Near), (" over the other family", Target::Crossed)] {
            let frame = received(target, family, &steering, &ip.carry(&*before));
            let expected = from_node(target, family).carry(&packet);
            let text = text(&format!("{kind}{over}"));
            cases.push(Case::ingress(text, frame, Action::Pass, Reason::Decapsulated, expected));
        }
        let geneve = Geneve::new(&steering, ip.carry(&*before));
        let around = outer(Target::Near.node(family), family.tunnel(), 0x28);
        for (tags, what) in [
            (vec![(0x8100, VLAN)], "one tag"),
            (vec![(0x88a8, 0x2005), (0x8100, 0xe000 | VLAN)], "two tags"),
        ] {
            let link = from_node(Target::Near, family).tagged(&tags);
            let frame = link.carry(&around.carry(&datagram(&geneve)));
            let text = text(&format!("{kind}, {what}"));
            cases.push(Case::ingress(
                text,
                frame,
                Action::Pass,
                Reason::Decapsulated,
                link.carry(&packet),
            ));
        }
        let tail = [0x5a; 7];
        let link = from_node(Target::Near, family);
        let frame = [link.carry(&around.carry(&datagram(&geneve))), tail.to_vec()].concat();
        let expected = [link.carry(&packet), tail.to_vec()].concat();
        cases.push(Case::ingress(
            text(&format!("{kind}, padded")),
            frame,
            Action::Pass,
            Reason::Decapsulated,
            expected,
        ));
        let options = Ip {
            options: vec![0x94, 4, 0, 0],
            extensions: vec![(60, vec![0, 1, 4, 0, 0, 0, 0])],
            ..around.clone()
        };
        let frame = link.carry(&options.carry(&datagram(&geneve)));
        cases.push(Case::ingress(
            text(&format!("{kind}, outer options")),
            frame,
            Action::Pass,
            Reason::Decapsulated,
            link.carry(&packet),
        ));
    }
    let inside = Ip {
        ttl: 3,
        tos: 0x68,
        options: vec![1, 1, 1, 0],
        extensions: vec![(60, vec![0, 1, 4, 0, 0, 0, 0])],
        dont_fragment: false,
        ..ip
    };
    let frame = received(
        Target::Near,
        family,
        &steering,
        &inside.carry(&*opening(protocol, port)),
    );
    let expected = from_node(Target::Near, family).carry(&inside.to(pod.ip()).carry(&*opening(protocol, pod.port())));
    cases.push(Case::ingress(
        text("inner options"),
        frame,
        Action::Pass,
        Reason::Decapsulated,
        expected,
    ));
    cases
}

/// Another node asks on behalf of a flow that this node does not know: the previous backend's node is asked.
fn second_chance(family: Family) -> Vec<Case> {
    let port = world::LOCAL.port;
    let packet = inner(family, &data(port));
    let mut cases = Vec::new();
    let mut add = |text: &str, tags: &[(u16, u16)], target: Target, hops: u8, tos: u8| {
        let previous = target.as_previous(family, TCP);
        let asked = with_previous(Target::Local.steering(family, TCP, hops), previous);
        let passed = Steering {
            flags: FIRST,
            ..with_previous(
                target.steering(family, TCP, hops + 1),
                Target::Local.as_previous(family, TCP),
            )
        };
        let around = outer(Target::Near.node(family), family.tunnel(), tos);
        let link = from_node(Target::Near, family).tagged(tags);
        let frame = link.carry(&around.carry(&datagram(&Geneve::new(&asked, packet.clone()))));
        // What goes on has the class of what is inside.
        let (expected, l3) = sent(target, family, 0, &passed, &packet);
        let text = name(&format!("second chance {text}"), family);
        cases.push(Case::ingress(text, frame, action(target), Reason::SecondChance, expected).outer(l3));
    };
    add("at another node", &[], Target::Older, 0, 0);
    add("with one hop left", &[], Target::Older, 11, 0);
    add("with a service class", &[], Target::Older, 0, 0xb8);
    add("at the sender", &[], Target::Near, 0, 0);
    add("on another interface", &[], Target::Far, 0, 0);
    add("in another vlan", &[], Target::Tagged, 0, 0);
    add("in another vlan, from one", &[(0x8100, 9)], Target::Tagged, 0, 0);
    add("without the tag it came with", &[(0x8100, 9)], Target::Older, 0, 0);
    add(
        "without the tags it came with",
        &[(0x88a8, 9), (0x8100, 9)],
        Target::Older,
        0,
        0,
    );

    // The sender used a checksum, which the new option would break; tunnels may do without (RFC 768, RFC 6935).
    let mut summed = cases[0].clone();
    let steering = moved_here(family, Target::Older);
    let summing = Udp {
        unchecked: false,
        ..datagram(&Geneve::new(&steering, packet))
    };
    let around = outer(Target::Near.node(family), family.tunnel(), 0);
    summed.name = name("second chance of a packet with an outer checksum", family);
    summed.frame = from_node(Target::Near, family).carry(&around.carry(&summing));
    cases.push(summed);
    cases
}

/// Packets with a previous backend that are delivered nevertheless.
fn no_second_chance(family: Family) -> Vec<Case> {
    let port = world::LOCAL.port;
    let moved = moved_here(family, Target::Older);
    let inside = with_previous(to_local(family), Target::Neighbor.as_previous(family, TCP));
    let opens = |steering: &Steering, target| {
        let syn: Step = came(received(Target::Near, family, steering, &inner(family, &syn(port))));
        [syn, answered(family, target, CLIENT_PORT)]
    };
    let known = opens(&to_local(family), Target::Local);
    let neighbor = Target::Neighbor.steering(family, TCP, 0);
    let at_neighbor = opens(&neighbor, Target::Neighbor);
    let udp = Target::Local.backend(family, Protocol::Udp);
    let udp_back = Steering {
        flags: BACK,
        ..Target::Local.steering(family, Protocol::Udp, 2)
    };
    let unanswerable = Steering {
        hops: 1,
        flags: RETURN,
        ..to_local(family)
    };
    let datagram = |port| Udp::new(CLIENT_PORT, port, b"any");
    let nobody = Previous {
        node: family.impostor(),
        ..Target::Older.as_previous(family, TCP)
    };
    let nowhere = Previous {
        node: std::net::IpAddr::V4([0, 0, 0, 0].into()),
        ..nobody
    };
    let lost = |previous| with_previous(to_local(family), previous);
    vec![
        taken_out(
            "previous backend on no node",
            family,
            &lost(nobody),
            &data(port),
            Target::Local,
        ),
        taken_out(
            "previous backend nowhere",
            family,
            &lost(nowhere),
            &data(port),
            Target::Local,
        ),
        taken_out("moved here, syn", family, &moved, &syn(port), Target::Local),
        taken_out("moved here, known flow", family, &moved, &data(port), Target::Local).after(known.clone()),
        taken_out(
            "everybody was asked",
            family,
            &Steering {
                hops: 3,
                flags: BACK,
                ..to_local(family)
            },
            &data(port),
            Target::Local,
        ),
        Case::drop(
            name("asked, with nobody to come back to", family),
            received(Target::Near, family, &unanswerable, &inner(family, &data(port))),
            Reason::NodeUnreachable,
        ),
        taken_out(
            "moved here, no hop left",
            family,
            &Steering { hops: 12, ..moved },
            &data(port),
            Target::Local,
        ),
        taken_out(
            "moved here, hops beyond all",
            family,
            &Steering { hops: 255, ..moved },
            &data(port),
            Target::Local,
        ),
        taken_out(
            "moved inside, known to none",
            family,
            &inside,
            &data(port),
            Target::Local,
        ),
        taken_out(
            "moved inside, known at the neighbor",
            family,
            &inside,
            &data(port),
            Target::Neighbor,
        )
        .after(at_neighbor.clone()),
        taken_out(
            "moved inside, syn though known at the neighbor",
            family,
            &inside,
            &syn(port),
            Target::Local,
        )
        .after(at_neighbor.clone()),
        taken_out(
            "moved inside, known at both",
            family,
            &inside,
            &data(port),
            Target::Local,
        )
        .after(known)
        .after(at_neighbor),
        taken_out(
            "in several buffers",
            family,
            &to_local(family),
            &data(port).payload(&[0xc3; 8_000]),
            Target::Local,
        ),
        Case::ingress(
            name("everybody was asked, udp", family),
            received(Target::Near, family, &udp_back, &inner(family, &datagram(port))),
            Action::Pass,
            Reason::Decapsulated,
            from_node(Target::Near, family).carry(&to_vip(family).to(udp.ip()).carry(&datagram(udp.port()))),
        ),
    ]
}
