//! Echo requests to a VIP are answered in place; every other ICMP message for it stands aside.

use super::{Case, arriving, leaving, to_vip};
use crate::packets::frames::{Icmp, Ip, Link, word_for};
use crate::packets::world::{Family, VLAN};
use weir_common::verdict::{Action, Reason};

/// Identifier and sequence number before `data`.
fn message(kind: u8, data: &[u8]) -> Icmp {
    Icmp::new(kind, &[&[0x12, 0x34, 0, 1], data].concat())
}

fn request(family: Family, data: &[u8]) -> Icmp {
    message(if family.is_v6() { 128 } else { 8 }, data)
}

fn reply(family: Family, data: &[u8]) -> Icmp {
    message(if family.is_v6() { 129 } else { 0 }, data)
}

fn answered(name: &str, family: Family, tags: &[(u16, u16)], packet: &Ip, data: &[u8]) -> Case {
    let frame = arriving().tagged(tags).carry(&packet.carry(&request(family, data)));
    let back = Ip {
        ttl: 64,
        ..packet.reversed()
    }
    .carry(&reply(family, data));
    let link = leaving().tagged(tags);
    let mut expected = link.carry(&back);
    // Of the two zeros (RFC 1071) the answer has the one that is right whatever the data.
    let at = expected.len() - reply(family, data).body.len() - 2;
    if expected[at..at + 2] == [0, 0] {
        expected[at..at + 2].fill(0xff);
    }
    Case::ingress(
        format!("{name} {}", family.name()),
        frame,
        Action::Transmit,
        Reason::EchoReply,
        expected,
    )
}

fn aside(name: &str, family: Family, packet: &Ip, message: &Icmp, reason: Reason) -> Case {
    Case::pass(
        format!("{name} {}", family.name()),
        arriving().carry(&packet.carry(message)),
        reason,
    )
}

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let ip = to_vip(family);
    let extended = Ip {
        options: vec![0x94, 4, 0, 0],
        extensions: vec![
            (60, vec![0, 1, 4, 0, 0, 0, 0]),
            (60, vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ],
        ..ip.clone()
    };
    let unreachable = if family.is_v6() { 1 } else { 3 };
    let mut padded = answered("echo, padded", family, &[], &ip, b"");
    for frame in [&mut padded.frame, &mut padded.expected] {
        frame.extend([0x5a; 18]);
    }
    let mut wrong = answered("echo, wrong checksum stays wrong", family, &[], &ip, b"data");
    let at = 14 + family.header() + 2;
    for frame in [&mut wrong.frame, &mut wrong.expected] {
        frame[at + 1] ^= 0x04;
    }
    let mut cases = vec![
        answered("echo", family, &[], &ip, b"abcdefghijklmnopqrstuvwabcdefghi"),
        answered("echo, odd length", family, &[], &ip, b"odd"),
        answered("echo, no data", family, &[], &ip, b""),
        answered("echo, one tag", family, &[(0x8100, VLAN)], &ip, b"tagged"),
        answered("echo, two tags", family, &[(0x88a8, 5), (0x8100, VLAN)], &ip, b"tagged"),
        answered(
            "echo, time to live 1",
            family,
            &[],
            &Ip { ttl: 1, ..ip.clone() },
            b"far away",
        ),
        answered(
            "echo, time to live 255",
            family,
            &[],
            &Ip { ttl: 255, ..ip.clone() },
            b"near",
        ),
        answered(
            "echo, type of service",
            family,
            &[],
            &Ip {
                tos: 0xb8,
                flow_label: 0x12345,
                ..ip.clone()
            },
            b"ef",
        ),
        answered(
            "echo, may be fragmented",
            family,
            &[],
            &Ip {
                dont_fragment: false,
                ..ip.clone()
            },
            b"df",
        ),
        answered("echo, options", family, &[], &extended, b"options"),
        answered("echo, full size", family, &[], &ip, &[0xa7; 1_400]),
        answered("echo, in several buffers", family, &[], &ip, &[0xa7; 8_000]),
        answered(
            "echo to a vip owned elsewhere",
            family,
            &[],
            &ip.to(family.vip_elsewhere()),
            b"every node answers",
        ),
        padded,
        wrong,
        aside(
            "echo reply to the vip",
            family,
            &ip,
            &reply(family, b"?"),
            Reason::NoFrontend,
        ),
        aside(
            "echo of code 1",
            family,
            &ip,
            &Icmp {
                code: 1,
                ..request(family, b"?")
            },
            Reason::NoFrontend,
        ),
        aside(
            "unreachable to the vip",
            family,
            &ip,
            &message(unreachable, &[0; 28]),
            Reason::NoFrontend,
        ),
        aside(
            "echo to the tunnel address",
            family,
            &ip.to(family.tunnel()),
            &request(family, b"?"),
            Reason::NotServed,
        ),
        aside(
            "echo to a stranger",
            family,
            &ip.to(family.stranger()),
            &request(family, b"?"),
            Reason::NotOurs,
        ),
        short(family),
    ];
    cases.extend(carries(family));
    cases
}

