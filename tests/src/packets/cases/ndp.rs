//! Neighbour Discovery: valid solicitations for owned VIPs are answered, duplicate address detection included.

use super::{Case, arriving};
use crate::packets::frames::{Icmp, Ip, Link, Mac, advertisement, solicitation};
use crate::packets::world::{Family, NODE_MAC, ROUTER_MAC, VLAN, VLAN_MAC};
use std::net::{IpAddr, Ipv6Addr};
use weir_common::verdict::{Action, Reason};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(_) => unreachable!("asked with Family::V6 only"),
    }
}

fn vip() -> Ipv6Addr {
    v6(Family::V6.vip())
}

/// ff02::1:ffXX:XXXX of an address.
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// The Ethernet group of a multicast address (RFC 2464 §7).
fn group(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

fn to_group(tags: &[(u16, u16)]) -> Link {
    Link::between(ROUTER_MAC, group(solicited_node(vip()))).tagged(tags)
}

fn hop_255(source: Ipv6Addr, destination: Ipv6Addr) -> Ip {
    Ip {
        ttl: 255,
        ..Ip::between(source.into(), destination.into())
    }
}

/// From the router to the VIP's solicited-node group.
fn asked() -> Ip {
    hop_255(ROUTER, solicited_node(vip()))
}

/// A prober, which has no address yet, to the VIP's solicited-node group.
fn probed() -> Ip {
    asked().from(Ipv6Addr::UNSPECIFIED.into())
}

fn answered(name: &str, link: &Link, packet: &Ip, message: &Icmp, mac: Mac) -> Case {
    let back = Link {
        destination: link.source,
        source: mac,
        tags: link.tags.clone(),
    };
    let reply = hop_255(vip(), v6(packet.source)).carry(&advertisement(vip(), mac, true));
    let frame = link.carry(&packet.carry(message));
    Case::ingress(
        name,
        frame,
        Action::Transmit,
        Reason::NeighborAdvertisement,
        back.carry(&reply),
    )
}

fn defended(name: &str, message: &Icmp) -> Case {
    let back = Link::between(NODE_MAC, group(ALL_NODES));
    let reply = hop_255(vip(), ALL_NODES).carry(&advertisement(vip(), NODE_MAC, false));
    let frame = to_group(&[]).carry(&probed().carry(message));
    Case::ingress(
        name,
        frame,
        Action::Transmit,
        Reason::NeighborAdvertisement,
        back.carry(&reply),
    )
}

fn invalid(name: &str, packet: &Ip, message: &Icmp) -> Case {
    Case::pass(
        name,
        to_group(&[]).carry(&packet.carry(message)),
        Reason::NeighborInvalid,
    )
}

/// A solicitation for the VIP with these bytes as options.
fn with_options(options: &[u8]) -> Icmp {
    let mut message = solicitation(vip(), None);
    message.body.extend(options);
    message
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = valid();
    cases.extend(rejected());
    cases.extend(not_ours());
    cases
}

fn valid() -> Vec<Case> {
    let usual = solicitation(vip(), Some(ROUTER_MAC));
    let bare = solicitation(vip(), None);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let [a, b, c, d, e, f] = ROUTER_MAC;
    let both = [&[1, 1, a, b, c, d, e, f], &nonce[..]].concat();
    let long_option = [&[14, 2][..], &[7; 14]].concat();
    let mut padded = answered("ns, padded", &to_group(&[]), &asked(), &usual, NODE_MAC);
    padded.frame.extend([0x5a; 6]);
    vec![
        answered("ns", &to_group(&[]), &asked(), &usual, NODE_MAC),
        answered(
            "ns on the vlan",
            &to_group(&[(0x8100, VLAN)]),
            &asked(),
            &usual,
            VLAN_MAC,
        ),
        answered(
            "ns, priority tag",
            &to_group(&[(0x8100, 0xe000)]),
            &asked(),
            &usual,
            NODE_MAC,
        ),
        answered("ns, unicast", &arriving(), &hop_255(ROUTER, vip()), &usual, NODE_MAC),
        answered(
            "ns, unicast, no option",
            &arriving(),
            &hop_255(ROUTER, vip()),
            &bare,
            NODE_MAC,
        ),
        answered("ns, no option", &to_group(&[]), &asked(), &bare, NODE_MAC),
        answered(
            "ns, two options",
            &to_group(&[]),
            &asked(),
            &with_options(&both),
            NODE_MAC,
        ),
        answered(
            "ns, a long option",
            &to_group(&[]),
            &asked(),
            &with_options(&long_option),
            NODE_MAC,
        ),
        answered(
            "ns, traffic class and flow label",
            &to_group(&[]),
            &Ip {
                tos: 0xc3,
                flow_label: 0xabcde,
                ..asked()
            },
            &usual,
            NODE_MAC,
        ),
        padded,
        defended("ns, duplicate address detection", &bare),
        defended("ns, duplicate address detection with a nonce", &with_options(&nonce)),
    ]
}

fn rejected() -> Vec<Case> {
    let usual = solicitation(vip(), Some(ROUTER_MAC));
    let bare = solicitation(vip(), None);
    let link = to_group(&[]);
    let mut version = link.carry(&asked().carry(&usual));
    version[14] = 0x40;
    let mut short = link.carry(&asked().carry(&bare));
    short.pop();
    // The length field ends before the message does, the frame does not.
    let lying = Ip {
        length_error: -8,
        ..asked()
    };
    vec![
        invalid("ns, hop limit 254", &Ip { ttl: 254, ..asked() }, &usual),
        invalid("ns, hop limit 64", &Ip { ttl: 64, ..asked() }, &usual),
        invalid(
            "ns, wrong checksum",
            &asked(),
            &Icmp {
                checksum_error: 1,
                ..usual.clone()
            },
        ),
        invalid(
            "ns, code 1",
            &asked(),
            &Icmp {
                code: 1,
                ..usual.clone()
            },
        ),
        invalid(
            "ns, option of length zero",
            &asked(),
            &with_options(&[14, 0, 0, 0, 0, 0, 0, 0]),
        ),
        invalid(
            "ns, option beyond the end",
            &asked(),
            &with_options(&[14, 2, 0, 0, 0, 0, 0, 0]),
        ),
        invalid("ns, half an option", &asked(), &with_options(&[14, 1, 0, 0])),
        invalid("ns, length field too small", &lying, &usual),
        invalid(
            "ns, length field below the message",
            &Ip {
                length_error: -8,
                ..asked()
            },
            &bare,
        ),
        invalid("ns, probe with a source mac", &probed(), &usual),
        invalid(
            "ns, probe to the vip itself",
            &hop_255(Ipv6Addr::UNSPECIFIED, vip()),
            &bare,
        ),
        invalid(
            "ns, probe to all nodes",
            &hop_255(Ipv6Addr::UNSPECIFIED, ALL_NODES),
            &bare,
        ),
        Case::pass("ns of ip version 4", version, Reason::NeighborInvalid),
        Case::pass("ns, cut short", short, Reason::Truncated),
    ]
}

fn not_ours() -> Vec<Case> {
    let link = to_group(&[]);
    let passed = |name: &str, link: &Link, target: Ipv6Addr| {
        let packet = hop_255(ROUTER, solicited_node(target));
        let message = solicitation(target, Some(ROUTER_MAC));
        Case::pass(name, link.carry(&packet.carry(&message)), Reason::NeighborNotOurs)
    };
    let to_all = hop_255(ROUTER, ALL_NODES);
    vec![
        passed("ns for a stranger", &link, v6(Family::V6.stranger())),
        passed("ns for a vip owned elsewhere", &link, v6(Family::V6.vip_elsewhere())),
        // Its 16 bytes are the IPv4 VIP's in the tables.
        passed(
            "ns for an ipv4-mapped vip",
            &link,
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a0a, 0x0102),
        ),
        passed("ns for the tunnel address", &link, v6(Family::V6.tunnel())),
        passed("ns on another vlan", &to_group(&[(0x8100, VLAN + 1)]), vip()),
        passed("ns, two tags", &to_group(&[(0x88a8, VLAN), (0x8100, 7)]), vip()),
        // Somebody else says the VIP is theirs: nothing to answer, user space notices.
        Case::pass(
            "na of the vip by another",
            link.carry(&to_all.carry(&advertisement(vip(), ROUTER_MAC, false))),
            Reason::NotOurs,
        ),
        Case::pass(
            "router advertisement",
            link.carry(&to_all.carry(&Icmp::new(134, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]))),
            Reason::NotOurs,
        ),
        Case::pass(
            "ns behind an extension header",
            link.carry(
                &Ip {
                    extensions: vec![(60, vec![0, 1, 4, 0, 0, 0, 0])],
                    ..asked()
                }
                .carry(&solicitation(vip(), Some(ROUTER_MAC))),
            ),
            Reason::NotOurs,
        ),
    ]
}
