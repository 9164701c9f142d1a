//! ARP: requests for owned VIPs are answered on the interface and VLAN they are owned on; everything else is passed.

use super::{Case, arriving};
use crate::packets::frames::{Arp, Link, Mac};
use crate::packets::world::{Family, NODE_MAC, ROUTER_MAC, VLAN, VLAN_MAC};
use std::net::{IpAddr, Ipv4Addr};
use weir_common::verdict::{Action, Reason};

const ARP: u16 = 0x0806;
const BROADCAST: Mac = [0xff; 6];
const ASKER: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => unreachable!("asked with Family::V4 only"),
    }
}

fn broadcast() -> Link {
    Link::between(ROUTER_MAC, BROADCAST)
}

fn request() -> Arp {
    Arp::request(ROUTER_MAC, ASKER, v4(Family::V4.vip()))
}

fn answered(name: &str, link: &Link, arp: &Arp, mac: Mac) -> Case {
    answered_padded(name, link, arp, mac, 0)
}

fn answered_padded(name: &str, link: &Link, arp: &Arp, mac: Mac, padding: usize) -> Case {
    let padded = |mut frame: Vec<u8>| {
        frame.extend(vec![0x5a; padding]);
        frame
    };
    let back = Link {
        destination: arp.sender_mac,
        source: mac,
        tags: link.tags.clone(),
    };
    let reply = padded(back.carry_as(ARP, &arp.reply(mac).bytes()));
    let frame = padded(link.carry_as(ARP, &arp.bytes()));
    Case::ingress(name, frame, Action::Transmit, Reason::ArpReply, reply)
}

fn passed(name: &str, link: &Link, arp: &Arp) -> Case {
    Case::pass(name, link.carry_as(ARP, &arp.bytes()), Reason::ArpNotOurs)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let request = request();
    let probe = Arp {
        sender: Ipv4Addr::UNSPECIFIED,
        ..request.clone()
    };
    let announcement = Arp {
        sender: request.target,
        ..request.clone()
    };
    let mut short = broadcast().carry_as(ARP, &request.bytes());
    short.pop();
    let other_mac = [0x02, 9, 9, 9, 9, 9];
    let vlan = |tags: &[(u16, u16)]| broadcast().tagged(tags);
    vec![
        answered("arp request", &broadcast(), &request, NODE_MAC),
        answered_padded("arp request, padded", &broadcast(), &request, NODE_MAC, 18),
        answered("arp request, unicast", &arriving(), &request, NODE_MAC),
        answered(
            "arp request behind a bridge",
            &Link::between(other_mac, BROADCAST),
            &request,
            NODE_MAC,
        ),
        answered("arp probe", &broadcast(), &probe, NODE_MAC),
        answered("arp request on the vlan", &vlan(&[(0x8100, VLAN)]), &request, VLAN_MAC),
        answered(
            "arp request on the vlan, with priority",
            &vlan(&[(0x8100, 0xe000 | VLAN)]),
            &request,
            VLAN_MAC,
        ),
        answered(
            "arp request on the service vlan",
            &vlan(&[(0x88a8, VLAN)]),
            &request,
            VLAN_MAC,
        ),
        answered(
            "arp request, priority tag",
            &vlan(&[(0x8100, 0xa000)]),
            &request,
            NODE_MAC,
        ),
        passed("arp request on another vlan", &vlan(&[(0x8100, VLAN + 1)]), &request),
        // Two tags are another segment than either of them alone, and no responder is for one.
        passed("arp request, two tags", &vlan(&[(0x88a8, VLAN), (0x8100, 7)]), &request),
        passed(
            "arp request, two tags, the inner one ours",
            &vlan(&[(0x88a8, 7), (0x8100, VLAN)]),
            &request,
        ),
        passed(
            "arp request for a stranger",
            &broadcast(),
            &Arp {
                target: v4(Family::V4.stranger()),
                ..request.clone()
            },
        ),
        passed(
            "arp request for a vip owned elsewhere",
            &broadcast(),
            &Arp {
                target: v4(Family::V4.vip_elsewhere()),
                ..request.clone()
            },
        ),
        passed(
            "arp request for the tunnel address",
            &broadcast(),
            &Arp {
                target: v4(Family::V4.tunnel()),
                ..request.clone()
            },
        ),
        passed("arp announcement of the vip by another", &broadcast(), &announcement),
        passed(
            "arp announcement as a reply",
            &broadcast(),
            &Arp {
                operation: 2,
                ..announcement.clone()
            },
        ),
        passed(
            "arp reply",
            &broadcast(),
            &Arp {
                operation: 2,
                ..request.clone()
            },
        ),
        passed(
            "reverse arp",
            &broadcast(),
            &Arp {
                operation: 3,
                ..request.clone()
            },
        ),
        passed(
            "arp of operation 256",
            &broadcast(),
            &Arp {
                operation: 0x0100,
                ..request.clone()
            },
        ),
        passed(
            "arp, hardware address of 8",
            &broadcast(),
            &Arp {
                hardware_length: 8,
                ..request.clone()
            },
        ),
        passed(
            "arp, protocol address of 16",
            &broadcast(),
            &Arp {
                protocol_length: 16,
                ..request.clone()
            },
        ),
        passed(
            "arp over infiniband",
            &broadcast(),
            &Arp {
                hardware: 32,
                ..request.clone()
            },
        ),
        passed(
            "arp for ipv6",
            &broadcast(),
            &Arp {
                protocol: 0x86dd,
                ..request
            },
        ),
        Case::pass("arp, cut short", short, Reason::Truncated),
    ]
}
