//! A small universe of VIPs, pods and nodes, and random plans over it. Ports are chosen so that many keys meet in few
//! displacement buckets.

use crate::{
    links::{Interface, Links, NextHop},
    model::{Mode, Protocol, ServiceKey},
    plan::{BackendKey, Draining, Frontend, FrontendKey, Limits, Plan, Policy, Sources, Vip},
    tables::key::Key,
};
use ipnet::IpNet;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock},
};
use weir_common::hash;

pub const NODES: [&str; 3] = ["node-b", "node-c", "node-d"];
pub const THIS: &str = "node-a";
/// What is served over UDP has TCP's pods: tables do not ask.
const VIPS: [(&str, Protocol); 3] = [
    ("10.1.0.1", Protocol::Tcp),
    ("10.1.0.2", Protocol::Udp),
    ("fd00::1", Protocol::Tcp),
];

pub fn node_address(name: &str) -> IpAddr {
    let last = name.as_bytes().last().copied().unwrap_or_default();
    IpAddr::from([192, 168, 0, last])
}

/// Ports of an address that fall into the first two displacement buckets.
fn crowded(address: IpAddr, protocol: u8) -> Vec<u16> {
    let fits = |port: &u16| hash::displacement_index(Key::socket(address, *port, protocol).hash()) < 2;
    (1..u16::MAX).filter(fits).take(8).collect()
}

pub fn frontends() -> Vec<FrontendKey> {
    static FRONTENDS: LazyLock<Vec<FrontendKey>> = LazyLock::new(all_frontends);
    FRONTENDS.clone()
}

fn all_frontends() -> Vec<FrontendKey> {
    let of = |(vip, protocol): (&str, Protocol)| {
        let address: IpAddr = vip.parse().unwrap();
        let number = if protocol == Protocol::Tcp { 6 } else { 17 };
        let ports = crowded(address, number).into_iter();
        ports.map(move |port| FrontendKey {
            address,
            port,
            protocol,
        })
    };
    VIPS.into_iter().flat_map(of).collect()
}

/// Pod `index`, on node `node` (0 is this one).
pub fn backend(index: usize, node: usize) -> BackendKey {
    let address = IpAddr::from([10, 244, 0, index as u8 + 1]);
    static PORTS: LazyLock<Vec<u16>> = LazyLock::new(|| {
        let addresses = (0..PODS).map(|index| IpAddr::from([10, 244, 0, index as u8 + 1]));
        addresses.map(|address| crowded(address, 6)[0]).collect()
    });
    let port = PORTS[index];
    let node_name = if node == 0 { THIS } else { NODES[node - 1] };
    BackendKey {
        address,
        port,
        protocol: Protocol::Tcp,
        node: node_name.into(),
        local: node == 0,
    }
}

pub const PODS: usize = 14;

/// A random plan: each frontend there or not, some pods serving and some draining, pods on random nodes.
pub fn plan() -> impl Strategy<Value = Plan> {
    let pods = proptest::collection::vec(
        prop_oneof![6 => Just(0_usize), 6 => Just(1), 6 => Just(2), 1 => Just(3)],
        PODS,
    );
    let members = proptest::collection::vec((0..PODS, 0..6_u32), 0..PODS);
    let frontend = proptest::option::weighted(0.7, (members, policy()));
    let frontends = proptest::collection::vec(frontend, 24);
    let nodes = proptest::collection::vec(proptest::bool::weighted(0.85), NODES.len());
    (pods, frontends, nodes).prop_map(|(pods, wanted, nodes)| {
        let mut plan = Plan {
            tunnel_address: Some(node_address(THIS)),
            ..Plan::default()
        };
        for (name, _) in NODES.iter().zip(nodes).filter(|(_, there)| *there) {
            plan.nodes.insert((*name).into(), node_address(name));
        }
        for (key, (wanted, policy)) in frontends_of(wanted) {
            let mut frontend = empty_frontend(&key);
            frontend.policy = Policy {
                sources: of_family(policy.sources, key.address),
                ..policy
            };
            for (pod, weight) in wanted {
                let backend = backend(pod, pods[pod]);
                let draining = [Draining::Serving, Draining::NotServing].get(weight as usize);
                match draining {
                    Some(draining) if !frontend.backends.contains_key(&backend) => {
                        frontend.draining.insert(backend, *draining);
                    }
                    None if !frontend.draining.contains_key(&backend) => {
                        frontend.backends.insert(backend, weight - 1);
                    }
                    _ => {}
                }
            }
            add_frontend(&mut plan, key, frontend);
        }
        plan
    })
}

/// Pods with weights and one (0 is draining, 1 not serving), and policies.
type Choice = (Vec<(usize, u32)>, Policy);

