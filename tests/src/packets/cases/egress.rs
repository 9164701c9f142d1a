//! Replies of backends on this node: the source becomes the VIP, the MSS offered in a SYN-ACK is lowered.

use super::wrap::received;
use super::{CLIENT_PORT, Case, Step, arriving, came, data, following, leaving, opening, syn, to_vip};
use crate::packets::frames::{Arp, Icmp, Ip, Raw, Tcp, Udp, Upper, flag, word_for};
use crate::packets::runner::Program;
use crate::packets::world::{self, Family, MSS, NODE_MAC, Protocol, Target, VLAN};
use weir_common::verdict::Reason;

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        cases.extend(replies(family, protocol));
    }
    cases.extend(uncut(family));
    cases.extend(which_vip(family));
    cases.extend(segment_sizes(family));
    cases.extend(no_flow(family));
    cases.extend(not_ours(family));
    cases
}

/// The client's first packet came in by a local frontend.
fn begun(family: Family, protocol: Protocol) -> Step {
    came(arriving().carry(&to_vip(family).carry(&*opening(protocol, world::LOCAL.port))))
}

/// From the local backend to the client.
fn from_pod(family: Family, protocol: Protocol) -> Ip {
    Ip {
        id: 0,
        ..Ip::between(Target::Local.backend(family, protocol).ip(), family.client())
    }
}

/// An answer over TCP or UDP from this port.
fn answer(protocol: Protocol, port: u16) -> Box<dyn Upper> {
    match protocol {
        Protocol::Tcp => {
            Box::new(Tcp::new(port, CLIENT_PORT, flag::ACK | flag::PSH).payload(b"HTTP/1.1 200 OK\r\n\r\n"))
        }
        Protocol::Udp => Box::new(Udp::new(port, CLIENT_PORT, b"answer")),
    }
}

fn rewritten(text: &str, family: Family, tags: &[(u16, u16)], ip: &Ip, before: &dyn Upper, after: &dyn Upper) -> Case {
    let link = leaving().tagged(tags);
    let frame = link.carry(&ip.carry(before));
    let expected = link.carry(&ip.from(family.vip()).carry(after));
    Case::egress(
        format!("reply, {text} {}", family.name()),
        frame,
        Reason::EgressReply,
        expected,
    )
}

/// A reply whose length is beyond the 16 bits for it: the header says 0, and it is cut into segments later.
fn uncut(family: Family) -> Vec<Case> {
    let (pod, port) = (Target::Local.backend(family, Protocol::Tcp).port(), world::LOCAL.port);
    let segment = |port| Tcp::new(port, CLIENT_PORT, flag::ACK).payload(&[0x5a; 2_000]);
    let without_length = |ip: Ip| {
        let counted = if family.is_v6() { family.header() } else { 0 };
        let length = ip.carry(&segment(pod)).len() - counted;
        Ip {
            length_error: -(length as i32),
            ..ip
        }
    };
    let plain = without_length(from_pod(family, Protocol::Tcp));
    let reply = |text: &str, ip: &Ip| Case {
        program: Program::EgressUncut,
        ..rewritten(text, family, &[], ip, &segment(pod), &segment(port)).after([begun(family, Protocol::Tcp)])
    };
    let whole = leaving().carry(&plain.carry(&segment(pod)));
    let mut cases = vec![
        reply("larger than its length field", &plain),
        Case::egress(
            format!("not ours, a length of 0 {}", family.name()),
            whole.clone(),
            Reason::EgressNotOurs,
            whole,
        )
        .after([begun(family, Protocol::Tcp)]),
    ];
    if family.is_v6() {
        // As older kernels say it (RFC 2675).
        let jumbo = Ip {
            extensions: vec![(0, vec![0, 0xc2, 4, 0, 1, 0x11, 0x70])],
            ..from_pod(family, Protocol::Tcp)
        };
        cases.push(reply("larger than its length field, jumbogram", &without_length(jumbo)));
    }
    cases
}

