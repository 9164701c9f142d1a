//! ICMP errors about flows through a VIP, in both directions, and those that this node sends of its own.

use super::wrap::{BLOCKED, FIRST, action, from_node, received, sent};
use super::{CLIENT_PORT, Case, arriving, begun, came, data, leaving, left, opening, syn, to_vip};
use crate::packets::frames::{Icmp, Ip, Raw, Steering, Tcp, Udp, Upper, flag};
use crate::packets::world::{self, Family, Frontend, Protocol, Target};
use std::net::{IpAddr, SocketAddr};
use weir_common::verdict::{Action, Reason};

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = arriving_errors(family);
    cases.extend(through_the_tunnel(family));
    cases.extend(leaving_errors(family));
    cases.extend(too_big(family));
    cases.extend(clamped(family));
    cases
}

fn name(text: &str, family: Family) -> String {
    format!("icmp, {text} {}", family.name())
}

/// Somebody between here and the client.
fn router(family: Family) -> IpAddr {
    family.impostor()
}

/// Kind and code of "too big", and the four bytes with the MTU.
fn too_big_header(family: Family, mtu: u16) -> (u8, u8, [u8; 4]) {
    let [high, low] = mtu.to_be_bytes();
    let (kind, code) = if family.is_v6() { (2, 0) } else { (3, 4) };
    (kind, code, [0, 0, high, low])
}

/// An error of this kind about `quoted`.
fn error((kind, code, rest): (u8, u8, [u8; 4]), quoted: &[u8]) -> Icmp {
    Icmp {
        code,
        ..Icmp::new(kind, &[&rest, quoted].concat())
    }
}

/// From somebody on the way to the VIP: `quoted` was too big.
pub(super) fn about(family: Family, quoted: &[u8]) -> Vec<u8> {
    let error = error(too_big_header(family, 1280), quoted);
    arriving().carry(&from_router(family, family.vip()).carry(&error))
}

/// What a backend at `from` sent to the client, `kept` bytes of it behind the IP header.
fn reply(family: Family, protocol: Protocol, from: SocketAddr, kept: usize) -> Vec<u8> {
    let upper: Box<dyn Upper> = match protocol {
        Protocol::Tcp => Box::new(Tcp::new(from.port(), CLIENT_PORT, flag::ACK).payload(&[7; 60])),
        Protocol::Udp => Box::new(Udp::new(from.port(), CLIENT_PORT, &[7; 60])),
    };
    let mut packet = Ip::between(from.ip(), family.client()).carry(&*upper);
    packet.truncate(family.header() + kept);
    packet
}

fn vip(family: Family, frontend: Frontend) -> SocketAddr {
    SocketAddr::new(family.vip(), frontend.port)
}

/// From a router to `to`.
fn from_router(family: Family, to: IpAddr) -> Ip {
    Ip {
        tos: 0xc0,
        ttl: 250,
        ..Ip::between(router(family), to)
    }
}

/// The flow exists here.
fn known(family: Family, protocol: Protocol) -> Vec<super::Step> {
    match protocol {
        Protocol::Tcp => begun(family, world::LOCAL.port, Target::Local)
            .into_iter()
            .chain([came(arriving().carry(&to_vip(family).carry(&data(world::LOCAL.port))))])
            .collect(),
        Protocol::Udp => {
            let pod = Target::Local.backend(family, protocol);
            let answer = Udp::new(pod.port(), CLIENT_PORT, b"answer");
            vec![
                came(arriving().carry(&to_vip(family).carry(&*opening(protocol, world::LOCAL.port)))),
                left(leaving().carry(&Ip::between(pod.ip(), family.client()).carry(&answer))),
            ]
        }
    }
}

