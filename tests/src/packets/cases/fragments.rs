//! Datagrams and segments in fragments: all of one go one way, and none goes another's.
//!
//! The table of fragments is not emptied between cases, so every datagram here has an identification of its own.

use super::wrap::{action, from_node, received, sent};
use super::{CLIENT_PORT, Case, Step, arriving, begun, came, data, leaving, syn, to_vip};
use crate::packets::frames::{Ip, Steering, Udp, Upper};
use crate::packets::world::{self, Family, Frontend, Protocol, Target, VLAN};
use std::sync::atomic::{AtomicU16, Ordering};
use weir_common::verdict::{Action, Reason};

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        cases.extend(delivered(family, protocol));
        cases.extend(tunnelled(family, protocol));
        cases.extend(arrived(family, protocol));
        cases.extend(replied(family, protocol));
        cases.extend(out_of_order(family, protocol));
    }
    cases.extend(in_transition(family));
    cases.extend(another_datagram(family));
    cases.extend(hostile(family));
    cases.extend(whole(family));
    cases
}

fn name(text: &str, family: Family) -> String {
    format!("fragments, {text} {}", family.name())
}

fn named(text: &str, family: Family, protocol: Protocol) -> String {
    name(&format!("{text} {protocol:?}").to_lowercase(), family)
}

