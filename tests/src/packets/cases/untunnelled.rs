//! Tunnel packets that are not taken: dropped when they say they are Weir's, passed when they do not.

use super::tunnel::{TCP, inner, moved_here, name, to_local};
use super::wrap::{datagram, from_node, outer, received};
use super::{Case, arriving, data, syn, to_vip};
use crate::packets::frames::{Geneve, Icmp, Ip, Raw, Steering, Udp, Upper};
use crate::packets::world::{self, Family, Target};
use weir_common::verdict::Reason;

/// The cases of one family (of the inner and the outer packet).
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = refused(family);
    cases.extend(malformed(family));
    cases.extend(foreign(family));
    cases
}

/// Packets that are Weir's by their looks, but that this node does not take.
fn refused(family: Family) -> Vec<Case> {
    let port = world::LOCAL.port;
    let packet = inner(family, &syn(port));
    let later = inner(family, &data(port));
    let from = |text: &str, source, reason| {
        let around = outer(source, family.tunnel(), 0);
        let geneve = Geneve::new(&to_local(family), packet.clone());
        Case::drop(
            name(text, family),
            arriving().carry(&around.carry(&datagram(&geneve))),
            reason,
        )
    };
    let dropped = |text: &str, steering: &Steering, packet: &[u8], reason| {
        Case::drop(
            name(text, family),
            received(Target::Near, family, steering, packet),
            reason,
        )
    };
    let elsewhere = Target::Near.steering(family, TCP, 0);
    let wrong_port = Steering {
        backend: (Target::Local.backend(family, TCP).ip(), 9).into(),
        ..to_local(family)
    };
    let big = inner(family, &data(port).payload(&[9; 900]));
    vec![
        from("from an impostor", family.impostor(), Reason::TunnelUnknownSender),
        from("from a client", family.client(), Reason::TunnelUnknownSender),
        from("from this node", family.tunnel(), Reason::TunnelUnknownSender),
        from("from a vip", family.vip(), Reason::TunnelUnknownSender),
        dropped(
            "backend elsewhere, syn",
            &elsewhere,
            &packet,
            Reason::TunnelUnknownBackend,
        ),
        dropped(
            "backend elsewhere, later",
            &elsewhere,
            &later,
            Reason::TunnelUnknownBackend,
        ),
        dropped(
            "backend's other port",
            &wrong_port,
            &packet,
            Reason::TunnelUnknownBackend,
        ),
        dropped(
            "previous backend's node unreachable",
            &moved_here(family, Target::Unreachable),
            &later,
            Reason::NodeUnreachable,
        ),
        dropped(
            "second chance over a small mtu",
            &moved_here(family, Target::Narrow),
            &big,
            Reason::TooBigForTunnel,
        ),
    ]
}

/// Packets that say they are Weir's and are not as Weir sends them.
fn malformed(family: Family) -> Vec<Case> {
    let port = world::LOCAL.port;
    let packet = inner(family, &syn(port));
    let dropped = |text: &str, geneve: &Geneve| {
        let around = outer(Target::Near.node(family), family.tunnel(), 0);
        let frame = from_node(Target::Near, family).carry(&around.carry(&datagram(geneve)));
        Case::drop(name(text, family), frame, Reason::TunnelMalformed)
    };
    let good = Geneve::new(&to_local(family), packet.clone());
    let carrying = |inner: Vec<u8>| Geneve { inner, ..good.clone() };
    let mut wrong_length = good.clone();
    wrong_length.options[3] = 6;
    let mut long_without = good.clone();
    long_without.options[3] = 14;
    let mut two = good.clone();
    two.options.extend([0xff, 0xe1, 1, 0]);
    let ip = to_vip(family);
    let echo = Icmp::new(if family.is_v6() { 128 } else { 8 }, &[0; 8]);
    let other = Target::Local.steering(family.other(), TCP, 0);
    let other_type = if family.is_v6() { 0x0800 } else { 0x86dd };
    let mut cases = vec![
        dropped(
            "version 1",
            &Geneve {
                first_byte: Some(0x46),
                ..good.clone()
            },
        ),
        dropped(
            "options of another length than the option",
            &Geneve {
                first_byte: Some(7),
                ..good.clone()
            },
        ),
        dropped(
            "no options",
            &Geneve {
                first_byte: Some(0),
                ..good.clone()
            },
        ),
        dropped("option of another length", &wrong_length),
        dropped("option says it is long", &long_without),
        dropped(
            "long option that is short",
            &Geneve {
                first_byte: Some(15),
                ..long_without.clone()
            },
        ),
        dropped("two options", &two),
        dropped(
            "ethernet inside",
            &Geneve {
                protocol: Some(0x6558),
                ..good.clone()
            },
        ),
        dropped(
            "the other family's type",
            &Geneve {
                protocol: Some(other_type),
                ..good.clone()
            },
        ),
        dropped(
            "nothing inside",
            &Geneve {
                protocol: Some(0x0800),
                ..carrying(Vec::new())
            },
        ),
        dropped(
            "half a header inside",
            &carrying(packet[..family.header() - 1].to_vec()),
        ),
        dropped("half a segment inside", &carrying(packet[..packet.len() - 1].to_vec())),
        dropped("echo inside", &carrying(ip.carry(&echo))),
        dropped("short tcp header inside", &carrying(ip.carry(&Raw(6, vec![0; 12])))),
        dropped(
            "backend of the other family",
            &Geneve {
                options: other.option(),
                ..good.clone()
            },
        ),
    ];
    // The outer packet ends in the middle of the inner one; the frame goes on.
    let around = Ip {
        length_error: -4,
        ..outer(Target::Near.node(family), family.tunnel(), 0)
    };
    let frame = from_node(Target::Near, family).carry(&around.carry(&datagram(&good)));
    cases.push(Case::drop(
        name("outer packet ends early", family),
        frame,
        Reason::TunnelMalformed,
    ));
    cases
}

/// What reaches the tunnel's port and is none of Weir's business.
fn foreign(family: Family) -> Vec<Case> {
    let packet = inner(family, &syn(world::LOCAL.port));
    let around = outer(Target::Near.node(family), family.tunnel(), 0);
    let link = from_node(Target::Near, family);
    let passed = |text: &str, upper: &dyn Upper| {
        Case::pass(name(text, family), link.carry(&around.carry(upper)), Reason::NotServed)
    };
    let good = Geneve::new(&to_local(family), packet);
    let mut class = good.clone();
    class.options[1] = 0xe0;
    let mut kind = good.clone();
    kind.options[2] = 0x01;
    let part = Ip {
        dont_fragment: false,
        fragment: (0, true),
        extensions: vec![(44, vec![0, 0, 1, 0, 0, 0, 9])],
        ..around.clone()
    };
    vec![
        passed(
            "without an option",
            &datagram(&Geneve {
                options: Vec::new(),
                ..good.clone()
            }),
        ),
        passed("option of another class", &datagram(&class)),
        passed("option of another type", &datagram(&kind)),
        passed(
            "too short for an option",
            &Udp::new(0xc000, world::TUNNEL_PORT, &good.bytes()[..20]),
        ),
        passed("empty", &Udp::new(0xc000, world::TUNNEL_PORT, b"")),
        passed(
            "another port",
            &Udp {
                destination: world::TUNNEL_PORT + 1,
                ..datagram(&good)
            },
        ),
        passed("tcp to its port", &syn(world::TUNNEL_PORT)),
        Case::pass(
            name("fragment", family),
            link.carry(&part.carry(&datagram(&good))),
            Reason::NotServed,
        ),
    ]
}