fn replies(family: Family, protocol: Protocol) -> Vec<Case> {
    let (pod, port) = (Target::Local.backend(family, protocol).port(), world::LOCAL.port);
    let ip = from_pod(family, protocol);
    let (before, after) = (answer(protocol, pod), answer(protocol, port));
    let reply = |text: &str, tags: &[(u16, u16)], ip: &Ip| {
        let text = format!("{text} {protocol:?}").to_lowercase();
        rewritten(&text, family, tags, ip, &*before, &*after).after([begun(family, protocol)])
    };
    let extended = Ip {
        options: vec![1, 1, 1, 0],
        extensions: vec![(60, vec![0, 1, 4, 0, 0, 0, 0])],
        ttl: 63,
        tos: 0x2e,
        dont_fragment: false,
        ..ip.clone()
    };
    let mut padded = reply("padded", &[], &ip);
    padded.frame.extend([0; 6]);
    padded.expected.extend([0; 6]);
    let mut cases = vec![
        reply("plain", &[], &ip),
        reply("one tag", &[(0x8100, VLAN)], &ip),
        reply("two tags", &[(0x88a8, 5), (0x8100, VLAN)], &ip),
        reply("options", &[], &extended),
        padded,
    ];
    match protocol {
        Protocol::Tcp => {
            for (text, flags) in [
                ("fin", flag::FIN | flag::ACK),
                ("rst", flag::RST),
                ("syn", flag::SYN),
                ("none", 0),
            ] {
                let segment = |port| Tcp::new(port, CLIENT_PORT, flags).options(&[2, 4, 0xff, 0xff]);
                cases.push(
                    rewritten(
                        &format!("flags {text}"),
                        family,
                        &[],
                        &ip,
                        &segment(pod),
                        &segment(port),
                    )
                    .after([begun(family, protocol)]),
                );
            }
        }
        Protocol::Udp => {
            let plain = |port| Udp::new(port, CLIENT_PORT, b"no checksum").unchecked();
            cases.push(
                rewritten("udp without checksum", family, &[], &ip, &plain(pod), &plain(port))
                    .after([begun(family, protocol)]),
            );
        }
    }
    cases.extend(checksums(family, protocol));
    cases
}

/// Payloads for which the checksum before or after is at the edge of the arithmetic.
fn checksums(family: Family, protocol: Protocol) -> Vec<Case> {
    let (pod, port) = (Target::Local.backend(family, protocol).port(), world::LOCAL.port);
    let ip = from_pod(family, protocol);
    let at = family.header() + if protocol == Protocol::Tcp { 16 } else { 6 };
    let upper = |port: u16, word: u16| -> Box<dyn Upper> {
        match protocol {
            Protocol::Tcp => Box::new(Tcp::new(port, CLIENT_PORT, flag::ACK).payload(&word.to_be_bytes())),
            Protocol::Udp => Box::new(Udp::new(port, CLIENT_PORT, &word.to_be_bytes())),
        }
    };
    let mut cases = Vec::new();
    for (side, ip_side, port_side) in [("before", ip.clone(), pod), ("after", ip.from(family.vip()), port)] {
        for target in [0x0000_u16, 0x0001, 0x7fff, 0xfffe, 0xffff] {
            if let Some(word) = word_for(target, at, |word| ip_side.carry(&*upper(port_side, word))) {
                let text = format!("{protocol:?} checksum {target:04x} {side}").to_lowercase();
                cases.push(
                    rewritten(&text, family, &[], &ip, &*upper(pod, word), &*upper(port, word))
                        .after([begun(family, protocol)]),
                );
            }
        }
    }
    cases
}

/// The VIP's port is the one the client used, however the flow came here.
fn which_vip(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        let (pod, other) = (Target::Local.backend(family, protocol).port(), world::MOVED_INSIDE.port);
        let ip = from_pod(family, protocol);
        let inner = to_vip(family).carry(&*opening(protocol, other));
        let tunnelled = came(received(
            Target::Near,
            family,
            &Target::Local.steering(family, protocol, 0),
            &inner,
        ));
        let direct = came(arriving().carry(&inner));
        let (before, after) = (answer(protocol, pod), answer(protocol, other));
        let reply = |text: &str| {
            rewritten(
                &format!("{text} {protocol:?}").to_lowercase(),
                family,
                &[],
                &ip,
                &*before,
                &*after,
            )
        };
        cases.push(reply("by another port").after([direct.clone()]));
        cases.push(reply("begun in the tunnel").after([tunnelled.clone()]));
        // The client's port, used again for another frontend with the same backend before anything was established.
        cases.push(reply("the port last used").after([begun(family, protocol), direct]));
        cases.push(reply("the port last used, in the tunnel").after([begun(family, protocol), tunnelled]));
    }
    cases
}

