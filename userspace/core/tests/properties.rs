//! What holds of every plan, whatever the cluster.

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};
use weir_core::{
    SharedMap,
    model::{
        Automatic, Cluster, Condition, Eip, Endpoint, EndpointPort, EndpointSlice, Family, FamilyPolicy, Mode, Node,
        ObjectRef, PortProtocol, Protocol, Service, ServiceKey, ServicePort, TrafficPolicy, reason,
    },
    plan::{BackendKey, Frontend, FrontendKey, Memo, Plan, ThisNode, Vip, plan},
};

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
/// Ranges that overlap now and then, are too small now and then, or are no ranges.
const RANGES: [&str; 8] = [
    "10.1.0.0/30",
    "10.1.0.2-10.1.0.9",
    "10.2.0.1",
    "10.2.0.0/29",
    "fd00::/126",
    "fd00::2-fd00::5",
    "fd01::/64",
    "ten",
];
const ADDRESSES: [&str; 6] = [
    "10.1.0.1",
    "10.1.0.3",
    "10.2.0.1",
    "fd00::2",
    "10.9.9.9",
    "10.1.0.1,fd00::2",
];

fn eips() -> impl Strategy<Value = BTreeMap<String, Eip>> {
    let eip = (
        select(&RANGES[..]),
        any::<bool>(),
        any::<bool>(),
        0_i64..3,
        option::of(0_i64..3),
        any::<bool>(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(address, default, bound, priority, created, bgp, left_to_cni)| {
            let annotation = (
                "eip.openelb.kubesphere.io/is-default-eip".to_owned(),
                default.to_string(),
            );
            Eip {
                created,
                annotations: [annotation].into(),
                address: address.into(),
                mode: if bgp { Mode::Bgp } else { Mode::Layer2 },
                interface: Some("eth0".into()),
                left_to_cni,
                priority,
                namespaces: if bound {
                    ["apps".to_owned()].into()
                } else {
                    BTreeSet::new()
                },
                ..Eip::default()
            }
        });
    vec(eip, 0..5).prop_map(|eips| {
        eips.into_iter()
            .enumerate()
            .map(|(index, eip)| (format!("eip-{index}"), eip))
            .collect()
    })
}

fn ports() -> impl Strategy<Value = Vec<u16>> {
    vec(80_u16..82, 1..3)
}

fn service() -> impl Strategy<Value = Service> {
    let families = select(vec![
        vec![],
        vec![Family::V4],
        vec![Family::V6],
        vec![Family::V4, Family::V6],
    ]);
    let policy = select(vec![
        FamilyPolicy::SingleStack,
        FamilyPolicy::PreferDualStack,
        FamilyPolicy::RequireDualStack,
    ]);
    let address = option::of(select(&ADDRESSES[..]));
    (
        address,
        option::of(0..5),
        families,
        policy,
        ports(),
        any::<bool>(),
        option::of(0_i64..3),
    )
        .prop_map(|(address, eip, families, family_policy, ports, local, created)| {
            let mut annotations = BTreeMap::from([("lb.kubesphere.io/v1alpha1".to_owned(), "openelb".to_owned())]);
            if let Some(address) = address {
                annotations.insert("eip.openelb.kubesphere.io/v1alpha1".into(), address.into());
            }
            if let Some(eip) = eip.filter(|eip| *eip < 2) {
                annotations.insert("eip.openelb.kubesphere.io/v1alpha2".into(), format!("eip-{eip}"));
            }
            let port = |port: &u16| ServicePort {
                name: format!("p{port}"),
                protocol: PortProtocol::Served(Protocol::Tcp),
                port: *port,
            };
            Service {
                created,
                annotations,
                load_balancer: true,
                families,
                family_policy,
                ports: ports.iter().map(port).collect(),
                health_check_port: local.then(|| 31_000 + created.map_or(0, |created| created as u16)),
                traffic_policy: if local {
                    TrafficPolicy::Local
                } else {
                    TrafficPolicy::Cluster
                },
                ..Service::default()
            }
        })
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let address = prop_oneof![
        (1_u8..6).prop_map(|last| IpAddr::from([10, 244, 0, last])),
        (1_u16..6).prop_map(|last| IpAddr::from([0xfd44, 0, 0, 0, 0, 0, 0, last])),
    ];
    let node = prop_oneof![
        12 => select(NODES.to_vec()).prop_map(Some),
        1 => Just(Some("node-x")),
        1 => Just(None),
    ];
    // Most are ready: what is asked of pods is asked of several at a time.
    let states = [0.7, 0.5, 0.3].map(prop::bool::weighted);
    let endpoint = (address, node, states).prop_map(|(address, node, [ready, serving, terminating])| Endpoint {
        address,
        node: node.map(str::to_owned),
        ready,
        serving,
        terminating,
    });
    (vec(endpoint, 0..8), ports()).prop_map(|(endpoints, ports)| {
        let port = |port: &u16| EndpointPort {
            name: format!("p{port}"),
            protocol: PortProtocol::Served(Protocol::Tcp),
            port: 8000 + port,
        };
        EndpointSlice {
            ports: ports.iter().map(port).collect(),
            endpoints,
            ..EndpointSlice::default()
        }
    })
}

fn node(index: u8) -> impl Strategy<Value = Node> {
    (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.9),
    )
        .prop_map(move |(ready, excluded, addressed)| Node {
            internal_addresses: if addressed {
                vec![IpAddr::from([10, 0, 0, index])]
            } else {
                Vec::new()
            },
            excluded,
            ready,
        })
}

