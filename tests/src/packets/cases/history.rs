//! Rows that changed more than once: who does not know a flow goes on by this node's own rows.

use super::wrap::{FINAL, FIRST, RETURN, action, from_node, received, sent};
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

/// The round in which nodes are asked, each by one of its backends: the order is part of what nodes have to agree about.
fn round(family: Family) -> [Target; 6] {
    use Target::{Far, Local, Near, Older, Tagged, Unreachable};
    match family {
        Family::V4 => [Local, Near, Tagged, Far, Older, Unreachable],
        Family::V6 => [Local, Tagged, Unreachable, Far, Older, Near],
    }
}

/// Who of those that [`world::DEEP`] has had and that can be reached comes after `target` in the round.
pub(super) fn after(family: Family, target: Target) -> Target {
    let round = round(family);
    let begin = round.iter().position(|&other| other == target).unwrap_or(0);
    let had = |other: &&Target| matches!(other, Target::Older | Target::Far | Target::Tagged);
    round
        .iter()
        .cycle()
        .skip(begin + 1)
        .find(had)
        .copied()
        .unwrap_or(target)
}

/// Whether a row's owner `next` comes after `target` in the round, before `first` comes again.
fn is_before(family: Family, target: Target, next: Target, first: Target) -> bool {
    let round = round(family);
    let from = |wanted| {
        let place = |target| round.iter().position(|&other| other == target).unwrap_or(0);
        (place(wanted) + round.len() - place(first)) % round.len()
    };
    from(target) < from(next)
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

/// The same, and it is the first to be asked.
fn first(family: Family, asked: Target, back: Target, hops: u8) -> Steering {
    Steering {
        flags: FIRST,
        ..asking(family, asked, back, hops)
    }
}

/// The client's packet goes to `target`'s node.
fn asks(text: &str, family: Family, upper: &Tcp, target: Target) -> Case {
    let inner = to_vip(family).carry(upper);
    let (expected, l3) = sent(target, family, 0, &first(family, target, Target::Local, 1), &inner);
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
    let begin = first(family, Target::Local, Target::Near, 1);
    let (after_local, after_near) = (after(family, Target::Local), after(family, Target::Near));
    // The next of those that a row has had, or back to who was chosen first.
    let on = |text, port, next: Target| {
        if is_before(family, Target::Local, next, Target::Near) {
            let steering = asking(family, next, Target::Near, 2);
            passed_on(text, port, &back, next, &steering, Reason::SecondChance)
        } else {
            passed_on(text, port, &back, Target::Near, &returned(1), Reason::Returned)
        }
    };
    vec![
        passed_on(
            "a sender without a past",
            world::DEEP.port,
            &short,
            after_local,
            &first(family, after_local, Target::Local, 1),
            Reason::SecondChance,
        ),
        on("asked in turn", world::DEEP.port, after_local),
        on(
            "asked in turn, and was the earliest",
            world::EARLIEST.port,
            Target::Older,
        ),
        // Whoever is asked first may be anywhere in the round.
        passed_on(
            "asked first",
            world::DEEP.port,
            &begin,
            after_near,
            &asking(family, after_near, Target::Near, 2),
            Reason::SecondChance,
        ),
        // The sender does not know who came between.
        passed_on(
            "asked first, and was the earliest",
            world::EARLIEST.port,
            &begin,
            Target::Older,
            &asking(family, Target::Older, Target::Near, 2),
            Reason::SecondChance,
        ),
        passed_on(
            "asked, and was the only one",
            world::LOCAL.port,
            &begin,
            Target::Near,
            &returned(1),
            Reason::Returned,
        ),
        passed_on(
            "asked as the last that may be",
            world::DEEP.port,
            &asking(family, Target::Local, Target::Near, 10),
            Target::Near,
            &returned(10),
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