fn arriving_errors(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let unreachable = if family.is_v6() { (1, 4, [0; 4]) } else { (3, 3, [0; 4]) };
    let exceeded = if family.is_v6() {
        (3, 0, [0; 4])
    } else {
        (11, 0, [0; 4])
    };
    let to =
        |at: IpAddr, header, quoted: &[u8]| arriving().carry(&from_router(family, at).carry(&error(header, quoted)));
    for protocol in Protocol::BOTH {
        let pod = Target::Local.backend(family, protocol);
        for (text, header) in [
            ("too big", too_big_header(family, 1280)),
            ("unreachable", unreachable),
            ("time exceeded", exceeded),
        ] {
            for (length, kept) in [("whole", 80), ("eight bytes", 8), ("with its checksum", 18)] {
                let quoted = reply(family, protocol, vip(family, world::LOCAL), kept);
                let rewritten = reply(family, protocol, pod, kept);
                let text = format!("{text}, {length} {protocol:?}").to_lowercase();
                cases.push(
                    Case::ingress(
                        name(&text, family),
                        to(family.vip(), header, &quoted),
                        Action::Pass,
                        Reason::IcmpError,
                        to(pod.ip(), header, &rewritten),
                    )
                    .after(known(family, protocol)),
                );
            }
        }
        let header = too_big_header(family, 1280);
        let quoted = reply(family, protocol, vip(family, world::REMOTE), 80);
        let inner = from_router(family, family.vip()).carry(&error(header, &quoted));
        let (expected, l3) = sent(
            Target::Near,
            family,
            0xc0,
            &Target::Near.steering(family, protocol, 0),
            &inner,
        );
        let text = name(&format!("to another node {protocol:?}").to_lowercase(), family);
        cases.push(
            Case::ingress(
                text,
                arriving().carry(&inner),
                Action::Transmit,
                Reason::IcmpError,
                expected,
            )
            .outer(l3),
        );
    }
    let header = too_big_header(family, 1280);
    let local = vip(family, world::LOCAL);
    let pass =
        |text: &str, quoted: &[u8], reason| Case::pass(name(text, family), to(family.vip(), header, quoted), reason);
    let other = SocketAddr::new(family.vip_elsewhere(), local.port());
    let unserved = SocketAddr::new(family.vip(), world::CLOSED_PORT);
    cases.extend([
        pass(
            "no such flow",
            &reply(family, Protocol::Tcp, local, 80),
            Reason::IcmpErrorUnknown,
        ),
        pass(
            "no such frontend",
            &reply(family, Protocol::Tcp, unserved, 80),
            Reason::IcmpErrorUnknown,
        ),
        pass(
            "quotes another address",
            &reply(family, Protocol::Tcp, other, 80),
            Reason::NoFrontend,
        ),
        pass(
            "quotes too little",
            &reply(family, Protocol::Tcp, local, 7),
            Reason::NoFrontend,
        ),
        pass("quotes nothing", &[], Reason::NoFrontend),
        // A SYN proves nothing, and so do errors about it.
        pass(
            "about an answer never given",
            &reply(family, Protocol::Tcp, local, 80),
            Reason::IcmpErrorUnknown,
        )
        .after([came(arriving().carry(&to_vip(family).carry(&syn(local.port()))))]),
    ]);
    cases
}

fn through_the_tunnel(family: Family) -> Vec<Case> {
    let header = too_big_header(family, 1280);
    let local = Target::Local.steering(family, Protocol::Tcp, 0);
    let packet = |frontend: Frontend| {
        let quoted = reply(family, Protocol::Tcp, vip(family, frontend), 80);
        from_router(family, family.vip()).carry(&error(header, &quoted))
    };
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let rewritten = from_router(family, pod.ip()).carry(&error(header, &reply(family, Protocol::Tcp, pod, 80)));
    let deep = packet(world::DEEP);
    let first = super::history::after(family, Target::Local);
    let asking = Steering {
        flags: FIRST | BLOCKED,
        previous: Some(Target::Local.as_previous(family, Protocol::Tcp)),
        ..first.steering(family, Protocol::Tcp, 1)
    };
    let (asked, l3) = sent(first, family, 0xc0, &asking, &deep);
    vec![
        Case::ingress(
            name("from another node", family),
            received(Target::Near, family, &local, &packet(world::LOCAL)),
            Action::Pass,
            Reason::IcmpError,
            from_node(Target::Near, family).carry(&rewritten),
        )
        .after(known(family, Protocol::Tcp)),
        Case::drop(
            name("from another node, no such flow", family),
            received(Target::Near, family, &local, &packet(world::LOCAL)),
            Reason::IcmpErrorUnknown,
        ),
        Case::ingress(
            name("from another node, of an older backend", family),
            received(Target::Near, family, &local, &deep),
            action(first),
            Reason::IcmpError,
            asked,
        )
        .outer(l3),
    ]
}

