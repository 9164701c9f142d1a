//! Rows that changed more than once: who does not know a flow goes on by this node's own rows.

use super::wrap::{FINAL, FORTH, RETURN, action, from_node, received, sent};
use super::{Case, arriving, begun, data, opening, syn, to_vip};
use crate::packets::frames::{Steering, Tcp};
use crate::packets::world::{self, Family, Protocol, Target};
use weir_common::verdict::{Action, Reason};

const TCP: Protocol = Protocol::Tcp;

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = chosen_here(family);
    cases.extend(asked(family));
    cases
}

fn name(text: &str, family: Family) -> String {
    format!("history, {text} {}", family.name())
}

/// What `asked` is told, who is to come back to `back`.
fn asking(family: Family, asked: Target, back: Target, hops: u8) -> Steering {
    Steering {
        flags: RETURN,
        previous: Some(back.as_previous(family, TCP)),
        ..asked.steering(family, TCP, hops)
    }
}

/// The client's packet goes to `target`'s node.
fn asks(text: &str, family: Family, upper: &Tcp, target: Target) -> Case {
    let inner = to_vip(family).carry(upper);
    let (expected, l3) = sent(target, family, 0, &asking(family, target, Target::Local, 1), &inner);
    let frame = arriving().carry(&inner);
    Case::ingress(
        name(text, family),
        frame,
        action(target),
        Reason::SecondChance,
        expected,
    )
    .outer(l3)
}

/// This node chose its own backend, which does not know the flow.
fn chosen_here(family: Family) -> Vec<Case> {
    let inside = world::DEEP_INSIDE.port;
    let pod = Target::Neighbor.backend(family, TCP);
    let at_neighbor = arriving().carry(&to_vip(family).to(pod.ip()).carry(&data(pod.port())));
    let local = Target::Local.backend(family, TCP);
    let here = |upper: &Tcp| arriving().carry(&to_vip(family).to(local.ip()).carry(&upper.ports(40_000, local.port())));
    let into_neighbor = world::LOCAL;
    vec![
        asks("the one before", family, &data(world::DEEP.port), Target::Older),
        asks("none before, an older one", family, &data(inside), Target::Near),
        asks(
            "one that cannot be reached, and one before it",
            family,
            &data(world::DEEP_BEHIND.port),
            Target::Far,
        ),
        Case::ingress(
            name("syn asks nobody", family),
            arriving().carry(&to_vip(family).carry(&syn(world::DEEP.port))),
            Action::Pass,
            Reason::Local,
            here(&syn(world::DEEP.port)),
        ),
        // Asking here is free, so whoever is here is asked first.
        Case::ingress(
            name("an older one here knows it", family),
            arriving().carry(&to_vip(family).carry(&data(inside))),
            Action::Pass,
            Reason::Local,
            at_neighbor,
        )
        .after([super::Step::Row {
            port: into_neighbor.port,
            family,
            protocol: TCP,
            current: Some(Target::Neighbor),
            previous: None,
        }])
        .after(begun(family, into_neighbor.port, Target::Neighbor)),
    ]
}

/// Another node asks this one.
fn asked(family: Family) -> Vec<Case> {
    let passed_on = |text: &str, port: u16, asked: &Steering, target: Target, on: &Steering, reason| {
        let inner = to_vip(family).carry(&data(port));
        let (expected, l3) = sent(target, family, 0, on, &inner);
        let frame = received(Target::Near, family, asked, &inner);
        Case::ingress(name(text, family), frame, action(target), reason, expected).outer(l3)
    };
    let short = Target::Local.steering(family, TCP, 0);
    let back = asking(family, Target::Local, Target::Near, 1);
    let returned = |hops| Steering {
        flags: FINAL,
        ..Target::Near.steering(family, TCP, hops)
    };
    let local = Target::Local.backend(family, TCP);
    let delivered = from_node(Target::Near, family).carry(&to_vip(family).to(local.ip()).carry(&data(local.port())));
    let udp = opening(Protocol::Udp, world::LOCAL.port);
    let udp_asked = Steering {
        flags: RETURN,
        previous: Some(Target::Near.as_previous(family, Protocol::Udp)),
        ..Target::Local.steering(family, Protocol::Udp, 1)
    };
    let udp_returned = Steering {
        flags: FINAL,
        ..Target::Near.steering(family, Protocol::Udp, 1)
    };
    let (udp_expected, l3) = sent(Target::Near, family, 0, &udp_returned, &to_vip(family).carry(&*udp));
    vec![
        passed_on(
            "a sender without a past",
            world::DEEP.port,
            &short,
            Target::Older,
            &asking(family, Target::Older, Target::Local, 1),
            Reason::SecondChance,
        ),
        passed_on(
            "asked, and goes on",
            world::DEEP.port,
            &back,
            Target::Older,
            &asking(family, Target::Older, Target::Near, 2),
            Reason::SecondChance,
        ),
        passed_on(
            "asked, and was the first",
            world::LOCAL.port,
            &back,
            Target::Near,
            &returned(1),
            Reason::Returned,
        ),
        // The sender does not know who came between.
        passed_on(
            "asked, and was the earliest",
            world::EARLIEST.port,
            &back,
            Target::Older,
            &Steering {
                flags: RETURN | FORTH,
                ..asking(family, Target::Older, Target::Near, 2)
            },
            Reason::SecondChance,
        ),
        passed_on(
            "asked on the way to later owners",
            world::DEEP.port,
            &Steering {
                flags: RETURN | FORTH,
                ..back
            },
            Target::Near,
            &returned(1),
            Reason::Returned,
        ),
        passed_on(
            "asked as the last that may be",
            world::DEEP.port,
            &asking(family, Target::Local, Target::Near, 6),
            Target::Near,
            &returned(6),
            Reason::Returned,
        ),
        // Both are here: the one chosen first gets it.
        Case::ingress(
            name("asked for a neighbor", family),
            received(
                Target::Near,
                family,
                &asking(family, Target::Neighbor, Target::Local, 2),
                &to_vip(family).carry(&data(world::LOCAL.port)),
            ),
            Action::Pass,
            Reason::Decapsulated,
            delivered.clone(),
        ),
        Case::ingress(
            name("asked, and knows it", family),
            received(
                Target::Near,
                family,
                &back,
                &to_vip(family).carry(&data(world::LOCAL.port)),
            ),
            Action::Pass,
            Reason::Decapsulated,
            delivered,
        )
        .after(begun(family, world::LOCAL.port, Target::Local)),
        Case::ingress(
            name("asked for a datagram", family),
            received(Target::Near, family, &udp_asked, &to_vip(family).carry(&*udp)),
            Action::Transmit,
            Reason::Returned,
            udp_expected,
        )
        .outer(l3),
    ]
}
