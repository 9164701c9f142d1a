//! Frontends whose row changed: a flow stays with the backend that has it, wherever somebody knows that.

use super::wrap::{FIRST, action, sent};
use super::{CLIENT_PORT, Case, Step, arriving, begun, came, data, following, leaving, left, opening, syn, to_vip};
use crate::packets::frames::{Ip, Steering, Tcp, flag};
use crate::packets::world::{self, Family, Frontend, Protocol, Target};
use weir_common::verdict::{Action, Reason};

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        cases.extend(unknown(family, protocol));
    }
    cases.extend(tcp_unknown(family));
    cases.extend(tcp_known(family));
    cases.extend(cached(family));
    cases
}

/// What the sender says when it cannot tell which of the two has the flow.
fn both(family: Family, protocol: Protocol, current: Target, previous: Target) -> Steering {
    Steering {
        previous: Some(previous.as_previous(family, protocol)),
        ..current.steering(family, protocol, 0)
    }
}

fn only(family: Family, target: Target) -> Steering {
    target.steering(family, Protocol::Tcp, 0)
}

/// A TCP packet to `port` is sent to `target`'s node with this in the option.
fn tunnelled(name: &str, family: Family, upper: &Tcp, target: Target, steering: &Steering, reason: Reason) -> Case {
    let inner = to_vip(family).carry(upper);
    let (expected, l3) = sent(target, family, 0, steering, &inner);
    let name = format!("{name} {}", family.name());
    Case::ingress(name, arriving().carry(&inner), action(target), reason, expected).outer(l3)
}

/// A TCP packet is delivered to `target` on this node.
pub(super) fn delivered(name: &str, family: Family, upper: &Tcp, target: Target) -> Case {
    let pod = target.backend(family, Protocol::Tcp);
    let expected = arriving().carry(&to_vip(family).to(pod.ip()).carry(&upper.ports(CLIENT_PORT, pod.port())));
    let name = format!("{name} {}", family.name());
    Case::ingress(
        name,
        arriving().carry(&to_vip(family).carry(upper)),
        Action::Pass,
        Reason::Local,
        expected,
    )
}

pub(super) fn arrived(family: Family, upper: &Tcp) -> Step {
    came(arriving().carry(&to_vip(family).carry(upper)))
}

fn row(family: Family, frontend: Frontend, current: Option<Target>, previous: Option<Target>) -> Step {
    Step::Row {
        port: frontend.port,
        family,
        protocol: Protocol::Tcp,
        current,
        previous,
    }
}

/// Flows nobody has heard of, in either protocol.
fn unknown(family: Family, protocol: Protocol) -> Vec<Case> {
    let ip = to_vip(family);
    let name = |text: &str| format!("{text} {protocol:?} {}", family.name()).to_lowercase();
    let mut cases = Vec::new();
    for (text, frontend, current, previous) in [
        ("moved", world::MOVED, Target::Near, Target::Older),
        ("moved away", world::MOVED_AWAY, Target::Near, Target::Local),
        (
            "moved from unreachable",
            world::MOVED_FROM_UNREACHABLE,
            Target::Near,
            Target::Unreachable,
        ),
    ] {
        let says = both(family, protocol, current, previous);
        let alone = current.steering(family, protocol, 0);
        for (kind, upper) in [
            ("first", opening(protocol, frontend.port)),
            ("later", following(protocol, frontend.port)),
        ] {
            let inner = ip.carry(&*upper);
            // This node's own backend has been asked before anything is sent: it need not be named. A SYN asks nobody.
            let asked = previous == Target::Local && !(protocol == Protocol::Tcp && kind == "first");
            let (expected, l3) = sent(current, family, 0, if asked { &alone } else { &says }, &inner);
            let text = name(&format!("{text}, {kind}"));
            let frame = arriving().carry(&inner);
            cases.push(Case::ingress(text, frame, Action::Transmit, Reason::Tunnel, expected).outer(l3));
        }
    }
    // Nobody takes new flows, and of datagrams nobody knows whether they start one; the previous backend drains.
    let gone = world::GONE.port;
    let first = arriving().carry(&ip.carry(&*opening(protocol, gone)));
    cases.push(Case::pass(
        name("only the previous is left, first"),
        first,
        Reason::NoBackend,
    ));
    let inner = ip.carry(&*following(protocol, gone));
    let frame = arriving().carry(&inner);
    let text = name("only the previous is left, later");
    cases.push(match protocol {
        Protocol::Tcp => {
            let (expected, l3) = sent(
                Target::Older,
                family,
                0,
                &Target::Older.steering(family, protocol, 0),
                &inner,
            );
            Case::ingress(text, frame, Action::Transmit, Reason::Tunnel, expected).outer(l3)
        }
        Protocol::Udp => Case::pass(text, frame, Reason::NoBackend),
    });
    let pod = Target::Local.backend(family, protocol);
    for (text, port) in [
        ("moved here", world::MOVED_HERE.port),
        ("moved here from unreachable", world::MOVED_HERE_FROM_UNREACHABLE.port),
        ("moved inside", world::MOVED_INSIDE.port),
    ] {
        let frame = arriving().carry(&ip.carry(&*opening(protocol, port)));
        let expected = arriving().carry(&ip.to(pod.ip()).carry(&*opening(protocol, pod.port())));
        let name = name(&format!("{text}, first"));
        // A datagram may be of an older flow.
        if protocol == Protocol::Udp && text == "moved here" {
            let steering = asking(family, protocol, Target::Older, Target::Local);
            let (asked, l3) = sent(
                Target::Older,
                family,
                0,
                &steering,
                &ip.carry(&*opening(protocol, port)),
            );
            cases.push(Case::ingress(name, frame, Action::Transmit, Reason::SecondChance, asked).outer(l3));
        } else {
            cases.push(Case::ingress(name, frame, Action::Pass, Reason::Local, expected));
        }
    }
    cases
}