/// A pod says that nobody listens any more.
fn leaving_errors(family: Family) -> Vec<Case> {
    let header = if family.is_v6() { (1, 4, [0; 4]) } else { (3, 3, [0; 4]) };
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        let pod = Target::Local.backend(family, protocol);
        let about = |at: SocketAddr| {
            let upper = opening(protocol, at.port());
            let quoted = Ip::between(family.client(), at.ip()).carry(&*upper);
            leaving().carry(&Ip::between(at.ip(), family.client()).carry(&error(header, &quoted)))
        };
        let text = format!("a backend's own {protocol:?}").to_lowercase();
        cases.push(
            Case::egress(
                name(&text, family),
                about(pod),
                Reason::EgressReply,
                about(vip(family, world::LOCAL)),
            )
            .after(known(family, protocol)),
        );
        cases.push(Case::egress(
            name(&format!("{text}, no such flow"), family),
            about(pod),
            Reason::EgressNoFlow,
            about(pod),
        ));
    }
    cases
}

fn too_big(family: Family) -> Vec<Case> {
    let port = world::NARROW.port;
    let outer = family.header();
    // What fits beside the longest option.
    let mtu = Target::Narrow.mtu() - (outer + 8 + 8 + 4 + 56) as u16;
    let big = |ip: &Ip| ip.carry(&data(port).payload(&[9; 700]));
    let frame = |ip: &Ip| arriving().carry(&big(ip));
    let answer_to = |link: super::Link, packet: &[u8]| {
        let own = Ip {
            id: 0,
            ..to_vip(family).reversed()
        };
        link.carry(&own.carry(&error(too_big_header(family, mtu), &packet[..128])))
    };
    let answer = |link: super::Link, ip: &Ip| answer_to(link, &big(ip));
    let ip = to_vip(family);
    let answered = |text: &str, frame: Vec<u8>, expected| {
        Case::ingress(
            name(text, family),
            frame,
            Action::Transmit,
            Reason::TooBigAnswered,
            expected,
        )
        .fresh()
    };
    let tags = [(0x8100, 7), (0x8100, 0x2009)];
    let mut cases = vec![
        answered("too big for the tunnel", frame(&ip), answer(leaving(), &ip)),
        answered(
            "too big for the tunnel, behind a tag",
            arriving().tagged(&tags[..1]).carry(&big(&ip)),
            answer(leaving().tagged(&tags[..1]), &ip),
        ),
        answered(
            "too big for the tunnel, behind two tags",
            arriving().tagged(&tags).carry(&big(&ip)),
            answer(leaving().tagged(&tags), &ip),
        ),
        Case::drop(
            name("too big for the tunnel, again and again", family),
            frame(&ip),
            Reason::TooBigSilent,
        )
        .after([came(frame(&ip)), came(frame(&ip))])
        .fresh(),
    ];
    let extended = |bytes: usize| Ip {
        options: vec![1; 40],
        extensions: vec![(
            60,
            [vec![bytes as u8 / 8 - 1, 1, bytes as u8 - 4], vec![0; bytes - 4]].concat(),
        )],
        ..ip.clone()
    };
    let short = extended(80);
    cases.push(answered(
        "too big for the tunnel, with options",
        frame(&short),
        answer(leaving(), &short),
    ));
    if family.is_v6() {
        // What names the flow is not among what is quoted.
        cases.push(
            Case::drop(
                name("too big for the tunnel, with many options", family),
                frame(&extended(88)),
                Reason::TooBigForTunnel,
            )
            .fresh(),
        );
    }
    let pieces = in_pieces(family, &ip, true);
    cases.push(answered(
        "too big for the tunnel, first fragment",
        arriving().carry(&pieces[0]),
        answer_to(leaving(), &pieces[0]),
    ));
    cases.push(
        Case::drop(
            name("too big for the tunnel, later fragment", family),
            arriving().carry(&pieces[1]),
            Reason::TooBigSilent,
        )
        .after([came(arriving().carry(&pieces[0]))])
        .fresh(),
    );
    if family == Family::V4 {
        let pieces = in_pieces(family, &ip, false);
        cases.push(Case::pass(
            name(
                "too big for the tunnel, first fragment of what may be fragmented",
                family,
            ),
            arriving().carry(&pieces[0]),
            Reason::TooBigForTunnel,
        ));
        cases.push(
            Case::pass(
                name(
                    "too big for the tunnel, later fragment of what may be fragmented",
                    family,
                ),
                arriving().carry(&pieces[1]),
                Reason::NoFrontend,
            )
            .after([came(arriving().carry(&pieces[0]))]),
        );
        let divisible = Ip {
            dont_fragment: false,
            ..ip
        };
        cases.push(Case::drop(
            name("too big for the tunnel, but may be fragmented", family),
            frame(&divisible),
            Reason::TooBigForTunnel,
        ));
    }
    cases
}

