//! Frontends with policies: affinity, sources, limits.

use super::wrap::sent;
use super::{CLIENT_PORT, Case, Step, arriving, came, data, opening, syn, to_vip};
use crate::packets::frames::{Steering, Tcp, Upper};
use crate::packets::world::{self, Family, Frontend, Protocol, Target};
use weir_common::verdict::Reason;

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        cases.extend(sources(family, protocol));
    }
    cases.extend(limits(family));
    cases.extend(affinity(family));
    cases
}

fn name(text: &str, family: Family) -> String {
    format!("policy, {text} {}", family.name())
}

fn arrived(family: Family, upper: &dyn Upper) -> Step {
    came(arriving().carry(&to_vip(family).carry(upper)))
}

fn tunnelled(
    text: &str,
    family: Family,
    protocol: Protocol,
    upper: &dyn Upper,
    steering: &Steering,
    to: Target,
) -> Case {
    let inner = to_vip(family).carry(upper);
    let (expected, l3) = sent(to, family, 0, steering, &inner);
    let action = super::wrap::action(to);
    let text = name(&format!("{text} {protocol:?}").to_lowercase(), family);
    Case::ingress(text, arriving().carry(&inner), action, Reason::Tunnel, expected).outer(l3)
}

fn sources(family: Family, protocol: Protocol) -> Vec<Case> {
    let refused = |text: &str, frontend: Frontend| {
        let text = name(&format!("{text} {protocol:?}").to_lowercase(), family);
        let frame = arriving().carry(&to_vip(family).carry(&*opening(protocol, frontend.port)));
        Case::drop(text, frame, Reason::SourceRefused)
    };
    let let_in = |text: &str, frontend: Frontend| {
        let steering = Target::Near.steering(family, protocol, 0);
        tunnelled(
            text,
            family,
            protocol,
            &*opening(protocol, frontend.port),
            &steering,
            Target::Near,
        )
    };
    vec![
        let_in("on the list of allowed sources", world::ALLOWED),
        refused("not on the list of allowed sources", world::NOT_ALLOWED),
        refused("taken out of an allowed network", world::ALL_BUT_ONE),
        refused("on the list of denied sources", world::DENIED),
        let_in("not on the list of denied sources", world::NOT_DENIED),
    ]
}

/// Two at once are let in.
fn limits(family: Family) -> Vec<Case> {
    let near = Target::Near.steering(family, Protocol::Tcp, 0);
    let from = |port: u16, upper: Tcp| upper.ports(port, upper.destination);
    let dropped = |text: &str, upper: &Tcp, reason| {
        Case::drop(
            name(text, family),
            arriving().carry(&to_vip(family).carry(upper)),
            reason,
        )
        .fresh()
    };
    let passed = |text: &str, upper: &Tcp| tunnelled(text, family, Protocol::Tcp, upper, &near, Target::Near).fresh();
    let stranger = |upper: &Tcp| came(arriving().carry(&to_vip(family).from(family.stranger()).carry(upper)));
    let mut cases = Vec::new();
    for (text, frontend) in [
        ("flows", world::FEW_FLOWS),
        ("flows of a source", world::FEW_FLOWS_EACH),
    ] {
        let port = frontend.port;
        let two = [1, 2].map(|number| arrived(family, &from(number, syn(port))));
        cases.push(passed(&format!("second of {text}"), &from(2, syn(port))).after([two[0].clone()]));
        cases.push(dropped(&format!("third of {text}"), &from(3, syn(port)), Reason::FlowLimit).after(two.clone()));
        // Those there are go on.
        cases.push(passed(&format!("later packet behind too many {text}"), &from(2, data(port))).after(two));
    }
    for (text, frontend) in [
        ("packets", world::FEW_PACKETS),
        ("packets of a source", world::FEW_PACKETS_EACH),
    ] {
        let port = frontend.port;
        let two = [syn(port), data(port)].map(|upper| arrived(family, &upper));
        cases.push(passed(&format!("second of {text}"), &data(port)).after([two[0].clone()]));
        cases.push(dropped(&format!("third of {text}"), &data(port), Reason::PacketLimit).after(two));
    }
    // What somebody else sends counts for all, but not for each.
    let (all, each) = (world::FEW_PACKETS.port, world::FEW_PACKETS_EACH.port);
    cases.push(
        dropped("third packet, two from somebody else", &data(all), Reason::PacketLimit)
            .after([stranger(&syn(all)), stranger(&data(all))]),
    );
    cases.push(
        passed("first packet of a source, two from somebody else", &data(each))
            .after([stranger(&syn(each)), stranger(&data(each))]),
    );
    cases
}

fn affinity(family: Family) -> Vec<Case> {
    let port = world::AFFINE.port;
    let row = |frontend: Frontend, current, previous| Step::Row {
        port: frontend.port,
        family,
        protocol: Protocol::Tcp,
        current: Some(current),
        previous,
    };
    let with = |target: Target, second: Target| Steering {
        previous: Some(second.as_previous(family, Protocol::Tcp)),
        ..target.steering(family, Protocol::Tcp, 0)
    };
    let later = |port| syn(port).ports(CLIENT_PORT + 1, port);
    let case =
        |text: &str, upper: &Tcp, steering: &Steering, to| tunnelled(text, family, Protocol::Tcp, upper, steering, to);
    let begun = arrived(family, &syn(port));
    let moved = row(world::AFFINE, Target::Far, Some(Target::Near));
    let draining = world::AFFINE_DRAINING.port;
    let drained = [
        arrived(family, &syn(draining)),
        row(world::AFFINE_DRAINING, Target::Far, Some(Target::Older)),
    ];
    let only = |target: Target| target.steering(family, Protocol::Tcp, 0);
    vec![
        case("affine client, first", &syn(port), &only(Target::Near), Target::Near),
        case(
            "affine client, a new connection after its backend's row moved",
            &later(port),
            &with(Target::Near, Target::Far),
            Target::Near,
        )
        .after([begun.clone(), moved.clone()]),
        case(
            "affine client, an old connection after its backend's row moved",
            &data(port),
            &with(Target::Near, Target::Far),
            Target::Near,
        )
        .after([begun.clone(), moved.clone()]),
        case(
            "another client after the row moved",
            &later(port),
            &with(Target::Far, Target::Near),
            Target::Far,
        )
        .after([moved.clone()]),
        case(
            "affine client, long silent",
            &later(port),
            &with(Target::Far, Target::Near),
            Target::Far,
        )
        .after([begun.clone(), moved.clone(), Step::Later(6_000)]),
        // What is left of an old connection does not bring the memory back.
        case(
            "affine client, long silent but for an old connection",
            &later(port),
            &with(Target::Far, Target::Near),
            Target::Far,
        )
        .after([begun, moved, Step::Later(6_000), arrived(family, &data(port))]),
        case(
            "affine client whose backend drains, a new connection",
            &later(draining),
            &with(Target::Far, Target::Older),
            Target::Far,
        )
        .after(drained.clone()),
        case(
            "affine client whose backend drains, its old connection",
            &data(draining),
            &with(Target::Older, Target::Far),
            Target::Older,
        )
        .after(drained),
    ]
}
