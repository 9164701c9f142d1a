//! The world as tables.

use super::{
    FRONTENDS, Family, INTERFACE, MSS, NODE_MAC, OTHER_INTERFACE, OTHER_MAC, PASTS, POLICIES, Policy, Protocol, SECOND,
    SELECTION_SEED, SPREAD, SPREAD_PORT, SYN_MSS, Source, TUNNEL_PORT, Target, VLAN, VLAN_MAC, address, frontend_id,
};
use crate::packets::image::Image;
use weir_common::abi::{
    self, BACKEND_DRAINING, BACKEND_LOCAL, Backend, Config, DirectoryEntry, Node, Past, Responder, ResponderKey, Row,
    SourcePrefix, kind, policy, source,
};

/// The tables of this world.
#[must_use]
pub fn image() -> Image {
    let mut image = Image::new(Config {
        selection_seed: SELECTION_SEED,
        flow_seed: 0x5eed_0002,
        flow_mask: Image::FLOW_BUCKETS - 1,
        cache_mask: Image::CACHE_BUCKETS - 1,
        half_open_ticks: 1_000,
        established_ticks: 100_000,
        udp_ticks: 10_000,
        closed_ticks: 100,
        tunnel_port: TUNNEL_PORT.to_be_bytes(),
        mss_v4: MSS[0],
        mss_v6: MSS[1],
        syn_mss_v4: SYN_MSS,
        syn_mss_v6: SYN_MSS,
        second: SECOND,
        answer_interval: SECOND,
        fragment_ticks: 500,
        reserved: [0; 2],
    });
    for family in Family::BOTH {
        add_nodes(&mut image, family);
        add_responders(&mut image, family);
        for vip in [family.vip(), family.vip_elsewhere()] {
            image.add(
                address(vip),
                0,
                abi::protocol::ANY,
                kind::VIP,
                0,
                abi::RowRange::default(),
            );
        }
        image.add(
            address(family.tunnel()),
            TUNNEL_PORT,
            17,
            kind::TUNNEL,
            0,
            abi::RowRange::default(),
        );
        for protocol in Protocol::BOTH {
            add_backends(&mut image, family, protocol);
            add_frontends(&mut image, family, protocol);
        }
    }
    image.place();
    image
}

fn add_nodes(image: &mut Image, family: Family) {
    for target in Target::ALL {
        if target.is_local() || target == Target::Crossed {
            continue;
        }
        let id = target.node_id(family);
        let link = target.link(family);
        let node = Node {
            address: address(target.node(family)),
            source: address(family.tunnel()),
            destination_mac: link.destination,
            source_mac: link.source,
            ifindex: match target {
                Target::Unreachable => 0,
                Target::Far => OTHER_INTERFACE,
                _ => INTERFACE,
            },
            vlan: link.tags.first().map_or([0; 2], |(_, control)| control.to_be_bytes()),
            mtu: target.mtu(),
            reserved: [0; 12],
        };
        image.nodes[id as usize] = node;
        image.add(
            node.address,
            0,
            abi::protocol::ANY,
            kind::PEER,
            id,
            abi::RowRange::default(),
        );
    }
}

fn add_responders(image: &mut Image, family: Family) {
    for (vip, ifindex, vlan, mac) in [
        (family.vip(), INTERFACE, 0, NODE_MAC),
        (family.vip(), INTERFACE, VLAN, VLAN_MAC),
        (family.vip_elsewhere(), OTHER_INTERFACE, 0, OTHER_MAC),
    ] {
        let key = ResponderKey {
            address: address(vip),
            ifindex,
            vlan: vlan.to_be_bytes(),
            reserved: [0; 2],
        };
        image.responders.insert(key, Responder { mac, reserved: [0; 2] });
    }
}