/// An identification that no other datagram of the table has.
pub(super) fn fresh() -> u16 {
    static LAST: AtomicU16 = AtomicU16::new(1);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// Cuts that leave three fragments of [`large`].
const CUTS: [usize; 2] = [48, 80];

/// More than fits one of our fragments.
fn large(protocol: Protocol, source: u16, destination: u16) -> Box<dyn Upper> {
    let payload: Vec<u8> = (0..90).collect();
    match protocol {
        Protocol::Tcp => Box::new(data(destination).ports(source, destination).payload(&payload)),
        Protocol::Udp => Box::new(Udp::new(source, destination, &payload)),
    }
}

/// From the client to `frontend`, in fragments.
pub(super) fn asked(family: Family, protocol: Protocol, frontend: Frontend, id: u16) -> Vec<Vec<u8>> {
    to_vip(family).cut(id, &*large(protocol, CLIENT_PORT, frontend.port), &CUTS)
}

/// The same as the backend on this node gets it.
fn given(family: Family, protocol: Protocol, target: Target, id: u16) -> Vec<Vec<u8>> {
    let pod = target.backend(family, protocol);
    to_vip(family)
        .to(pod.ip())
        .cut(id, &*large(protocol, CLIENT_PORT, pod.port()), &CUTS)
}

/// Cases of each frame after those before it, in this order.
fn in_order(cases: Vec<Case>, order: &[usize]) -> Vec<Case> {
    let mut before: Vec<Step> = Vec::new();
    let mut ordered = Vec::new();
    for &index in order {
        let case = cases[index].clone();
        let step = Step::Frame(case.program, case.frame.clone());
        ordered.push(case.after(before.clone()));
        before.push(step);
    }
    ordered
}

fn delivered(family: Family, protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    for (text, tags) in [("local", vec![]), ("local, one tag", vec![(0x8100, VLAN)])] {
        let id = fresh();
        let link = arriving().tagged(&tags);
        let both =
            asked(family, protocol, world::LOCAL, id)
                .into_iter()
                .zip(given(family, protocol, Target::Local, id));
        let each = both.enumerate().map(|(n, (before, after))| {
            let text = named(&format!("{text}, number {n}"), family, protocol);
            Case::ingress(
                text,
                link.carry(&before),
                Action::Pass,
                Reason::Local,
                link.carry(&after),
            )
        });
        // The last before the second: only the first has to be there.
        cases.extend(in_order(each.collect(), &[0, 2, 1]));
    }
    // Padding of the link is no part of a fragment.
    let id = fresh();
    let (before, after) = (
        asked(family, protocol, world::LOCAL, id),
        given(family, protocol, Target::Local, id),
    );
    let padded = |packet: &[u8]| [arriving().carry(packet), vec![0x5a; 9]].concat();
    cases.push(
        Case::ingress(
            named("local, padded", family, protocol),
            padded(&before[2]),
            Action::Pass,
            Reason::Local,
            padded(&after[2]),
        )
        .after([came(arriving().carry(&before[0]))]),
    );
    // Where nobody is, all stand aside.
    let frames = asked(family, protocol, world::EMPTY, fresh());
    let each = frames.iter().enumerate().map(|(n, packet)| {
        let text = named(&format!("no backend, number {n}"), family, protocol);
        Case::pass(text, arriving().carry(packet), Reason::NoBackend)
    });
    cases.extend(in_order(each.collect(), &[0, 1, 2]));
    let nowhere = Frontend {
        port: 9,
        ..world::EMPTY
    };
    let frames = asked(family, protocol, nowhere, fresh());
    let each = frames.iter().enumerate().map(|(n, packet)| {
        let text = named(&format!("no frontend, number {n}"), family, protocol);
        Case::pass(text, arriving().carry(packet), Reason::NoFrontend)
    });
    cases.extend(in_order(each.collect(), &[0, 1, 2]));
    cases
}

/// A packet that goes to `target`'s node.
fn to_node(text: String, family: Family, target: Target, steering: &Steering, inner: &[u8]) -> Case {
    let (expected, l3) = sent(target, family, 0, steering, inner);
    Case::ingress(text, arriving().carry(inner), action(target), Reason::Tunnel, expected).outer(l3)
}

fn tunnelled(family: Family, protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    for (text, frontend, target) in [
        ("remote", world::REMOTE, Target::Near),
        ("redirected", world::REDIRECTED, Target::Far),
        ("remote over the other family", world::CROSSED, Target::Crossed),
    ] {
        let steering = target.steering(family, protocol, 0);
        let frames = asked(family, protocol, frontend, fresh());
        let each = frames.iter().enumerate().map(|(n, inner)| {
            let text = named(&format!("{text}, number {n}"), family, protocol);
            to_node(text, family, target, &steering, inner)
        });
        cases.extend(in_order(each.collect(), &[0, 2, 1]));
    }
    cases
}

/// Out of the tunnel.
fn arrived(family: Family, protocol: Protocol) -> Vec<Case> {
    let id = fresh();
    let steering = Target::Local.steering(family, protocol, 0);
    let both = asked(family, protocol, world::LOCAL, id)
        .into_iter()
        .zip(given(family, protocol, Target::Local, id));
    let each = both.enumerate().map(|(n, (before, after))| {
        let frame = received(Target::Near, family, &steering, &before);
        let expected = from_node(Target::Near, family).carry(&after);
        let text = named(&format!("tunnel, number {n}"), family, protocol);
        Case::ingress(text, frame, Action::Pass, Reason::Decapsulated, expected)
    });
    let mut cases = in_order(each.collect(), &[0, 2, 1]);
    let early = asked(family, protocol, world::LOCAL, fresh());
    let frame = received(Target::Near, family, &steering, &early[1]);
    cases.push(Case::drop(
        named("tunnel, before the first", family, protocol),
        frame,
        Reason::FragmentHeld,
    ));
    cases
}

/// A reply that is larger than the way to the client takes.
fn replied(family: Family, protocol: Protocol) -> Vec<Case> {
    let (id, pod) = (fresh(), Target::Local.backend(family, protocol));
    let ip = Ip::between(pod.ip(), family.client());
    let answer = |port| large(protocol, port, CLIENT_PORT);
    let begun = || {
        let first: Box<dyn Upper> = match protocol {
            Protocol::Tcp => Box::new(syn(world::LOCAL.port)),
            Protocol::Udp => Box::new(Udp::new(CLIENT_PORT, world::LOCAL.port, b"first")),
        };
        came(arriving().carry(&to_vip(family).carry(&*first)))
    };
    let before = ip.cut(id, &*answer(pod.port()), &CUTS);
    let after = ip.from(family.vip()).cut(id, &*answer(world::LOCAL.port), &CUTS);
    let each = before.iter().zip(&after).enumerate().map(|(n, (before, after))| {
        let text = named(&format!("reply, number {n}"), family, protocol);
        Case::egress(
            text,
            leaving().carry(before),
            Reason::EgressReply,
            leaving().carry(after),
        )
    });
    let mut cases: Vec<Case> = in_order(each.collect(), &[0, 1, 2])
        .into_iter()
        .map(|case| {
            let steps = std::iter::once(begun()).chain(case.before.clone());
            Case {
                before: steps.collect(),
                ..case
            }
        })
        .collect();
    let unknown = ip.cut(fresh(), &*answer(pod.port()), &CUTS);
    let frame = leaving().carry(&unknown[1]);
    cases.push(
        Case::egress(
            named("reply, before the first", family, protocol),
            frame.clone(),
            Reason::EgressNotOurs,
            frame,
        )
        .after([begun()]),
    );
    cases
}

fn out_of_order(family: Family, protocol: Protocol) -> Vec<Case> {
    let id = fresh();
    let frames = asked(family, protocol, world::LOCAL, id);
    let after = given(family, protocol, Target::Local, id);
    let early = Case::drop(
        named("before the first", family, protocol),
        arriving().carry(&frames[2]),
        Reason::FragmentHeld,
    );
    let again = Case::ingress(
        named("before the first, brought again", family, protocol),
        arriving().carry(&frames[2]),
        Action::Pass,
        Reason::Local,
        arriving().carry(&after[2]),
    )
    .after([2, 0].map(|n| came(arriving().carry(&frames[n]))));
    let frames = asked(family, protocol, world::LOCAL, fresh());
    let late = Case::drop(
        named("long after the first", family, protocol),
        arriving().carry(&frames[1]),
        Reason::FragmentHeld,
    );
    vec![early, again, late]
}

/// A fragment for a VIP that has no first one, and the same in the tunnel.
#[must_use]
pub fn without_first(family: Family) -> [Vec<u8>; 2] {
    let frames = asked(family, Protocol::Udp, world::LOCAL, fresh());
    let steering = Target::Local.steering(family, Protocol::Udp, 0);
    [
        arriving().carry(&frames[1]),
        received(Target::Near, family, &steering, &frames[1]),
    ]
}

/// A row in transition: all fragments of one go the same way.
fn in_transition(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let protocol = Protocol::Tcp;
    // Nobody here knows the flow: its current backend's node is told of the previous one.
    let steering = Steering {
        previous: Some(Target::Older.as_previous(family, protocol)),
        ..Target::Near.steering(family, protocol, 0)
    };
    let frames = asked(family, protocol, world::MOVED, fresh());
    let each = frames.iter().enumerate().map(|(n, inner)| {
        let text = name(&format!("moved, number {n}"), family);
        to_node(text, family, Target::Near, &steering, inner)
    });
    cases.extend(in_order(each.collect(), &[0, 1, 2]));
    // The previous backend is here and has the flow.
    let id = fresh();
    let both =
        asked(family, protocol, world::MOVED_AWAY, id)
            .into_iter()
            .zip(given(family, protocol, Target::Local, id));
    let row = |current, previous| Step::Row {
        port: world::MOVED_AWAY.port,
        family,
        protocol,
        current,
        previous,
    };
    let begun: Vec<Step> = std::iter::once(row(Some(Target::Local), None))
        .chain(begun(family, world::MOVED_AWAY.port, Target::Local))
        .chain([row(Some(Target::Near), Some(Target::Local))])
        .collect();
    let each = both.enumerate().map(|(n, (before, after))| {
        let text = name(&format!("moved away, begun here, number {n}"), family);
        let (before, after) = (arriving().carry(&before), arriving().carry(&after));
        Case::ingress(text, before, Action::Pass, Reason::Local, after)
    });
    cases.extend(in_order(each.collect(), &[0, 1, 2]).into_iter().map(|case| Case {
        before: begun.iter().cloned().chain(case.before.clone()).collect(),
        ..case
    }));
    cases
}

/// What has not all of a datagram's key in common with it is none of it.
fn another_datagram(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let protocol = Protocol::Udp;
    let mut unknown = |text: &str, first: Vec<u8>, later: Vec<u8>| {
        cases.push(
            Case::drop(name(text, family), arriving().carry(&later), Reason::FragmentHeld)
                .after([came(arriving().carry(&first))]),
        );
    };
    let (id, other) = (fresh(), fresh());
    let ip = to_vip(family);
    let upper = large(protocol, CLIENT_PORT, world::LOCAL.port);
    let first = |id| ip.cut(id, &*upper, &CUTS).swap_remove(0);
    let bytes = [0x77; 16];
    unknown(
        "another identification",
        first(id),
        ip.piece(other, 17, 48, true, &bytes),
    );
    let id = fresh();
    unknown("another protocol", first(id), ip.piece(id, 6, 48, true, &bytes));
    let id = fresh();
    let neighbor = ip.from(family.stranger());
    unknown("another source", first(id), neighbor.piece(id, 17, 48, true, &bytes));
    let id = fresh();
    let elsewhere = ip.to(family.vip_elsewhere());
    unknown("another VIP", first(id), elsewhere.piece(id, 17, 48, true, &bytes));

    // Two first ones: the later fragments belong to the newer.
    let id = fresh();
    let (old, new) = (
        asked(family, protocol, world::EMPTY, id),
        asked(family, protocol, world::LOCAL, id),
    );
    let after = given(family, protocol, Target::Local, id);
    cases.push(
        Case::ingress(
            name("the newer first one counts", family),
            arriving().carry(&new[1]),
            Action::Pass,
            Reason::Local,
            arriving().carry(&after[1]),
        )
        .after([came(arriving().carry(&old[0])), came(arriving().carry(&new[0]))]),
    );
    cases
}

/// Fragments that no honest sender makes: none is looked up, and none teaches.
fn hostile(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let ip = to_vip(family);
    let port = world::LOCAL.port;
    let segment = large(Protocol::Tcp, CLIENT_PORT, port).bytes(ip.source, ip.destination);
    let datagram = large(Protocol::Udp, CLIENT_PORT, port).bytes(ip.source, ip.destination);
    for (text, protocol, offset, more, bytes) in [
        ("first without TCP flags", 6, 0, true, &segment[..8]),
        ("first with half a TCP header", 6, 0, true, &segment[..16]),
        ("over the TCP flags", 6, 8, true, &segment[8..48]),
        ("over the TCP checksum", 6, 16, false, &segment[16..48]),
        ("first of UDP without anything", 17, 0, true, &[][..]),
        ("first of no multiple of 8", 17, 0, true, &datagram[..44]),
        ("middle of no multiple of 8", 17, 48, true, &datagram[48..58]),
        ("last without anything", 17, 48, false, &[][..]),
        ("beyond the end of the world", 17, 65_528, false, &datagram[..8]),
    ] {
        let frame = arriving().carry(&ip.piece(fresh(), protocol, offset, more, bytes));
        cases.push(Case::pass(name(text, family), frame, Reason::Fragment));
    }
    // The first one is there: that does not make the others better.
    let id = fresh();
    let first = ip
        .cut(id, &*large(Protocol::Tcp, CLIENT_PORT, port), &CUTS)
        .swap_remove(0);
    let frame = arriving().carry(&ip.piece(id, 6, 8, true, &segment[8..48]));
    cases.push(
        Case::pass(
            name("over the TCP flags of one that is known", family),
            frame,
            Reason::Fragment,
        )
        .after([came(arriving().carry(&first))]),
    );
    let id = fresh();
    let frame = arriving().carry(&ip.piece(id, 6, 48, false, &segment[48..]));
    let tiny = arriving().carry(&ip.piece(id, 6, 0, true, &segment[..16]));
    cases.push(
        Case::drop(
            name("after a first one that is too short", family),
            frame,
            Reason::FragmentHeld,
        )
        .after([came(tiny)]),
    );
    // Not ours: untouched, whatever they are.
    let ip = ip.to(family.stranger());
    let frame = arriving().carry(&ip.piece(fresh(), 6, 8, true, &segment[8..48]));
    cases.push(Case::pass(name("for a stranger", family), frame, Reason::NotOurs));
    let ip = ip.to(family.tunnel());
    for (text, offset) in [("first for this node", 0), ("later for this node", 48)] {
        let frame = arriving().carry(&ip.piece(fresh(), 17, offset, true, &datagram[..48]));
        cases.push(Case::pass(name(text, family), frame, Reason::NotServed));
    }
    cases
}

/// IPv6's fragment header around a whole packet (RFC 6946).
fn whole(family: Family) -> Vec<Case> {
    if !family.is_v6() {
        return Vec::new();
    }
    let pod = Target::Local.backend(family, Protocol::Udp);
    let datagram = |ip: &Ip, port| {
        let upper = large(Protocol::Udp, CLIENT_PORT, port);
        ip.cut(7, &*upper, &[]).swap_remove(0)
    };
    let frame = arriving().carry(&datagram(&to_vip(family), world::LOCAL.port));
    let expected = arriving().carry(&datagram(&to_vip(family).to(pod.ip()), pod.port()));
    let atomic = Case::ingress(
        name("one that is all", family),
        frame,
        Action::Pass,
        Reason::Local,
        expected,
    );
    vec![atomic]
}