/// Options of a SYN-ACK before and after; `None` for "unchanged".
fn segment_sizes(family: Family) -> Vec<Case> {
    let limit = MSS[usize::from(family.is_v6())].to_be_bytes();
    let [high, low] = limit;
    let one_more = [high, low + 1];
    let one_less = [high, low - 1];
    let (pod, port) = (Target::Local.backend(family, Protocol::Tcp).port(), world::LOCAL.port);
    let case = |text: &str, before: Vec<u8>, after: Vec<u8>, offset: Option<u8>| {
        let segment = |port, options: &[u8]| Tcp {
            offset,
            ..Tcp::new(port, CLIENT_PORT, flag::SYN | flag::ACK).options(options)
        };
        let ip = from_pod(family, Protocol::Tcp);
        rewritten(
            &format!("mss {text}"),
            family,
            &[],
            &ip,
            &segment(pod, &before),
            &segment(port, &after),
        )
        .after([begun(family, Protocol::Tcp)])
    };
    let lowered = |text: &str, around: [&[u8]; 2], value: [u8; 2]| {
        let [before, after] = [value, limit].map(|value| [around[0], &[2, 4], &value, around[1]].concat());
        case(text, before, after, None)
    };
    let kept = |text: &str, options: &[u8]| case(text, options.to_vec(), options.to_vec(), None);
    let [a, b] = [0x05, 0xb4];
    vec![
        lowered("as ethernet has it", [&[], &[]], [a, b]),
        lowered("of the other byte order's size", [&[], &[]], [0xff, 0x05]),
        lowered("of all ones", [&[], &[]], [0xff, 0xff]),
        lowered("one too big", [&[], &[]], one_more),
        lowered(
            "with the usual company",
            [&[], &[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7]],
            [a, b],
        ),
        lowered("at an odd place", [&[1], &[1, 1, 1]], [a, b]),
        lowered("at an odd place, of all ones", [&[3, 3, 7], &[1]], [0xff, 0xff]),
        lowered("at an odd place, by one", [&[1], &[1, 1, 1]], one_more),
        lowered("in the middle of a word", [&[1, 1], &[1, 1]], [a, b]),
        lowered("behind a window scale", [&[3, 3, 7, 1], &[]], [a, b]),
        lowered(
            "behind everything",
            [&[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7], &[]],
            [a, b],
        ),
        lowered(
            "with a fast open cookie behind",
            [&[], &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]],
            [a, b],
        ),
        kept("just small enough", &[2, 4, high, low]),
        kept("smaller", &[2, 4, one_less[0], one_less[1]]),
        kept("of zero", &[2, 4, 0, 0]),
        kept("absent", &[]),
        kept("absent, others there", &[4, 2, 1, 1]),
        kept("behind the end", &[0, 0, 0, 0, 2, 4, 0xff, 0xff]),
        kept("of length 3", &[2, 3, 0xff, 0xff]),
        kept("behind an option of length zero", &[3, 0, 1, 1, 2, 4, 0xff, 0xff]),
        kept("behind an option of length one", &[3, 1, 1, 1, 2, 4, 0xff, 0xff]),
        kept("behind an option beyond the end", &[3, 200, 1, 1, 2, 4, 0xff, 0xff]),
        kept("cut off by the end of the options", &[1, 1, 2, 4]),
        // What the options' length covers is not in the packet: nothing may be read as an option.
        case(
            "outside a header of 20 bytes",
            vec![2, 4, 0xff, 0xff],
            vec![2, 4, 0xff, 0xff],
            Some(5),
        ),
        case(
            "outside a header of 0 bytes",
            vec![2, 4, 0xff, 0xff],
            vec![2, 4, 0xff, 0xff],
            Some(0),
        ),
        beyond(family),
    ]
}

/// The data offset says 60 bytes, the segment has 20, and the padding looks like an MSS option.
fn beyond(family: Family) -> Case {
    let (pod, port) = (Target::Local.backend(family, Protocol::Tcp).port(), world::LOCAL.port);
    let segment = |port| Tcp {
        offset: Some(15),
        ..Tcp::new(port, CLIENT_PORT, flag::SYN | flag::ACK)
    };
    let ip = from_pod(family, Protocol::Tcp);
    let mut case = rewritten("mss in the padding", family, &[], &ip, &segment(pod), &segment(port))
        .after([begun(family, Protocol::Tcp)]);
    for frame in [&mut case.frame, &mut case.expected] {
        frame.extend([2, 4, 0xff, 0xff, 0, 0]);
    }
    case
}

fn unchanged(text: &str, family: Family, packet: &[u8], reason: Reason) -> Case {
    let frame = leaving().carry(packet);
    Case::egress(format!("{text} {}", family.name()), frame.clone(), reason, frame)
}