/// Addresses that the prefixes of [`policy`] tell apart.
pub fn sources(family: IpAddr) -> impl Iterator<Item = IpAddr> {
    (0..=u8::MAX)
        .step_by(16)
        .chain([254])
        .map(move |last| source(family, last))
}

fn source(family: IpAddr, last: u8) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, last).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

/// Random policies; the prefixes are of IPv4.
fn policy() -> impl Strategy<Value = Policy> {
    let prefix = (any::<u8>(), 24_u8..=30);
    let prefix = prefix.prop_map(|(last, length)| {
        let address = source(Ipv4Addr::UNSPECIFIED.into(), last);
        IpNet::new(address, length).unwrap().trunc()
    });
    let prefixes = proptest::collection::btree_set(prefix, 0..4);
    let sources = (proptest::option::weighted(0.5, prefixes.clone()), prefixes);
    let sources = sources.prop_map(|(allowed, denied)| Sources { allowed, denied });
    let rates = proptest::option::of(1_u32..5);
    (proptest::option::of(1_u32..3), proptest::option::of(sources), rates).prop_map(
        |(affinity_seconds, sources, rate)| Policy {
            affinity_seconds,
            sources: sources.unwrap_or_default(),
            limits: Limits {
                flows: rate,
                source_packets: rate.filter(|rate| rate % 2 == 0),
                ..Limits::default()
            },
        },
    )
}

/// The same for the family of `vip`. No prefix is both allowed and denied.
fn of_family(sources: Sources, vip: IpAddr) -> Sources {
    let turn = |prefix: &IpNet| {
        let length = prefix.max_prefix_len() - prefix.prefix_len();
        let last = match prefix.addr() {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        let address = source(vip, last);
        IpNet::new(address, if vip.is_ipv4() { 32 } else { 128 } - length).unwrap()
    };
    let allowed: Option<BTreeSet<IpNet>> = sources.allowed.map(|set| set.iter().map(turn).collect());
    let mut denied: BTreeSet<IpNet> = sources.denied.iter().map(turn).collect();
    denied.retain(|prefix| !allowed.iter().any(|set| set.contains(prefix)));
    Sources { allowed, denied }
}

/// What the longest prefix says, which is what the kernel asks.
pub fn admits(sources: &Sources, source: IpAddr) -> bool {
    let longest = |set: &BTreeSet<IpNet>| {
        let matching = set.iter().filter(|prefix| prefix.contains(&source));
        matching.map(|prefix| prefix.prefix_len()).max()
    };
    match (&sources.allowed, longest(&sources.denied)) {
        (None, denied) => denied.is_none(),
        (Some(allowed), denied) => longest(allowed) > denied,
    }
}

fn frontends_of(wanted: Vec<Option<Choice>>) -> Vec<(FrontendKey, Choice)> {
    frontends()
        .into_iter()
        .zip(wanted)
        .filter_map(|(key, choice)| Some((key, choice?)))
        .collect()
}

pub fn empty_frontend(key: &FrontendKey) -> Frontend {
    let service = ServiceKey {
        namespace: "default".into(),
        name: format!("service-{}", key.port),
    };
    Frontend {
        service,
        port_name: String::new(),
        policy: Default::default(),
        backends: BTreeMap::new(),
        draining: Default::default(),
    }
}

/// The backends that any frontend has as serving, for new flows or their own.
pub fn answering(plan: &Plan) -> BTreeSet<Key> {
    let of = |frontend: &Arc<Frontend>| -> Vec<Key> {
        let draining = frontend
            .draining
            .iter()
            .filter(|(_, draining)| **draining == Draining::Serving);
        let all = frontend.backends.keys().chain(draining.map(|(backend, _)| backend));
        all.map(Key::from).collect()
    };
    plan.frontends.values().flat_map(of).collect()
}

/// Adds a frontend and its VIP, owned by this node.
pub fn add_frontend(plan: &mut Plan, key: FrontendKey, frontend: Frontend) {
    let vip = Vip {
        eip: "pool".into(),
        mode: Mode::Layer2,
        interface: Some("eth0".into()),
        owner: Some(THIS.into()),
        owned: true,
    };
    plan.vips.insert(key.address, vip.into());
    plan.frontends.insert(key, frontend.into());
}

pub fn links() -> Links {
    let hop = |name: &&str| {
        let source_mac = [2, 0, 0, 0, 0, 1];
        let source = node_address(THIS);
        let hop = NextHop {
            ifindex: 7,
            vlan: 0,
            destination_mac: [2; 6],
            source_mac,
            source,
            mtu: 1500,
        };
        (node_address(name), hop)
    };
    let eth0 = Interface {
        ifindex: 7,
        vlan: 0x123,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        slaves: BTreeSet::new(),
    };
    Links {
        interfaces: [("eth0".into(), eth0)].into(),
        taken: [7].into(),
        next_hops: NODES[..2].iter().map(hop).collect(),
    }
}
