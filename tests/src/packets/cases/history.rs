//! Rows that changed more than once: who does not know a flow goes on by this node's own rows.

use super::wrap::{AHEAD, BACK, BLOCKED, FIRST, RETURN, action, from_node, received, sent};
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

/// The same, and somebody else cannot be asked.
fn blocked(steering: Steering) -> Steering {
    Steering {
        flags: steering.flags | BLOCKED,
        ..steering
    }
}

/// The client's packet goes to `target`'s node; `all` can be asked, or not.
fn asks(text: &str, family: Family, upper: &Tcp, target: Target, all: bool) -> Case {
    let inner = to_vip(family).carry(upper);
    let asked = first(family, target, Target::Local, 1);
    let asked = if all { asked } else { blocked(asked) };
    let (expected, l3) = sent(target, family, 0, &asked, &inner);
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
        asks("the one before", family, &data(world::DEEP.port), Target::Older, false),
        asks("none before, an older one", family, &data(inside), Target::Near, true),
        asks(
            "one that cannot be reached, and one before it",
            family,
            &data(world::DEEP_BEHIND.port),
            Target::Far,
            false,
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

/// Another node asks this one, or gets back what it asked.
fn asked(family: Family) -> Vec<Case> {
    let (asks, first_asks) = (
        asking(family, Target::Local, Target::Near, 1),
        first(family, Target::Local, Target::Near, 1),
    );
    let mut cases = Vec::new();
    let mut add = |text: &str, port: u16, asked: &Steering, target: Target, on: &Steering, reason| {
        let inner = to_vip(family).carry(&data(port));
        let (expected, l3) = sent(target, family, 0, on, &inner);
        let frame = received(Target::Near, family, asked, &inner);
        cases.push(Case::ingress(name(text, family), frame, action(target), reason, expected).outer(l3));
    };
    // Back to the sender, with whom to ask next.
    let returned = |flags, next: Option<Target>, hops| Steering {
        flags: BACK | flags,
        previous: next.map(|next| next.as_previous(family, TCP)),
        ..Target::Near.steering(family, TCP, hops)
    };
    let (deep, earliest, local) = (world::DEEP.port, world::EARLIEST.port, world::LOCAL.port);
    let (after_local, after_near) = (after(family, Target::Local), after(family, Target::Near));
    let in_turn = |next| Some(next).filter(|&next| is_before(family, Target::Local, next, Target::Near));
    for (text, port, asked, answer) in [
        // Whoever is asked first may be anywhere in the round.
        (
            "asked first",
            deep,
            &first_asks,
            returned(AHEAD | BLOCKED, Some(after_near), 1),
        ),
        ("asked in turn", deep, &asks, returned(BLOCKED, in_turn(after_local), 1)),
        (
            "asked first, and was the earliest",
            earliest,
            &first_asks,
            returned(AHEAD, Some(Target::Older), 1),
        ),
        (
            "asked in turn, and was the earliest",
            earliest,
            &asks,
            returned(0, in_turn(Target::Older), 1),
        ),
        (
            "asked, and was the only one",
            local,
            &first_asks,
            returned(AHEAD, None, 1),
        ),
        (
            "asked as the last that may be",
            local,
            &asking(family, Target::Local, Target::Near, 12),
            returned(0, None, 12),
        ),
        (
            "asked, where somebody cannot be asked",
            local,
            &blocked(asks),
            returned(BLOCKED, None, 1),
        ),
    ] {
        add(text, port, asked, Target::Near, &answer, Reason::Returned);
    }
    add(
        "a sender without a past",
        deep,
        &Target::Local.steering(family, TCP, 0),
        after_local,
        &blocked(first(family, after_local, Target::Local, 1)),
        Reason::SecondChance,
    );
    let back = |flags, next: Option<Target>, hops| Steering {
        flags: BACK | flags,
        previous: next.map(|next| next.as_previous(family, TCP)),
        ..Target::Local.steering(family, TCP, hops)
    };
    add(
        "back from the first",
        deep,
        &back(AHEAD, None, 1),
        after_local,
        &blocked(asking(family, after_local, Target::Local, 2)),
        Reason::SecondChance,
    );
    add(
        "back from one that knows of another",
        local,
        &back(AHEAD, Some(Target::Far), 1),
        Target::Far,
        &asking(family, Target::Far, Target::Local, 2),
        Reason::SecondChance,
    );
    cases.extend(ends(family, back));
    cases
}

/// Where asking ends.
fn ends(family: Family, back: impl Fn(u8, Option<Target>, u8) -> Steering) -> Vec<Case> {
    let port = world::LOCAL.port;
    let local = Target::Local.backend(family, TCP);
    let delivered = from_node(Target::Near, family).carry(&to_vip(family).to(local.ip()).carry(&data(local.port())));
    let comes = |steering: &Steering| received(Target::Near, family, steering, &to_vip(family).carry(&data(port)));
    let taken = |text: &str, steering: &Steering| {
        let frame = comes(steering);
        Case::ingress(
            name(text, family),
            frame,
            Action::Pass,
            Reason::Decapsulated,
            delivered.clone(),
        )
    };
    let dropped =
        |text: &str, steering: &Steering| Case::drop(name(text, family), comes(steering), Reason::NodeUnreachable);
    let udp = opening(Protocol::Udp, port);
    let udp_asked = Steering {
        flags: RETURN,
        previous: Some(Target::Near.as_previous(family, Protocol::Udp)),
        ..Target::Local.steering(family, Protocol::Udp, 1)
    };
    let udp_returned = Steering {
        flags: BACK,
        ..Target::Near.steering(family, Protocol::Udp, 1)
    };
    let (udp_expected, l3) = sent(Target::Near, family, 0, &udp_returned, &to_vip(family).carry(&*udp));
    vec![
        taken("back, and nobody knows it", &back(0, None, 2)),
        taken("back for the last time", &back(0, Some(Target::Far), 12)),
        // Whoever may have it will get the segment when its client tries again.
        dropped("back, and somebody could not be asked", &back(BLOCKED, None, 2)),
        dropped(
            "back for the last time, and somebody could not be asked",
            &back(BLOCKED, Some(Target::Far), 12),
        ),
        dropped(
            "asked by nobody else",
            &asking(family, Target::Neighbor, Target::Local, 2),
        ),
        taken("asked, and knows it", &asking(family, Target::Local, Target::Near, 1)).after(begun(
            family,
            port,
            Target::Local,
        )),
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
