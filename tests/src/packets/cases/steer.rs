//! Frontends whose rows did not change: delivered here, sent to the backend's node, or left to the stack.

use super::wrap::{action, sent};
use super::{CLIENT_PORT, Case, arriving, following, opening, syn, to_vip};
use crate::packets::frames::{Ip, Tcp, Udp, Upper, flag, word_for};
use crate::packets::world::{self, Family, Frontend, Protocol, SPREAD, SPREAD_PORT, Target, VLAN, address};
use weir_common::hash;
use weir_common::verdict::{Action, Reason};

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        cases.extend(local(family, protocol));
        cases.extend(remote(family, protocol));
        cases.extend(aside(family, protocol));
        cases.extend(spread(family, protocol));
    }
    cases.extend(flags(family));
    cases.extend(checksums(family));
    cases
}

fn name(text: &str, family: Family, protocol: Protocol) -> String {
    format!("{text} {protocol:?} {}", family.name()).to_lowercase()
}

/// Headers around the usual: each must reach the pod as it is but for its destination.
fn variants(family: Family) -> Vec<(&'static str, Ip)> {
    let ip = to_vip(family);
    vec![
        ("plain", ip.clone()),
        ("time to live 1", Ip { ttl: 1, ..ip.clone() }),
        ("time to live 255", Ip { ttl: 255, ..ip.clone() }),
        (
            "differentiated service",
            Ip {
                tos: 0xb8,
                flow_label: 0xfffff,
                ..ip.clone()
            },
        ),
        (
            "may be fragmented",
            Ip {
                dont_fragment: false,
                id: 0xffff,
                ..ip.clone()
            },
        ),
        (
            "options",
            Ip {
                options: [&[0x94, 4, 0, 0][..], &[1; 36]].concat(),
                extensions: vec![
                    (0, vec![0, 5, 2, 0, 0, 1, 0]),
                    (60, vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                    (60, vec![0, 1, 4, 0, 0, 0, 0]),
                    (60, vec![0, 1, 4, 0, 0, 0, 0]),
                ],
                ..ip
            },
        ),
    ]
}

fn local(family: Family, protocol: Protocol) -> Vec<Case> {
    let port = world::LOCAL.port;
    let pod = Target::Local.backend(family, protocol);
    let mut cases = Vec::new();
    let mut add = |text: &str, tags: &[(u16, u16)], ip: &Ip, before: &dyn Upper, after: &dyn Upper, tail: &[u8]| {
        let link = arriving().tagged(tags);
        let frame = [link.carry(&ip.carry(before)), tail.to_vec()].concat();
        let expected = [link.carry(&ip.to(pod.ip()).carry(after)), tail.to_vec()].concat();
        cases.push(Case::ingress(
            name(text, family, protocol),
            frame,
            Action::Pass,
            Reason::Local,
            expected,
        ));
    };
    for (text, ip) in variants(family) {
        add(
            &format!("local, {text}"),
            &[],
            &ip,
            &*opening(protocol, port),
            &*opening(protocol, pod.port()),
            &[],
        );
    }
    let ip = to_vip(family);
    let (before, after) = (following(protocol, port), following(protocol, pod.port()));
    add("local, a later packet", &[], &ip, &*before, &*after, &[]);
    add("local, one tag", &[(0x8100, VLAN)], &ip, &*before, &*after, &[]);
    add(
        "local, two tags",
        &[(0x88a8, 0x2fff), (0x8100, VLAN)],
        &ip,
        &*before,
        &*after,
        &[],
    );
    add("local, padded", &[], &ip, &*before, &*after, &[0x5a; 9]);
    let full = vec![0xc3; 1_500 - 60];
    // In the kernel's test run as on a NIC: several buffers, of which the first holds the headers.
    let jumbo = vec![0xc3; 8_000];
    match protocol {
        Protocol::Tcp => {
            let big = |port| Tcp::new(CLIENT_PORT, port, flag::ACK).payload(&full);
            add("local, full size", &[], &ip, &big(port), &big(pod.port()), &[]);
            let huge = |port| Tcp::new(CLIENT_PORT, port, flag::ACK).payload(&jumbo);
            add(
                "local, in several buffers",
                &[],
                &ip,
                &huge(port),
                &huge(pod.port()),
                &[],
            );
        }
        Protocol::Udp => {
            let big = |port| Udp::new(CLIENT_PORT, port, &full);
            add("local, full size", &[], &ip, &big(port), &big(pod.port()), &[]);
            let huge = |port| Udp::new(CLIENT_PORT, port, &jumbo);
            add(
                "local, in several buffers",
                &[],
                &ip,
                &huge(port),
                &huge(pod.port()),
                &[],
            );
            let plain = |port| Udp::new(CLIENT_PORT, port, b"no checksum").unchecked();
            add(
                "local, without checksum",
                &[],
                &ip,
                &plain(port),
                &plain(pod.port()),
                &[],
            );
            let empty = |port| Udp::new(CLIENT_PORT, port, b"");
            add("local, empty", &[], &ip, &empty(port), &empty(pod.port()), &[]);
        }
    }
    cases
}

fn remote(family: Family, protocol: Protocol) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |text: &str, tags: &[(u16, u16)], ip: &Ip, frontend: Frontend, target: Target, tail: &[u8]| {
        for (kind, upper) in [
            ("first", opening(protocol, frontend.port)),
            ("later", following(protocol, frontend.port)),
        ] {
            let inner = ip.carry(&*upper);
            let frame = [arriving().tagged(tags).carry(&inner), tail.to_vec()].concat();
            // DSCP is for the way, and so is the underlay's; congestion marks are not, since nobody would take them over
            // (RFC 6040 §4.1, compatibility mode).
            let tos = ip.tos & 0xfc;
            let (expected, l3) = sent(target, family, tos, &target.steering(family, protocol, 0), &inner);
            let expected = [expected, tail.to_vec()].concat();
            let text = name(&format!("{text}, {kind}"), family, protocol);
            cases.push(Case::ingress(text, frame, action(target), Reason::Tunnel, expected).outer(l3));
        }
    };
    for (text, ip) in variants(family) {
        add(&format!("remote, {text}"), &[], &ip, world::REMOTE, Target::Near, &[]);
    }
    let ip = to_vip(family);
    add(
        "remote, congestion experienced",
        &[],
        &Ip {
            tos: 0xbb,
            ..ip.clone()
        },
        world::REMOTE,
        Target::Near,
        &[],
    );
    add(
        "remote, one tag",
        &[(0x8100, VLAN)],
        &ip,
        world::REMOTE,
        Target::Near,
        &[],
    );
    add(
        "remote, two tags",
        &[(0x88a8, 5), (0x8100, VLAN)],
        &ip,
        world::REMOTE,
        Target::Near,
        &[],
    );
    add("remote, padded", &[], &ip, world::REMOTE, Target::Near, &[0x5a; 9]);
    add("remote, redirected", &[], &ip, world::REDIRECTED, Target::Far, &[]);
    add(
        "remote, from a tag to another interface",
        &[(0x8100, 9)],
        &ip,
        world::REDIRECTED,
        Target::Far,
        &[],
    );
    add("remote, into a vlan", &[], &ip, world::TAGGED, Target::Tagged, &[]);
    add(
        "remote, from a vlan into another",
        &[(0x8100, 9)],
        &ip,
        world::TAGGED,
        Target::Tagged,
        &[],
    );
    add(
        "remote, over the other family",
        &[],
        &ip,
        world::CROSSED,
        Target::Crossed,
        &[],
    );
    add("remote, over a small mtu", &[], &ip, world::NARROW, Target::Narrow, &[]);
    cases
}