/// The IP packet ends before the message, and what looks like one is padding.
fn short(family: Family) -> Case {
    let mut packet = to_vip(family).carry(&request(family, b""));
    let length = if family.is_v6() { 4..6 } else { 2..4 };
    let shorter = u16::from_be_bytes([packet[length.start], packet[length.start + 1]]) - 8;
    packet[length].copy_from_slice(&shorter.to_be_bytes());
    Case::pass(
        format!("echo in the padding {}", family.name()),
        arriving().carry(&packet),
        Reason::NoFrontend,
    )
}

/// Data for which request or reply have a checksum at the edge of the arithmetic.
fn carries(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for target in [
        0x0000_u16, 0x0001, 0x07ff, 0x0800, 0x0801, 0xf7fe, 0xf7ff, 0xf800, 0xfffe,
    ] {
        for (side, message) in [("request", request(family, &[])), ("reply", reply(family, &[]))] {
            let packet = if side == "request" {
                to_vip(family)
            } else {
                to_vip(family).reversed()
            };
            let found = word_for(target, family.header() + 2, |word| {
                let body = [&message.body[..], &word.to_be_bytes()].concat();
                packet.carry(&Icmp {
                    body,
                    ..message.clone()
                })
            });
            if let Some(word) = found {
                let name = format!("echo, {side} checksum {target:04x}");
                cases.push(answered(&name, family, &[], &to_vip(family), &word.to_be_bytes()));
            }
        }
    }
    cases
}

/// The cases of IPv4.
pub(super) fn v4() -> Vec<Case> {
    let ip = to_vip(Family::V4);
    // Nothing but zeros: the sum of the reply is zero, whose complement is the only valid checksum.
    let zeros = |kind| Icmp::new(kind, &[0; 12]);
    let link: Link = arriving();
    vec![
        Case::ingress(
            "echo of zeros v4",
            link.carry(&ip.carry(&zeros(8))),
            Action::Transmit,
            Reason::EchoReply,
            leaving().carry(&ip.reversed().carry(&zeros(0))),
        ),
        Case::pass(
            "timestamp v4",
            link.carry(&ip.carry(&message(13, &[0; 12]))),
            Reason::NoFrontend,
        ),
        Case::pass(
            "icmpv6 echo over ipv4",
            link.carry(&ip.carry(&message(128, b"?"))),
            Reason::NoFrontend,
        ),
        Case::pass(
            "echo fragment v4",
            link.carry(
                &Ip {
                    fragment: (0, true),
                    ..ip.clone()
                }
                .carry(&message(8, b"part")),
            ),
            Reason::Fragment,
        ),
        Case::pass(
            "echo last fragment v4",
            link.carry(
                &Ip {
                    fragment: (185, false),
                    ..ip
                }
                .carry(&message(8, b"part")),
            ),
            Reason::Fragment,
        ),
    ]
}