/// What `asked` is told, who is to send the packet on to `back` if it does not know the flow.
fn asking(family: Family, protocol: Protocol, asked: Target, back: Target) -> Steering {
    Steering {
        flags: FIRST,
        previous: Some(back.as_previous(family, protocol)),
        ..asked.steering(family, protocol, 1)
    }
}

/// A segment for the backend on this node that took over a row goes to the one that had it, and comes back if need be.
pub(super) fn asked(name: &str, family: Family, upper: &Tcp) -> Case {
    let steering = asking(family, Protocol::Tcp, Target::Older, Target::Local);
    tunnelled(name, family, upper, Target::Older, &steering, Reason::SecondChance)
}

/// Later packets of flows that this node cannot find.
fn tcp_unknown(family: Family) -> Vec<Case> {
    let here = world::MOVED_HERE.port;
    let bare = |port, flags| Tcp::new(CLIENT_PORT, port, flags);
    let second = |name: &str, upper: &Tcp| asked(name, family, upper);
    let lost = arriving().carry(&to_vip(family).carry(&data(world::MOVED_HERE_FROM_UNREACHABLE.port)));
    vec![
        second("moved here, later", &data(here)),
        second("moved here, fin", &bare(here, flag::FIN | flag::ACK)),
        second("moved here, rst", &bare(here, flag::RST)),
        second("moved here, syn ack", &bare(here, flag::SYN | flag::ACK)),
        delivered(
            "moved inside, later",
            family,
            &data(world::MOVED_INSIDE.port),
            Target::Local,
        ),
        Case::drop(
            format!("moved here from unreachable, later {}", family.name()),
            lost,
            Reason::NodeUnreachable,
        ),
    ]
}