/// Bytes around the inner packet: outer IP, UDP, Geneve, option header and the option's short form.
fn overhead(family: Family) -> usize {
    family.header() + 8 + 8 + 4 + 20
}

fn aside(family: Family, protocol: Protocol) -> Vec<Case> {
    let ip = to_vip(family);
    let mut cases = Vec::new();
    for (text, frontend, reason) in [
        ("no backend", world::EMPTY, Reason::NoBackend),
        ("node unreachable", world::UNREACHABLE, Reason::NodeUnreachable),
    ] {
        for (kind, upper) in [
            ("first", opening(protocol, frontend.port)),
            ("later", following(protocol, frontend.port)),
        ] {
            let frame = arriving().carry(&ip.carry(&*upper));
            let name = name(&format!("{text}, {kind}"), family, protocol);
            // The stack would reset a connection that it knows nothing of.
            let connected = protocol == Protocol::Tcp && kind == "later" && reason == Reason::NodeUnreachable;
            cases.push(if connected {
                Case::drop(name, frame, reason)
            } else {
                Case::pass(name, frame, reason)
            });
        }
    }
    // A packet that fills the tunnel's MTU, and one that is a byte too big.
    let room = usize::from(Target::Narrow.mtu()) - overhead(family) - family.header();
    let port = world::NARROW.port;
    for (text, size) in [("fills the tunnel", room), ("too big for the tunnel", room + 1)] {
        let upper: Box<dyn Upper> = match protocol {
            Protocol::Tcp => Box::new(Tcp::new(CLIENT_PORT, port, flag::ACK).payload(&vec![9; size - 20])),
            Protocol::Udp => Box::new(Udp::new(CLIENT_PORT, port, &vec![9; size - 8])),
        };
        let inner = ip.carry(&*upper);
        let frame = arriving().carry(&inner);
        let text = name(text, family, protocol);
        if size == room {
            let (expected, l3) = sent(
                Target::Narrow,
                family,
                0,
                &Target::Narrow.steering(family, protocol, 0),
                &inner,
            );
            cases.push(Case::ingress(text, frame, Action::Transmit, Reason::Tunnel, expected).outer(l3));
        } else {
            // What the sender is told is shown with the other ICMP errors.
            let divisible = Ip {
                dont_fragment: false,
                ..ip.clone()
            };
            let frame = arriving().carry(&divisible.carry(&*upper));
            match (family, protocol) {
                (Family::V4, Protocol::Tcp) => cases.push(Case::drop(text, frame, Reason::TooBigForTunnel)),
                (Family::V4, Protocol::Udp) => cases.push(Case::pass(text, frame, Reason::TooBigForTunnel)),
                (Family::V6, _) => {}
            }
        }
    }
    cases
}