fn tunnels() -> impl Strategy<Value = Option<Arc<BTreeSet<String>>>> {
    let taking = subsequence(NODES.to_vec(), 0..=NODES.len());
    option::of(taking.prop_map(|nodes| Arc::new(nodes.into_iter().map(str::to_owned).collect())))
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let addresses = vec(select(vec!["10.1.0.1", "10.1.0.2", "10.2.0.1", "fd00::3"]), 0..3);
    let one = (service(), vec(slice(), 0..4), addresses);
    (eips(), vec(one, 0..7), (node(1), node(2), node(3)), tunnels()).prop_map(|(eips, services, (a, b, c), tunnels)| {
        let mut cluster = Cluster {
            eips,
            tunnels,
            ..Cluster::default()
        };
        for (index, (service, slices, previous)) in services.into_iter().enumerate() {
            let key = ServiceKey {
                namespace: "apps".into(),
                name: format!("svc-{index}"),
            };
            let slices = slices
                .into_iter()
                .enumerate()
                .map(|(index, slice)| (format!("slice-{index}"), slice.into()));
            cluster.endpoint_slices.insert(key.clone(), slices.collect());
            Arc::make_mut(&mut cluster.previous)
                .insert(key.clone(), previous.iter().map(|text| text.parse().unwrap()).collect());
            cluster.services.insert(key, service.into());
        }
        cluster.nodes = NODES.into_iter().map(str::to_owned).zip([a, b, c]).collect();
        cluster
    })
}

fn planned(cluster: &Cluster, node: &str) -> Plan {
    plan(cluster, &ThisNode { name: node.into() })
}

/// A plan without what depends on the node that made it.
fn shared(mut plan: Plan, cluster: &Cluster) -> Plan {
    plan.tunnel_address = None;
    plan.nodes.clear();
    plan.interfaces.clear();
    for check in plan.health_checks.values_mut() {
        check.endpoints = 0;
    }
    let unowned = |(address, mut vip): (IpAddr, Arc<Vip>)| {
        Arc::make_mut(&mut vip).owned = false;
        (address, vip)
    };
    plan.vips = plan.vips.into_iter().map(unowned).collect();
    let strip = |mut key: BackendKey| {
        key.local = false;
        key
    };
    let stripped = |(name, mut held): (FrontendKey, Arc<Frontend>)| {
        let frontend = Arc::make_mut(&mut held);
        let (backends, draining) = (mem::take(&mut frontend.backends), mem::take(&mut frontend.draining));
        if cluster.services[&frontend.service].traffic_policy != TrafficPolicy::Local {
            frontend.backends = backends.into_iter().map(|(key, it)| (strip(key), it)).collect();
            frontend.draining = draining.into_iter().map(|(key, it)| (strip(key), it)).collect();
        }
        (name, held)
    };
    plan.frontends = plan.frontends.into_iter().map(stripped).collect();
    plan
}

/// What changes from one snapshot to the next: a part of the cluster becomes that of another one.
#[derive(Clone, Copy, Debug)]
enum Part {
    Slices(usize),
    Service(usize),
    Nodes,
    Tunnels,
    Eips,
    /// What a plan gave is what the next one finds.
    Previous,
    /// Something cannot be read, or can be again.
    Readable,
    /// One Eip cannot be read.
    Unread(usize),
    /// Another gives the addresses out.
    Automatic(Automatic),
}

fn changes() -> impl Strategy<Value = Vec<(Part, Cluster)>> {
    let index = || 0_usize..7;
    let part = prop_oneof![
        6 => index().prop_map(Part::Slices),
        3 => index().prop_map(Part::Service),
        1 => Just(Part::Nodes),
        2 => Just(Part::Tunnels),
        1 => Just(Part::Eips),
        1 => Just(Part::Previous),
        1 => Just(Part::Readable),
        1 => (0..4_usize).prop_map(Part::Unread),
        1 => select(vec![Automatic::Lowest, Automatic::Hashed, Automatic::Given, Automatic::Kept]).prop_map(Part::Automatic),
    ];
    vec((part, cluster()), 1..12)
}

