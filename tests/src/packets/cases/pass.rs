//! What passes untouched: traffic of others, what is no IP, what is broken, and what a VIP does not serve.

use super::{CLIENT_PORT, Case, arriving, syn, to_vip};
use crate::packets::frames::{Icmp, Ip, Link, Raw, Tcp, Udp, Upper, flag};
use crate::packets::world::{self, Family, Target, VLAN};
use weir_common::verdict::Reason;

/// An extension header of `units` times 8 bytes more than 8: padding options.
fn extension(kind: u8, units: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![units, 1, 4];
    bytes.extend(vec![0; usize::from(units) * 8 + 4]);
    (kind, bytes)
}

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let (ip, link, port) = (to_vip(family), arriving(), world::LOCAL.port);
    let vip = |name: &str, packet: Vec<u8>, reason| {
        Case::pass(format!("{name} {}", family.name()), link.carry(&packet), reason)
    };
    let to = |name: &str, destination, reason| vip(name, ip.to(destination).carry(&syn(port)), reason);
    let sctp = Raw(132, vec![0x9c, 0x40, 0, 80, 0, 0, 0, 0, 1, 2, 3, 4]);
    let mut cases = vec![
        to("tcp to a stranger", family.stranger(), Reason::NotOurs),
        to("tcp to the client", family.client(), Reason::NotOurs),
        to(
            "tcp to a pod here",
            Target::Local.backend(family, world::Protocol::Tcp).ip(),
            Reason::NotOurs,
        ),
        to("tcp to a node", Target::Near.node(family), Reason::NotOurs),
        to("tcp to the tunnel address", family.tunnel(), Reason::NotServed),
        to(
            "tcp to a vip without frontends",
            family.vip_elsewhere(),
            Reason::NoFrontend,
        ),
        vip(
            "tcp to a closed port",
            ip.carry(&syn(world::CLOSED_PORT)),
            Reason::NoFrontend,
        ),
        vip("tcp to port 0", ip.carry(&syn(0)), Reason::NoFrontend),
        vip(
            "udp to a closed port",
            ip.carry(&Udp::new(CLIENT_PORT, world::CLOSED_PORT, b"?")),
            Reason::NoFrontend,
        ),
        vip("sctp", ip.carry(&sctp), Reason::NoFrontend),
        vip("esp", ip.carry(&Raw(50, vec![0; 24])), Reason::NoFrontend),
        vip(
            "authentication header",
            ip.carry(&Raw(51, vec![6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
            Reason::NoFrontend,
        ),
        vip(
            "tcp header beyond the packet",
            ip.carry(&Raw(6, vec![0x9c, 0x40, 0, 80, 0, 0, 0, 0])),
            Reason::Truncated,
        ),
        vip(
            "udp header beyond the packet",
            ip.carry(&Raw(17, vec![0x9c, 0x40, 0, 80])),
            Reason::Truncated,
        ),
        vip(
            "length field beyond the frame",
            Ip {
                length_error: 1,
                ..ip.clone()
            }
            .carry(&syn(port)),
            Reason::Truncated,
        ),
        vip(
            "length field far beyond the frame",
            Ip {
                length_error: 60_000,
                ..ip.clone()
            }
            .carry(&syn(port)),
            Reason::Truncated,
        ),
        vip(
            "length field inside the tcp header",
            Ip {
                length_error: -28,
                ..ip.clone()
            }
            .carry(&Tcp::new(CLIENT_PORT, port, flag::SYN).payload(&[7; 16])),
            Reason::Malformed,
        ),
        vip(
            "length field inside the udp header",
            Ip {
                length_error: -23,
                ..ip.clone()
            }
            .carry(&Udp::new(CLIENT_PORT, port, &[7; 22])),
            Reason::Malformed,
        ),
        Case::pass(
            format!("three tags {}", family.name()),
            link.tagged(&[(0x88a8, 1), (0x88a8, 2), (0x8100, VLAN)])
                .carry(&ip.carry(&syn(port))),
            Reason::NotIp,
        ),
    ];
    for (name, group) in [("broadcast", [0xff; 6]), ("multicast", [0x01, 0, 0x5e, 10, 1, 2])] {
        let link = Link {
            destination: group,
            ..link.clone()
        };
        let echo = Icmp::new(if family.is_v6() { 128 } else { 8 }, &[0; 8]);
        for (kind, upper) in [("syn", &syn(port) as &dyn Upper), ("echo", &echo)] {
            let name = format!("{kind} to the vip in an ethernet {name} {}", family.name());
            cases.push(Case::pass(name, link.carry(&ip.carry(upper)), Reason::NotServed));
        }
    }
    let frame = link.carry(&ip.carry(&syn(port)));
    cases.push(Case::pass(
        format!("ethernet header only {}", family.name()),
        frame[..14].to_vec(),
        Reason::Truncated,
    ));
    let tagged = link.tagged(&[(0x8100, VLAN)]).carry(&ip.carry(&syn(port)));
    for (name, length) in [("half a tag", 16), ("a tag and nothing", 18)] {
        cases.push(Case::pass(
            format!("{name} {}", family.name()),
            tagged[..length].to_vec(),
            Reason::Truncated,
        ));
    }
    let mut version = frame;
    version[14] ^= 0x20;
    cases.push(Case::pass(
        format!("version of the other family {}", family.name()),
        version,
        Reason::Malformed,
    ));
    cases
}

/// The cases of IPv4 and of no IP.
pub(super) fn v4() -> Vec<Case> {
    let (ip, link, port) = (to_vip(Family::V4), arriving(), world::LOCAL.port);
    let vip = |name: &str, ip: Ip, reason| Case::pass(format!("{name} v4"), link.carry(&ip.carry(&syn(port))), reason);
    let other = |name: &str, kind: u16| Case::pass(name, link.carry_as(kind, &[0x45; 46]), Reason::NotIp);
    vec![
        other("lldp", 0x88cc),
        other("mpls", 0x8847),
        other("pppoe", 0x8864),
        other("ieee 802.3 length", 0x002e),
        other("loopback", 0x9000),
        vip(
            "first fragment",
            Ip {
                dont_fragment: false,
                fragment: (0, true),
                ..ip.clone()
            },
            Reason::Fragment,
        ),
        vip(
            "middle fragment",
            Ip {
                dont_fragment: false,
                fragment: (185, true),
                ..ip.clone()
            },
            Reason::Fragment,
        ),
        vip(
            "last fragment",
            Ip {
                dont_fragment: false,
                fragment: (0x1fff, false),
                ..ip.clone()
            },
            Reason::Fragment,
        ),
        vip(
            "fragment for a stranger",
            Ip {
                fragment: (0, true),
                ..ip.to(Family::V4.stranger())
            },
            Reason::NotOurs,
        ),
        vip(
            "fragment for the tunnel address",
            Ip {
                fragment: (0, true),
                ..ip.to(Family::V4.tunnel())
            },
            Reason::NotServed,
        ),
        vip(
            "header of 16 bytes",
            Ip {
                first_byte: Some(0x44),
                ..ip.clone()
            },
            Reason::Malformed,
        ),
        vip(
            "header of 0 bytes",
            Ip {
                first_byte: Some(0x40),
                ..ip.clone()
            },
            Reason::Malformed,
        ),
        // 60 bytes of header, 48 bytes of packet.
        vip(
            "header beyond the packet",
            Ip {
                first_byte: Some(0x4f),
                ..ip.clone()
            },
            Reason::Malformed,
        ),
        vip(
            "version 5",
            Ip {
                first_byte: Some(0x55),
                ..ip.clone()
            },
            Reason::Malformed,
        ),
        vip(
            "length field zero",
            Ip {
                length_error: -48,
                ..ip.clone()
            },
            Reason::Malformed,
        ),
        vip(
            "length field below the header",
            Ip {
                length_error: -29,
                ..ip.clone()
            },
            Reason::Malformed,
        ),
        vip(
            "broken header for a stranger",
            Ip {
                first_byte: Some(0x41),
                ..ip.to(Family::V4.stranger())
            },
            Reason::NotOurs,
        ),
        vip("broadcast", ip.to([255, 255, 255, 255].into()), Reason::NotOurs),
        vip("multicast", ip.to([224, 0, 0, 251].into()), Reason::NotOurs),
        vip("to nowhere", ip.to([0, 0, 0, 0].into()), Reason::NotOurs),
    ]
}

/// The cases of IPv6.
pub(super) fn v6() -> Vec<Case> {
    let (ip, link, port) = (to_vip(Family::V6), arriving(), world::LOCAL.port);
    let chain = |name: &str, extensions: Vec<(u8, Vec<u8>)>, reason| {
        let packet = Ip {
            extensions,
            ..ip.clone()
        }
        .carry(&syn(port));
        Case::pass(format!("{name} v6"), link.carry(&packet), reason)
    };
    let fragment = |offset: u16| {
        let [high, low] = offset.to_be_bytes();
        (44, vec![0, high, low, 0, 0, 0, 9])
    };
    // The final destination is not the one in the header, and the checksum is made with it (RFC 8200 §8.1).
    let routing = (43, [&[2, 2, 1, 0, 0, 0, 0][..], &[0x20; 16]].concat());
    let hop_by_hop_only = Ip {
        extensions: vec![extension(0, 0)],
        length_error: -36,
        ..ip.clone()
    };
    let no_next = Ip {
        extensions: vec![extension(60, 0)],
        ..ip.clone()
    }
    .carry(&Raw(59, Vec::new()));
    let destined = |address: [u16; 8]| link.carry(&ip.to(address.into()).carry(&Icmp::new(128, &[0; 4])));
    vec![
        chain(
            "five extension headers",
            vec![extension(60, 0); 5],
            Reason::ExtensionHeaders,
        ),
        chain(
            "eight extension headers",
            vec![extension(60, 0); 8],
            Reason::ExtensionHeaders,
        ),
        chain("first fragment", vec![fragment(1)], Reason::Fragment),
        chain("later fragment", vec![fragment(0x0b91)], Reason::Fragment),
        chain(
            "fragment behind options",
            vec![extension(0, 0), extension(60, 1), fragment(1)],
            Reason::Fragment,
        ),
        chain(
            "routing header to be followed",
            vec![routing.clone()],
            Reason::ExtensionHeaders,
        ),
        chain(
            "routing header behind options",
            vec![extension(0, 0), routing],
            Reason::ExtensionHeaders,
        ),
        chain("mobility header", vec![extension(135, 0)], Reason::NoFrontend),
        chain(
            "extension headers of 520 bytes",
            vec![extension(60, 59)],
            Reason::ExtensionHeaders,
        ),
        chain(
            "extension header of 2 kB",
            vec![extension(60, 255), extension(60, 0)],
            Reason::ExtensionHeaders,
        ),
        chain(
            "extension header beyond the packet",
            vec![(60, vec![200, 1, 4, 0, 0, 0, 0])],
            Reason::Malformed,
        ),
        Case::pass(
            "length field zero v6",
            link.carry(&hop_by_hop_only.carry(&syn(port))),
            Reason::Malformed,
        ),
        Case::pass("no next header v6", link.carry(&no_next), Reason::NoFrontend),
        Case::pass(
            "multicast v6",
            destined([0xff02, 0, 0, 0, 0, 0, 0, 0xfb]),
            Reason::NotOurs,
        ),
        Case::pass("to nowhere v6", destined([0; 8]), Reason::NotOurs),
        // Its 16 bytes are the IPv4 VIP's in the tables.
        Case::pass(
            "ipv4-mapped vip over ipv6",
            link.carry(&ip.to([0, 0, 0, 0, 0, 0xffff, 0x0a0a, 0x0102].into()).carry(&syn(port))),
            Reason::Malformed,
        ),
    ]
}