/// Many clients of a frontend with four rows: the row is the selection hash's, and every row is met.
fn spread(family: Family, protocol: Protocol) -> Vec<Case> {
    let mut met = [false; SPREAD.len()];
    let mut cases = Vec::new();
    for source in 50_000..50_016_u16 {
        let upper: Box<dyn Upper> = match protocol {
            Protocol::Tcp => Box::new(syn(SPREAD_PORT).ports(source, SPREAD_PORT)),
            Protocol::Udp => Box::new(Udp::new(source, SPREAD_PORT, b"spread")),
        };
        let tuple = hash::Tuple {
            source: address(family.client()),
            destination: address(family.vip()),
            source_port: source.to_be(),
            destination_port: SPREAD_PORT.to_be(),
            protocol: protocol.number(),
        };
        let row = hash::tuple(world::SELECTION_SEED, &tuple) as usize % SPREAD.len();
        met[row] = true;
        let target = SPREAD[row];
        let inner = to_vip(family).carry(&*upper);
        let frame = arriving().carry(&inner);
        let text = name(&format!("one of four rows, client port {source}"), family, protocol);
        let pod = target.backend(family, protocol);
        if target.is_local() {
            let after: Box<dyn Upper> = match protocol {
                Protocol::Tcp => Box::new(syn(pod.port()).ports(source, pod.port())),
                Protocol::Udp => Box::new(Udp::new(source, pod.port(), b"spread")),
            };
            let expected = arriving().carry(&to_vip(family).to(pod.ip()).carry(&*after));
            cases.push(Case::ingress(text, frame, Action::Pass, Reason::Local, expected));
        } else {
            let (expected, l3) = sent(target, family, 0, &target.steering(family, protocol, 0), &inner);
            cases.push(Case::ingress(text, frame, action(target), Reason::Tunnel, expected).outer(l3));
        }
    }
    assert!(
        met.iter().all(|&met| met),
        "sixteen clients meet every one of four rows"
    );
    cases
}