/// Flows that `FLOWS` knows. A flow of the same client port to the same pod is the same flow, so one that came by
/// another frontend's port stands for one that came before the row changed.
fn tcp_known(family: Family) -> Vec<Case> {
    let local = begun(family, world::LOCAL.port, Target::Local);
    let at_neighbor = [row(family, world::LOCAL, Some(Target::Neighbor), None)];
    let neighbor = at_neighbor
        .into_iter()
        .chain(begun(family, world::LOCAL.port, Target::Neighbor));
    let stranger = came(arriving().carry(&to_vip(family).carry(&syn(world::LOCAL.port).ports(9, world::LOCAL.port))));
    let later = |name: &str, frontend: Frontend, target| delivered(name, family, &data(frontend.port), target);
    let lost = |name: &str| asked(name, family, &data(world::MOVED_HERE.port));
    vec![
        later("moved here, later, begun here", world::MOVED_HERE, Target::Local).after(local.clone()),
        later("moved here, syn, then later", world::MOVED_HERE, Target::Local).after(begun(
            family,
            world::MOVED_HERE.port,
            Target::Local,
        )),
        // A SYN in the client's name began nothing: the flow may be the previous backend's.
        lost("moved here, syn, then later without an answer").after([arrived(family, &syn(world::MOVED_HERE.port))]),
        // Its port may be another connection's by now.
        lost("moved here, later, begun and ended here")
            .after(local.clone())
            .after(ended(family)),
        lost("moved here, later, begun here days ago")
            .after(local.clone())
            .after([arrived(family, &data(world::LOCAL.port)), Step::Later(100_001)]),
        asked(
            "moved here, syn, answer, then later of another connection",
            family,
            &data(world::MOVED_HERE.port).acknowledging(0x7788_9900),
        )
        .after(begun(family, world::MOVED_HERE.port, Target::Local)),
        later("moved away, later, begun here", world::MOVED_AWAY, Target::Local).after(local.clone()),
        tunnelled(
            "moved away, syn though begun here",
            family,
            &syn(world::MOVED_AWAY.port),
            Target::Near,
            &both(family, Protocol::Tcp, Target::Near, Target::Local),
            Reason::Tunnel,
        )
        .after(local),
        tunnelled(
            "moved away, later, another client begun here",
            family,
            &data(world::MOVED_AWAY.port),
            Target::Near,
            &only(family, Target::Near),
            Reason::Tunnel,
        )
        .after([stranger]),
        later(
            "moved inside, later, begun at the neighbor",
            world::MOVED_INSIDE,
            Target::Neighbor,
        )
        .after(neighbor.clone()),
        delivered(
            "moved inside, syn though begun at the neighbor",
            family,
            &syn(world::MOVED_INSIDE.port),
            Target::Local,
        )
        .after(neighbor.clone()),
        // Both know it: the current one has it.
        later("moved inside, later, begun at both", world::MOVED_INSIDE, Target::Local)
            .after(neighbor)
            .after(begun(family, world::MOVED_INSIDE.port, Target::Local)),
    ]
}

/// The local backend's connection ends, first by its client.
fn ended(family: Family) -> [Step; 3] {
    let fin = Tcp::new(CLIENT_PORT, world::LOCAL.port, flag::FIN | flag::ACK);
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let answer = leaving().carry(&Ip::between(pod.ip(), family.client()).carry(&fin.ports(pod.port(), CLIENT_PORT)));
    [
        arrived(family, &data(world::LOCAL.port)),
        arrived(family, &fin),
        left(answer),
    ]
}

/// Flows whose SYN passed while their row was in transition.
fn cached(family: Family) -> Vec<Case> {
    let port = world::MOVED.port;
    let begun = arrived(family, &syn(port));
    let moved_on = row(family, world::MOVED, Some(Target::Far), Some(Target::Near));
    let moved_twice = row(family, world::MOVED, Some(Target::Far), Some(Target::Older));
    let near = only(family, Target::Near);
    let tunnel = |name: &str, upper: &Tcp, target, steering: &Steering| {
        tunnelled(name, family, upper, target, steering, Reason::Tunnel)
    };
    vec![
        tunnel("moved, syn, then later", &data(port), Target::Near, &near).after([begun.clone()]),
        tunnel("moved, syn, then syn", &syn(port), Target::Near, &near).after([begun.clone()]),
        tunnel(
            "moved, syn, then later of another client port",
            &data(port).ports(CLIENT_PORT + 1, port),
            Target::Near,
            &both(family, Protocol::Tcp, Target::Near, Target::Older),
        )
        .after([begun.clone()]),
        tunnel("moved, syn, moved on, later", &data(port), Target::Near, &near)
            .after([begun.clone(), moved_on.clone()]),
        tunnel(
            "moved, syn, moved on, syn",
            &syn(port),
            Target::Far,
            &both(family, Protocol::Tcp, Target::Far, Target::Near),
        )
        .after([begun.clone(), moved_on.clone()]),
        tunnel(
            "moved, syn, moved on, syn, later",
            &data(port),
            Target::Far,
            &both(family, Protocol::Tcp, Target::Far, Target::Near),
        )
        .after([begun.clone(), moved_on.clone(), begun.clone()]),
        tunnel(
            "moved, syn, moved twice, later",
            &data(port),
            Target::Far,
            &both(family, Protocol::Tcp, Target::Far, Target::Older),
        )
        .after([begun.clone(), moved_twice]),
        tunnel(
            "not yet moved, syn, moved on, later",
            &data(port),
            Target::Far,
            &both(family, Protocol::Tcp, Target::Far, Target::Near),
        )
        .after([row(family, world::MOVED, Some(Target::Near), None), begun, moved_on]),
    ]
}