fn exchange<V: Clone>(to: &mut SharedMap<ServiceKey, V>, from: &SharedMap<ServiceKey, V>, index: usize) {
    let key = ServiceKey {
        namespace: "apps".into(),
        name: format!("svc-{index}"),
    };
    match from.get(&key) {
        Some(value) => drop(to.insert(key, value.clone())),
        None => drop(to.remove(&key)),
    }
}

fn change(cluster: &mut Cluster, part: Part, other: Cluster, last: &Plan) {
    match part {
        Part::Slices(index) => exchange(&mut cluster.endpoint_slices, &other.endpoint_slices, index),
        Part::Service(index) => exchange(&mut cluster.services, &other.services, index),
        Part::Nodes => cluster.nodes = other.nodes,
        Part::Tunnels => cluster.tunnels = other.tunnels,
        Part::Eips => cluster.eips = other.eips,
        Part::Previous => cluster.previous = last.memory(),
        Part::Automatic(automatic) => cluster.automatic = automatic,
        Part::Unread(index) => {
            let name = cluster.eips.keys().nth(index).cloned().unwrap_or_default();
            let eip = ObjectRef::cluster_scoped("Eip", &name);
            cluster.faults = vec![Condition::new(eip, "", reason::UNPARSABLE, "It is no Eip.".into())];
        }
        Part::Readable if cluster.is_partial() => cluster.faults.clear(),
        Part::Readable => {
            let file = ObjectRef::cluster_scoped("File", "some.yaml");
            let unread = Condition::new(file, "", reason::UNPARSABLE, "It is no YAML.".into());
            cluster.faults.push(unread);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn planning_again_with_its_own_allocations_changes_nothing(mut cluster in cluster()) {
        let first = planned(&cluster, "node-a");
        cluster.previous = first.memory();
        prop_assert_eq!(planned(&cluster, "node-a"), first);
    }

    /// A25.
    #[test]
    fn a25_what_is_left_to_the_cni_is_given_out_and_served_as_without_the_label_and_announced_by_nobody(cluster in cluster()) {
        let mut labelled = cluster.clone();
        labelled.eips.values_mut().for_each(|eip| eip.left_to_cni = true);
        let mut plain = cluster;
        plain.eips.values_mut().for_each(|eip| eip.left_to_cni = false);
        let (labelled, plain) = (planned(&labelled, "node-a"), planned(&plain, "node-a"));
        prop_assert_eq!(&labelled.allocations, &plain.allocations);
        prop_assert_eq!(&labelled.frontends, &plain.frontends);
        prop_assert!(labelled.vips.keys().eq(plain.vips.keys()));
        for vip in labelled.vips.values() {
            prop_assert!(vip.owner.is_none() && !vip.owned && vip.interface.is_none(), "{:?}", vip);
        }
    }

    #[test]
    fn all_nodes_agree(cluster in cluster()) {
        let plans: Vec<_> = NODES.iter().map(|node| planned(&cluster, node)).collect();
        for address in plans[0].vips.keys() {
            let owners = plans.iter().filter(|plan| plan.vips[address].owned).count();
            let elected = plans[0].vips[address].owner.is_some();
            prop_assert_eq!(owners, usize::from(elected), "{} has {} owners", address, owners);
        }
        // A node knows of itself what it has not said yet.
        let said = |node: &str| cluster.tunnels.as_ref().is_none_or(|said| said.contains(node));
        let plans = NODES.iter().zip(plans).filter(|(node, _)| said(node));
        let shared: Vec<_> = plans.map(|(_, plan)| shared(plan, &cluster)).collect();
        prop_assert!(shared.windows(2).all(|two| two[0] == two[1]), "{:#?}", shared);
    }

    #[test]
    fn pods_that_no_tunnel_leads_to_get_new_flows_only_where_there_are_no_others(cluster in cluster()) {
        let everywhere = planned(&Cluster { tunnels: None, ..cluster.clone() }, "node-a");
        let plan = planned(&cluster, "node-a");
        prop_assert_eq!(&plan.vips, &everywhere.vips, "who answers for an address does not depend on it");
        let reached = |node: &str| node == "node-a" || cluster.tunnels.as_ref().is_none_or(|said| said.contains(node));
        for (name, frontend) in plan.frontends.iter() {
            let all = &everywhere.frontends[name];
            let reached_of = |frontend: &Frontend| -> BTreeMap<_, _> {
                let backends = frontend.backends.clone().into_iter();
                backends.filter(|(backend, _)| reached(&backend.node)).collect()
            };
            if reached_of(all).is_empty() && reached_of(frontend).is_empty() {
                prop_assert_eq!(frontend, all, "nobody is kept from the last that there are");
            } else if !reached_of(all).is_empty() {
                prop_assert_eq!(&frontend.backends, &reached_of(all));
            }
            let known = |frontend: &Frontend| -> BTreeSet<_> {
                frontend.backends.keys().chain(frontend.draining.keys()).cloned().collect()
            };
            prop_assert_eq!(known(frontend), known(all), "those that are there keep their flows");
            for kept in all.backends.keys().filter(|backend| !frontend.backends.contains_key(*backend)) {
                let about = |it: &Condition| it.reason == reason::NO_AGENT && *it.object.name == *kept.node;
                prop_assert!(plan.conditions.iter().any(about), "nobody says why {:?} gets nothing", kept);
            }
        }
    }

    #[test]
    fn only_those_who_ask_for_an_address_share_it(cluster in cluster()) {
        let plan = planned(&cluster, "node-a");
        let mut automatic: BTreeMap<IpAddr, &ServiceKey> = BTreeMap::new();
        for (key, addresses) in &*plan.allocations {
            let asked = cluster.services[key].annotations.get("eip.openelb.kubesphere.io/v1alpha1");
            let asked: Vec<IpAddr> =
                asked.iter().flat_map(|text| text.split(',')).map(|text| text.parse().unwrap()).collect();
            for address in addresses.iter().filter(|address| !asked.contains(address)) {
                let other = automatic.insert(*address, key);
                prop_assert_eq!(other, None, "{} is given to two without being asked for", address);
            }
            for family in [Family::V4, Family::V6] {
                let of_family = addresses.iter().filter(|address| Family::of(**address) == family).count();
                prop_assert!(of_family <= 1);
            }
        }
    }

    #[test]
    fn what_is_planned_fits_together(cluster in cluster()) {
        let plan = planned(&cluster, "node-a");
        let given: BTreeSet<_> = plan.allocations.values().flatten().copied().collect();
        prop_assert_eq!(given, plan.vips.keys().copied().collect::<BTreeSet<_>>());
        for (key, frontend) in &plan.frontends {
            prop_assert!(plan.allocations[&frontend.service].contains(&key.address));
            for backend in frontend.backends.keys().chain(frontend.draining.keys()) {
                prop_assert_eq!(Family::of(backend.address), Family::of(key.address));
                prop_assert_eq!(backend.local, &*backend.node == "node-a");
                prop_assert!(backend.local || plan.nodes.contains_key(&*backend.node));
            }
            prop_assert!(frontend.draining.keys().all(|backend| !frontend.backends.contains_key(backend)));
        }
        for vip in plan.vips.values() {
            let owner = vip.owner.as_deref();
            prop_assert!(owner.is_none_or(|owner| cluster.nodes[owner].ready && !cluster.nodes[owner].excluded));
        }
    }

    #[test]
    fn an_allocation_survives_any_other_service(cluster in cluster(), other in service(), created in 0_i64..5) {
        let before = planned(&cluster, "node-a");
        let mut after = cluster.clone();
        after.previous = before.memory();
        let key = ServiceKey { namespace: "apps".into(), name: "another".into() };
        after.services.insert(key.clone(), Service { created: Some(created), ..other }.into());
        let mut allocations = (*planned(&after, "node-a").allocations).clone();
        allocations.remove(&key);
        for (key, addresses) in &*before.allocations {
            prop_assert!(allocations.get(key).is_some_and(|kept| kept.is_superset(addresses)), "{} moved", key);
        }
    }

    #[test]
    fn a_plan_owes_nothing_to_the_ones_before(mut cluster in cluster(), changes in changes()) {
        let this = ThisNode { name: "node-a".into() };
        let mut memo = Memo::default();
        let mut last = memo.plan(&cluster, &this);
        prop_assert_eq!(&last, &plan(&cluster, &this));
        for (part, other) in changes {
            change(&mut cluster, part, other, &last);
            let next = memo.plan(&cluster, &this);
            prop_assert_eq!(&next, &plan(&cluster, &this), "after {:?}", part);
            // What is equal is shared, which is what makes the next comparison cheap.
            for (name, frontend) in &next.frontends {
                let Part::Slices(changed) = part else { break };
                if frontend.service.name != format!("svc-{changed}") {
                    let shared = Arc::ptr_eq(&last.frontends[name], frontend);
                    prop_assert!(shared, "{} is made again after {:?}", name, part);
                }
            }
            last = next;
        }
    }

    #[test]
    fn text_forms_of_keys_are_whole(cluster in cluster()) {
        let plan = planned(&cluster, "node-b");
        for (key, frontend) in &plan.frontends {
            prop_assert_eq!(&key.to_string().parse(), &Ok(*key));
            for backend in frontend.backends.keys() {
                prop_assert_eq!(&backend.to_string().parse(), &Ok(backend.clone()));
            }
        }
    }
}