/// A datagram in two fragments too big for the tunnel and a small one; over IPv4 they say whether they may be cut further.
fn in_pieces(family: Family, ip: &Ip, dont_fragment: bool) -> Vec<Vec<u8>> {
    let datagram = Udp::new(CLIENT_PORT, world::NARROW.port, &[9; 1_300]);
    let (id, cuts) = (super::fragments::fresh(), [600, 1_200]);
    if family.is_v6() || !dont_fragment {
        return ip.cut(id, &datagram, &cuts);
    }
    let bytes = datagram.bytes(ip.source, ip.destination);
    let piece = |start: usize, end: usize| {
        let ip = Ip {
            id,
            fragment: (start as u16 / 8, end < bytes.len()),
            ..ip.clone()
        };
        ip.carry(&Raw(17, bytes[start..end].to_vec()))
    };
    vec![piece(0, cuts[0]), piece(cuts[0], cuts[1]), piece(cuts[1], bytes.len())]
}

/// A client's MSS is lowered to what this node's own links carry.
fn clamped(family: Family) -> Vec<Case> {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let offer = |mss: u16| {
        let [high, low] = mss.to_be_bytes();
        syn(world::LOCAL.port).options(&[2, 4, high, low, 1, 1, 1, 1])
    };
    let local = |text: &str, mss, left| {
        Case::ingress(
            name(text, family),
            arriving().carry(&to_vip(family).carry(&offer(mss))),
            Action::Pass,
            Reason::Local,
            arriving().carry(
                &to_vip(family)
                    .to(pod.ip())
                    .carry(&offer(left).ports(CLIENT_PORT, pod.port())),
            ),
        )
    };
    let steering = Target::Local.steering(family, Protocol::Tcp, 0);
    let tunnelled = Case::ingress(
        name("a large mss out of the tunnel", family),
        received(Target::Near, family, &steering, &to_vip(family).carry(&offer(8960))),
        Action::Pass,
        Reason::Decapsulated,
        from_node(Target::Near, family).carry(
            &to_vip(family)
                .to(pod.ip())
                .carry(&offer(world::SYN_MSS).ports(CLIENT_PORT, pod.port())),
        ),
    );
    vec![
        local("a large mss", 8960, world::SYN_MSS),
        local("the largest mss", world::SYN_MSS, world::SYN_MSS),
        tunnelled,
    ]
}