/// TCP flags do not matter to a row that did not change.
fn flags(family: Family) -> Vec<Case> {
    let (ip, pod) = (to_vip(family), Target::Local.backend(family, Protocol::Tcp));
    let all = [
        ("none", 0),
        ("fin ack", flag::FIN | flag::ACK),
        ("rst", flag::RST),
        ("rst ack", flag::RST | flag::ACK),
        ("syn ack", flag::SYN | flag::ACK),
        ("syn rst", flag::SYN | flag::RST),
        ("all", 0xff),
    ];
    all.map(|(text, flags)| {
        let upper = Tcp::new(CLIENT_PORT, world::LOCAL.port, flags);
        let frame = arriving().carry(&ip.carry(&upper));
        let expected = arriving().carry(&ip.to(pod.ip()).carry(&upper.ports(CLIENT_PORT, pod.port())));
        let text = format!("local, flags {text} {}", family.name());
        Case::ingress(text, frame, Action::Pass, Reason::Local, expected)
    })
    .into()
}

/// Payloads for which the checksum before or after is at the edge of the arithmetic.
fn checksums(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        let pod = Target::Local.backend(family, protocol);
        let (port, field) = match protocol {
            Protocol::Tcp => (world::LOCAL.port, 16),
            Protocol::Udp => (world::LOCAL.port, 6),
        };
        let upper = |port: u16, word: u16| -> Box<dyn Upper> {
            match protocol {
                Protocol::Tcp => Box::new(Tcp::new(CLIENT_PORT, port, flag::ACK).payload(&word.to_be_bytes())),
                Protocol::Udp => Box::new(Udp::new(CLIENT_PORT, port, &word.to_be_bytes())),
            }
        };
        let ip = to_vip(family);
        for (side, ip_side, port_side) in [("before", ip.clone(), port), ("after", ip.to(pod.ip()), pod.port())] {
            for target in [0x0000_u16, 0x0001, 0x7fff, 0x8000, 0xfffe, 0xffff] {
                let at = family.header() + field;
                let found = word_for(target, at, |word| ip_side.carry(&*upper(port_side, word)));
                let Some(word) = found else { continue };
                let frame = arriving().carry(&ip.carry(&*upper(port, word)));
                let expected = arriving().carry(&ip.to(pod.ip()).carry(&*upper(pod.port(), word)));
                let text = name(&format!("local, checksum {target:04x} {side}"), family, protocol);
                cases.push(Case::ingress(text, frame, Action::Pass, Reason::Local, expected));
            }
        }
    }
    if family == Family::V4 {
        cases.extend(header_checksums());
    }
    cases
}

/// The same for the IPv4 header checksum, by way of the identification.
fn header_checksums() -> Vec<Case> {
    let pod = Target::Local.backend(Family::V4, Protocol::Tcp);
    let mut cases = Vec::new();
    for target in [0x0000_u16, 0x0001, 0x7fff, 0xfffe] {
        for (side, destination) in [("before", Family::V4.vip()), ("after", pod.ip())] {
            let packet = |id, to, port| {
                Ip {
                    id,
                    ..to_vip(Family::V4)
                }
                .to(to)
                .carry(&syn(port))
            };
            let Some(id) = word_for(target, 10, |id| packet(id, destination, 80)) else {
                continue;
            };
            let frame = arriving().carry(&packet(id, Family::V4.vip(), world::LOCAL.port));
            let expected = arriving().carry(&packet(id, pod.ip(), pod.port()));
            let text = format!("local, header checksum {target:04x} {side} v4");
            cases.push(Case::ingress(text, frame, Action::Pass, Reason::Local, expected));
        }
    }
    cases
}