fn add_backends(image: &mut Image, family: Family, protocol: Protocol) {
    for target in Target::ALL {
        let id = target.id(family, protocol);
        let at = target.backend(family, protocol);
        image.backends[id as usize] = Backend {
            address: address(at.ip()),
            port: at.port().to_be_bytes(),
            protocol: protocol.number(),
            flags: match target {
                Target::Local | Target::Neighbor => BACKEND_LOCAL,
                Target::Older => BACKEND_DRAINING,
                _ => 0,
            },
            node: target.node_id(family),
            reserved: [0; 8],
        };
        if target.is_local() {
            image.add(
                address(at.ip()),
                at.port(),
                protocol.number(),
                kind::BACKEND,
                id,
                abi::RowRange::default(),
            );
        }
    }
}

fn add_frontends(image: &mut Image, family: Family, protocol: Protocol) {
    let id = |target: Option<Target>| target.map_or(0, |target| target.id(family, protocol));
    let vip = address(family.vip());
    for (index, frontend) in FRONTENDS.iter().enumerate() {
        let row = Row {
            current: id(frontend.current),
            previous: id(frontend.previous),
        };
        let mut past = Past::default();
        let owners = PASTS.iter().filter(|(port, _)| *port == frontend.port);
        for (owner, target) in past.owners.iter_mut().zip(owners.flat_map(|(_, targets)| *targets)) {
            *owner = id(Some(*target));
        }
        let rows = image.append_rows(&[row], past);
        let number = frontend_id(index, family, protocol);
        let entry = image.add(vip, frontend.port, protocol.number(), kind::FRONTEND, number, rows);
        let policies = POLICIES.iter().filter(|(port, _)| *port == frontend.port);
        let sources: Vec<_> = policies
            .flat_map(|(_, policy)| add_policy(entry, *policy, family))
            .collect();
        image.sources.extend(sources);
    }
    let rows = SPREAD.map(|target| Row {
        current: id(Some(target)),
        previous: 0,
    });
    let rows = image.append_rows(&rows, Past::default());
    let number = frontend_id(FRONTENDS.len(), family, protocol);
    image.add(vip, SPREAD_PORT, protocol.number(), kind::FRONTEND, number, rows);
}

/// Gives a frontend a policy; the result goes into `SOURCES`.
fn add_policy(entry: &mut DirectoryEntry, policy: Policy, family: Family) -> Vec<((u32, SourcePrefix), u32)> {
    let listed = |source: Source| match source {
        Source::Client | Source::AllButClient => family.client(),
        Source::Stranger => family.stranger(),
    };
    let frontend = entry.id.to_be_bytes();
    let prefix = |ip: std::net::IpAddr, bits: u32| {
        let mut address = address(ip).octets;
        // The networks used here end at whole bytes.
        address[bits as usize / 8..].fill(0);
        (32 + bits, SourcePrefix { frontend, address })
    };
    let (network, host) = (120 - if family.is_v6() { 56 } else { 0 }, 128);
    match policy {
        Policy::Affinity(ticks) => {
            entry.policies |= policy::AFFINITY;
            entry.affinity_ticks = ticks;
        }
        Policy::Allow(source) => {
            entry.policies |= policy::SOURCES | policy::ALLOW_LISTED;
            let mut sources = vec![(prefix(listed(source), network), source::ALLOWED)];
            if source == Source::AllButClient {
                sources.push((prefix(family.client(), host), source::DENIED));
            }
            return sources;
        }
        Policy::Deny(source) => {
            entry.policies |= policy::SOURCES;
            return vec![(prefix(listed(source), host), source::DENIED)];
        }
        Policy::Flows => entry.flow_interval = SECOND,
        Policy::Packets => entry.packet_interval = SECOND,
        Policy::SourceFlows => entry.source_flow_interval = SECOND,
        Policy::SourcePackets => entry.source_packet_interval = SECOND,
        Policy::StackFlows => {
            entry.policies |= policy::STACK_FLOWS;
            return Vec::new();
        }
        Policy::Standby => {
            entry.policies |= policy::STANDBY;
            return Vec::new();
        }
    }
    if !matches!(policy, Policy::Affinity(_)) {
        entry.policies |= policy::LIMITED;
    }
    Vec::new()
}