/// A backend talks, but not in a flow that came through a VIP.
fn no_flow(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::BOTH {
        let pod = Target::Local.backend(family, protocol).port();
        let ip = from_pod(family, protocol);
        let upper = answer(protocol, pod);
        let name = |text: &str| format!("no flow, {text} {protocol:?}").to_lowercase();
        cases.push(unchanged(
            &name("nothing before"),
            family,
            &ip.carry(&*upper),
            Reason::EgressNoFlow,
        ));
        let other: Box<dyn Upper> = match protocol {
            Protocol::Tcp => Box::new(Tcp::new(pod, CLIENT_PORT + 1, flag::ACK)),
            Protocol::Udp => Box::new(Udp::new(pod, CLIENT_PORT + 1, b"answer")),
        };
        let begun = begun(family, protocol);
        cases.push(
            unchanged(
                &name("another client port"),
                family,
                &ip.carry(&*other),
                Reason::EgressNoFlow,
            )
            .after([begun.clone()]),
        );
        let stranger = ip.to(family.stranger());
        cases.push(
            unchanged(
                &name("another client"),
                family,
                &stranger.carry(&*upper),
                Reason::EgressNoFlow,
            )
            .after([begun.clone()]),
        );
        let neighbor = ip.from(Target::Neighbor.backend(family, protocol).ip());
        cases.push(
            unchanged(
                &name("another backend"),
                family,
                &neighbor.carry(&*upper),
                Reason::EgressNoFlow,
            )
            .after([begun]),
        );
    }
    // A flow that was sent on to another node is not this node's.
    let sent = came(arriving().carry(&to_vip(family).carry(&syn(world::REMOTE.port))));
    let packet = from_pod(family, Protocol::Tcp).carry(&*answer(Protocol::Tcp, 8080));
    cases.push(unchanged("no flow, tunnelled elsewhere", family, &packet, Reason::EgressNoFlow).after([sent]));
    cases
}

fn not_ours(family: Family) -> Vec<Case> {
    let ip = from_pod(family, Protocol::Tcp);
    let pod = Target::Local.backend(family, Protocol::Tcp).port();
    let node = ip.from(family.tunnel());
    let segment = answer(Protocol::Tcp, pod);
    let part = Ip {
        dont_fragment: false,
        fragment: (0, true),
        extensions: vec![(44, vec![0, 0, 1, 0, 0, 0, 9])],
        ..ip.clone()
    };
    let frame = leaving().carry(&ip.carry(&*segment));
    let untouched = |text: &str, packet: &[u8]| {
        unchanged(&format!("not ours, {text}"), family, packet, Reason::EgressNotOurs)
            .after([begun(family, Protocol::Tcp)])
    };
    let raw = |text: &str, frame: Vec<u8>| {
        Case::egress(
            format!("not ours, {text} {}", family.name()),
            frame.clone(),
            Reason::EgressNotOurs,
            frame,
        )
        .after([begun(family, Protocol::Tcp)])
    };
    let request = Arp::request(NODE_MAC, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    vec![
        untouched("this node's own", &node.carry(&data(443))),
        untouched("another port of the pod", &ip.carry(&*answer(Protocol::Tcp, pod + 1))),
        untouched("the pod as a client", &ip.carry(&Tcp::new(33_000, 443, flag::SYN))),
        untouched("the pod's port over udp", &ip.carry(&*answer(Protocol::Udp, pod))),
        untouched(
            "echo",
            &ip.carry(&Icmp::new(if family.is_v6() { 129 } else { 0 }, &[0; 8])),
        ),
        untouched("sctp", &ip.carry(&Raw(132, vec![0; 12]))),
        untouched("fragment", &part.carry(&*segment)),
        untouched(
            "length field beyond the frame",
            &Ip {
                length_error: 1,
                ..ip.clone()
            }
            .carry(&*segment),
        ),
        untouched(
            "a broken header",
            &Ip {
                first_byte: Some(0x41),
                flow_label: 7,
                ..node
            }
            .carry(&*segment),
        ),
        untouched(
            "a client's packet",
            &to_vip(family).carry(&*following(Protocol::Tcp, world::LOCAL.port)),
        ),
        raw("cut short", frame[..14 + family.header() + 12].to_vec()),
        raw("arp", leaving().carry_as(0x0806, &request.bytes())),
        raw("lldp", leaving().carry_as(0x88cc, &[2, 7, 4, 0, 0, 0, 0, 0])),
        raw(
            "three tags",
            leaving().tagged(&[(0x8100, 1); 3]).carry(&ip.carry(&*segment)),
        ),
    ]
}
