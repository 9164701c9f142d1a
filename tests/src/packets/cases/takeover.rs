//! Flows that the stack had before Weir came.

use super::wrap::{action, sent};
use super::{CLIENT_PORT, Case, arriving, came, following, fragments, icmp, opening, to_vip};
use crate::packets::frames::{Ip, Tcp, Udp, Upper, flag};
use crate::packets::world::{self, Family, Frontend, Protocol, Target};
use weir_common::{abi::StackFlow, verdict::Reason};

/// Another port of the client's.
const OTHER_PORT: u16 = 41_000;

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        for (text, frontend) in [
            ("which the stack has", world::TAKEN_OVER),
            ("while standing by", world::STANDING_BY),
        ] {
            cases.extend(passed(
                &format!("{text} {protocol:?}").to_lowercase(),
                family,
                protocol,
                frontend,
            ));
        }
        cases.push(not_the_stacks(family, protocol));
    }
    cases
}

fn name(text: &str, family: Family) -> String {
    format!("takeover, {text} {}", family.name())
}

/// Whatever belongs to the flow.
fn passed(text: &str, family: Family, protocol: Protocol, frontend: Frontend) -> Vec<Case> {
    let pass = |what: &str, packet: Vec<u8>| {
        Case::pass(
            name(&format!("{what} of a flow {text}"), family),
            packet,
            Reason::StackFlow,
        )
    };
    let quoted = Ip::between(family.vip(), family.client()).carry(&*answer(protocol, frontend.port));
    let error = icmp::about(family, &quoted);
    let id = fragments::fresh();
    let mut parts = fragments::asked(family, protocol, frontend, id).into_iter();
    let (first, later) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    vec![
        pass("the first packet", sent_on(family, &*opening(protocol, frontend.port))),
        pass("a later packet", sent_on(family, &*following(protocol, frontend.port))),
        pass("an error about a packet", error),
        pass("the first fragment", arriving().carry(&first)),
        pass("a later fragment", arriving().carry(&later)).after([came(arriving().carry(&first))]),
    ]
}

fn sent_on(family: Family, upper: &dyn Upper) -> Vec<u8> {
    arriving().carry(&to_vip(family).carry(upper))
}

fn answer(protocol: Protocol, port: u16) -> Box<dyn Upper> {
    match protocol {
        Protocol::Tcp => Box::new(Tcp::new(port, CLIENT_PORT, flag::ACK).payload(&[7; 60])),
        Protocol::Udp => Box::new(Udp::new(port, CLIENT_PORT, &[7; 60])),
    }
}

/// Another flow of the same client.
fn not_the_stacks(family: Family, protocol: Protocol) -> Case {
    let port = world::TAKEN_OVER.port;
    let upper: Box<dyn Upper> = match protocol {
        Protocol::Tcp => Box::new(Tcp::new(OTHER_PORT, port, flag::ACK | flag::PSH).payload(b"more")),
        Protocol::Udp => Box::new(Udp::new(OTHER_PORT, port, b"more")),
    };
    let inner = to_vip(family).carry(&*upper);
    let steering = Target::Near.steering(family, protocol, 0);
    let (expected, l3) = sent(Target::Near, family, 0, &steering, &inner);
    let text = format!("a flow that the stack has not {protocol:?}").to_lowercase();
    Case::ingress(
        name(&text, family),
        arriving().carry(&inner),
        action(Target::Near),
        Reason::Tunnel,
        expected,
    )
    .outer(l3)
}

/// What the stack has after these frames for a frontend that stands by: flows that began, and no others.
#[must_use]
pub fn noted(family: Family, protocol: Protocol) -> (Vec<Vec<u8>>, Vec<StackFlow>) {
    let port = world::STANDING_BY.port;
    let frames = [opening(protocol, port), later_of_another(protocol, port)];
    let frames = frames.map(|upper| sent_on(family, &*upper));
    let begun = match protocol {
        Protocol::Tcp => vec![CLIENT_PORT],
        // A datagram may be the first of its flow.
        Protocol::Udp => vec![CLIENT_PORT, OTHER_PORT],
    };
    let flows = begun
        .into_iter()
        .map(|from| world::stack_flow(family, protocol, from, world::STANDING_BY));
    (frames.into(), flows.collect())
}

fn later_of_another(protocol: Protocol, port: u16) -> Box<dyn Upper> {
    match protocol {
        Protocol::Tcp => Box::new(Tcp::new(OTHER_PORT, port, flag::ACK)),
        Protocol::Udp => Box::new(Udp::new(OTHER_PORT, port, b"second")),
    }
}
