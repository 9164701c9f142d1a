//! Rows A.. and B.. are OpenELB's behaviours and ours beyond them.

use super::*;
use crate::model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const OPT_IN: (&str, &str) = ("lb.kubesphere.io/v1alpha1", "openelb");
const POOL: &str = "eip.openelb.kubesphere.io/v1alpha2";
const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
const DEFAULT: (&str, &str) = ("eip.openelb.kubesphere.io/is-default-eip", "true");

fn eip(address: &str) -> Eip {
    Eip {
        address: address.into(),
        mode: Mode::Layer2,
        interface: Some("eth0".into()),
        ..Eip::default()
    }
}

fn default_eip(address: &str) -> Eip {
    Eip {
        annotations: annotations(&[DEFAULT]),
        ..eip(address)
    }
}

/// A Service of ours with the port 80 and more annotations.
fn service(more: &[(&str, &str)]) -> Service {
    let mut all = vec![OPT_IN];
    all.extend(more);
    Service {
        load_balancer: true,
        annotations: annotations(&all),
        ports: vec![port(80)],
        ..Service::default()
    }
}

fn port(port: u16) -> ServicePort {
    ServicePort {
        name: String::new(),
        protocol: PortProtocol::Served(Protocol::Tcp),
        port,
    }
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "apps".into(),
        name: name.into(),
    }
}

fn cluster<const E: usize, const S: usize>(eips: [(&str, Eip); E], services: [(&str, Service); S]) -> Cluster {
    Cluster {
        eips: eips.into_iter().map(|(name, eip)| (name.into(), eip)).collect(),
        services: services
            .into_iter()
            .map(|(name, service)| (key(name), service))
            .collect(),
        ..Cluster::default()
    }
}

/// Addresses by Service, each joined by blanks, and reasons with their objects' names.
fn outcome(cluster: &Cluster) -> (BTreeMap<String, String>, Vec<String>) {
    let mut conditions = Vec::new();
    let pools = Pools::new(&cluster.eips, &mut conditions);
    let allocations = allocate(cluster, &pools, &mut conditions);
    let addresses = allocations.by_service.iter().map(|(key, addresses)| {
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        (key.name.clone(), texts.join(" "))
    });
    (
        addresses.collect(),
        conditions
            .iter()
            .map(|it| format!("{} {}", it.object.name, it.reason))
            .collect(),
    )
}

#[track_caller]
fn expect(cluster: &Cluster, addresses: &[(&str, &str)], reasons: &[&str]) {
    let expected: BTreeMap<String, String> = addresses.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    assert_eq!(
        outcome(cluster),
        (expected, reasons.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    );
}

fn hold(cluster: &mut Cluster, name: &str, addresses: &[&str]) {
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    cluster.previous.insert(key(name), addresses);
}

/// B01, B02, B27.
#[test]
fn only_services_of_ours_get_addresses() {
    let plain = Service {
        load_balancer: true,
        ports: vec![port(80)],
        ..Service::default()
    };
    let of_class = |class: &str| Service {
        load_balancer_class: Some(class.into()),
        ..plain.clone()
    };
    let services = [
        ("a-annotated", service(&[])),
        ("b-class", of_class("openelb")),
        (
            "c-porter",
            Service {
                annotations: annotations(&[("lb.kubesphere.io/v1alpha1", "porter")]),
                ..plain.clone()
            },
        ),
        ("d-plain", plain.clone()),
        (
            "e-cluster-ip",
            Service {
                load_balancer: false,
                ..service(&[])
            },
        ),
        (
            "f-other",
            Service {
                load_balancer_class: Some("other".into()),
                ..service(&[])
            },
        ),
        (
            "g-deleting",
            Service {
                deleting: true,
                ..service(&[])
            },
        ),
    ];
    let expected = [
        ("a-annotated", "10.1.0.0"),
        ("b-class", "10.1.0.1"),
        ("c-porter", "10.1.0.2"),
    ];
    expect(
        &cluster([("pool", default_eip("10.1.0.0/24"))], services),
        &expected,
        &["f-other OtherClass"],
    );
}

/// B04, B05, B06.
#[test]
fn a_pool_and_an_address_can_be_asked_for() {
    let services = [
        ("a", service(&[(POOL, "two")])),
        ("b", service(&[(ADDRESS, "10.1.0.9")])),
        (
            "c",
            Service {
                load_balancer_ip: Some("10.1.0.8".into()),
                ..service(&[])
            },
        ),
        (
            "d",
            Service {
                load_balancer_ip: Some("10.1.0.8".into()),
                ..service(&[(ADDRESS, "10.1.0.7")])
            },
        ),
        ("e", service(&[(POOL, "two"), (ADDRESS, "10.1.0.6")])),
        ("f", service(&[(ADDRESS, "10.9.0.1")])),
        ("g", service(&[(ADDRESS, "ten")])),
        ("h", service(&[(POOL, "three")])),
        ("i", service(&[("eip.porter.kubesphere.io/v1alpha1", "10.1.0.5")])),
    ];
    let eips = [("one", eip("10.1.0.0/24")), ("two", eip("10.2.0.0/24"))];
    let expected = [
        ("a", "10.2.0.0"),
        ("b", "10.1.0.9"),
        ("c", "10.1.0.8"),
        ("d", "10.1.0.7"),
        ("i", "10.1.0.5"),
    ];
    let reasons = [
        "g InvalidAddress",
        "e AddressOutsideEips",
        "f AddressOutsideEips",
        "h UnknownEip",
    ];
    let (addresses, mut found) = outcome(&cluster(eips, services));
    found.sort();
    let mut reasons = reasons.to_vec();
    reasons.sort_unstable();
    assert_eq!(found, reasons);
    assert_eq!(
        addresses,
        expected.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    );
}

/// B07, B08, B09, B10.
#[test]
fn the_pool_is_chosen_by_namespace_then_by_default() {
    let bound = |address: &str, priority| Eip {
        priority,
        namespaces: ["apps".to_owned()].into(),
        ..eip(address)
    };
    let selected = |address: &str| Eip {
        namespace_selector: Some(annotations(&[("team", "web")])),
        ..eip(address)
    };
    let two = || [("s", service(&[])), ("t", service(&[]))];
    let eips = [
        ("far", bound("10.1.0.1", 5)),
        ("near", bound("10.2.0.1", 1)),
        ("z", default_eip("10.3.0.0/24")),
    ];
    expect(&cluster(eips, two()), &[("s", "10.2.0.1"), ("t", "10.1.0.1")], &[]);

    let eips = [("near", bound("10.2.0.1", 1)), ("z", default_eip("10.3.0.0/24"))];
    expect(&cluster(eips, two()), &[("s", "10.2.0.1")], &["t Exhausted"]);

    let eips = || [("a", selected("10.1.0.0/24")), ("z", default_eip("10.3.0.0/24"))];
    let mut labelled = cluster(eips(), two());
    expect(&labelled, &[("s", "10.3.0.0"), ("t", "10.3.0.1")], &[]);
    labelled
        .namespaces
        .insert("apps".into(), annotations(&[("team", "web"), ("x", "y")]));
    expect(&labelled, &[("s", "10.1.0.0"), ("t", "10.1.0.1")], &[]);

    expect(
        &cluster([("a", eip("10.1.0.0/24"))], [("s", service(&[]))]),
        &[],
        &["s NoEip"],
    );
    expect(&cluster([], [("s", service(&[]))]), &[], &["s NoEip"]);
}

/// B11, B12, B13.
#[test]
fn a_requested_address_is_shared_but_not_its_ports() {
    let on = |number| Service {
        ports: vec![port(number)],
        ..service(&[(ADDRESS, "10.1.0.5")])
    };
    let services = [
        ("a", on(80)),
        ("b", on(443)),
        (
            "c",
            Service {
                created: Some(7),
                ..on(80)
            },
        ),
    ];
    expect(
        &cluster([("pool", eip("10.1.0.0/24"))], services),
        &[("a", "10.1.0.5"), ("b", "10.1.0.5")],
        &["c PortConflict"],
    );
    // Who asks for nothing shares nothing.
    let services = [
        ("a", service(&[])),
        (
            "b",
            Service {
                ports: vec![port(443)],
                ..service(&[])
            },
        ),
    ];
    let eips = [("pool", default_eip("10.1.0.0/31"))];
    expect(&cluster(eips, services), &[("a", "10.1.0.0"), ("b", "10.1.0.1")], &[]);
    // A request comes before an automatic choice, so the order of age does not make two want one address.
    let services = [("a", service(&[])), ("b", service(&[(ADDRESS, "10.1.0.0")]))];
    let eips = [("pool", default_eip("10.1.0.0/31"))];
    expect(&cluster(eips, services), &[("a", "10.1.0.1"), ("b", "10.1.0.0")], &[]);
}

/// B14, B15.
#[test]
fn each_family_gets_an_address() {
    let both = [("four", default_eip("10.1.0.0/24")), ("six", default_eip("fd00::/64"))];
    let of = |families: &[Family], policy| Service {
        families: families.into(),
        family_policy: policy,
        ..service(&[])
    };
    use Family::{V4, V6};
    use FamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
    let services = || {
        [
            ("a", of(&[V4], SingleStack)),
            ("b", of(&[V6], SingleStack)),
            ("c", of(&[V6, V4], RequireDualStack)),
            ("d", of(&[], PreferDualStack)),
        ]
    };
    let expected = [
        ("a", "10.1.0.0"),
        ("b", "fd00::"),
        ("c", "10.1.0.1 fd00::1"),
        ("d", "10.1.0.2 fd00::2"),
    ];
    expect(&cluster(both, services()), &expected, &[]);

    let four = [("four", default_eip("10.1.0.0/24"))];
    let expected = [("a", "10.1.0.0"), ("c", "10.1.0.1"), ("d", "10.1.0.2")];
    expect(&cluster(four, services()), &expected, &["b NoEip", "c NoEip"]);

    // As no API server has filled in spec.ipFamilies, the addresses asked for say the families.
    let both = || [("four", eip("10.1.0.0/24")), ("six", eip("fd00::/64"))];
    let pair = service(&[(ADDRESS, "10.1.0.2,fd00::2")]);
    expect(
        &cluster(both(), [("a", pair.clone())]),
        &[("a", "10.1.0.2 fd00::2")],
        &[],
    );
    let four_only = Service {
        families: vec![V4],
        ..pair
    };
    expect(&cluster(both(), [("a", four_only)]), &[], &["a FamilyMismatch"]);
    let twice = service(&[(ADDRESS, "10.1.0.2, 10.1.0.3")]);
    expect(
        &cluster(both(), [("a", twice)]),
        &[("a", "10.1.0.2")],
        &["a FamilyMismatch"],
    );
    let named = Service {
        families: vec![V6],
        ..service(&[(POOL, "four")])
    };
    expect(&cluster(both(), [("a", named)]), &[], &["a FamilyMismatch"]);
    let named = Service {
        families: vec![V4, V6],
        ..service(&[(POOL, "four, six")])
    };
    expect(&cluster(both(), [("a", named)]), &[("a", "10.1.0.0 fd00::")], &[]);
}

/// B20, B21, B22.
#[test]
fn an_address_is_kept_while_it_fits_the_request() {
    let first = Eip {
        namespaces: ["apps".to_owned()].into(),
        ..eip("10.1.0.1")
    };
    let second = Eip {
        namespaces: ["apps".to_owned()].into(),
        priority: 1,
        ..eip("10.2.0.0/24")
    };
    let mut held = cluster(
        [("first", first), ("second", second)],
        [("s", service(&[])), ("t", service(&[]))],
    );
    hold(&mut held, "s", &["10.2.0.7"]);
    expect(&held, &[("s", "10.2.0.7"), ("t", "10.1.0.1")], &[]);
    // Neither disabling nor a changed binding takes it away.
    for eip in held.eips.values_mut() {
        eip.disabled = true;
        eip.namespaces.clear();
    }
    expect(&held, &[("s", "10.2.0.7")], &["t NoEip"]);

    // What the object's own status says comes before what an agent remembers.
    let mut told = cluster([("pool", default_eip("10.1.0.0/24"))], [("s", service(&[]))]);
    told.services.get_mut(&key("s")).unwrap().ingress = vec!["10.1.0.8".parse().unwrap()];
    hold(&mut told, "s", &["10.1.0.4"]);
    expect(&told, &[("s", "10.1.0.8")], &[]);
}

/// B19.
#[test]
fn an_address_that_no_longer_fits_is_given_up() {
    let eips = || [("one", default_eip("10.1.0.0/24")), ("two", eip("10.2.0.0/24"))];
    let with = |service, held: &str| {
        let mut cluster = cluster(eips(), [("s", service)]);
        hold(&mut cluster, "s", &[held]);
        cluster
    };
    expect(
        &with(service(&[(ADDRESS, "10.1.0.9")]), "10.1.0.5"),
        &[("s", "10.1.0.9")],
        &[],
    );
    expect(&with(service(&[(POOL, "two")]), "10.1.0.5"), &[("s", "10.2.0.0")], &[]);
    expect(&with(service(&[]), "10.7.0.5"), &[("s", "10.1.0.0")], &[]);
    expect(
        &with(
            Service {
                families: vec![Family::V4],
                ..service(&[])
            },
            "fd00::5",
        ),
        &[("s", "10.1.0.0")],
        &[],
    );
}

/// B24: whatever is remembered, only askers share.
#[test]
fn two_that_remember_one_address_are_parted() {
    let mut both = cluster(
        [("pool", default_eip("10.1.0.0/24"))],
        [
            (
                "a",
                Service {
                    ports: vec![port(443)],
                    ..service(&[])
                },
            ),
            ("b", service(&[])),
        ],
    );
    hold(&mut both, "a", &["10.1.0.3"]);
    hold(&mut both, "b", &["10.1.0.3"]);
    expect(&both, &[("a", "10.1.0.3"), ("b", "10.1.0.0")], &[]);
}

/// A08: the younger of two is refused as a whole, by creation time, then name; its Services are not silently moved.
#[test]
fn overlapping_eips_are_refused_but_for_the_oldest() {
    let aged = |address: &str, created| Eip {
        created: Some(created),
        ..default_eip(address)
    };
    let eips = [
        ("a", aged("10.1.0.0/24", 9)),
        ("b", aged("10.1.0.128-10.1.1.5", 3)),
        ("c", aged("10.1.0.0/25", 5)),
    ];
    let services = [("s", service(&[(POOL, "a")])), ("t", service(&[(POOL, "b")]))];
    expect(
        &cluster(eips, services),
        &[("t", "10.1.0.128")],
        &["c SecondDefault", "a Overlap", "s UnknownEip"],
    );
    // A disabled one counts too.
    let eips = [
        (
            "a",
            Eip {
                disabled: true,
                ..eip("10.1.0.0/24")
            },
        ),
        ("b", eip("10.1.0.9")),
    ];
    expect(&cluster(eips, []), &[], &["b Overlap"]);
}

/// A06, A09, A12, E06.
#[test]
fn eips_that_cannot_be_used_are_refused() {
    let without = Eip {
        interface: None,
        ..eip("10.1.0.0/24")
    };
    let on = |interface: &str| Eip {
        interface: Some(interface.into()),
        ..eip("10.2.0.0/24")
    };
    let bgp = Eip {
        mode: Mode::Bgp,
        ..without.clone()
    };
    for (bad, reason) in [
        (eip("10.1.0.0/40"), "pool InvalidRange"),
        (eip("10.1.0.9-fd00::1"), "pool InvalidRange"),
        (without.clone(), "pool InvalidInterface"),
        (
            Eip {
                mode: Mode::Vip,
                ..without
            },
            "pool InvalidInterface",
        ),
        (on("lo"), "pool InvalidInterface"),
        (on("can_reach:me"), "pool InvalidInterface"),
    ] {
        expect(&cluster([("pool", bad)], []), &[], &[reason]);
    }
    for good in [bgp, on("can_reach:10.0.0.1"), on("bond0.7")] {
        expect(&cluster([("pool", good)], []), &[], &[]);
    }
    let shouted = Eip {
        annotations: annotations(&[(DEFAULT.0, "True")]),
        ..eip("10.2.0.0/24")
    };
    let eips = [
        ("a", shouted),
        ("b", default_eip("10.3.0.0/24")),
        ("c", default_eip("fd00::/64")),
    ];
    expect(
        &cluster(eips, [("s", service(&[]))]),
        &[("s", "10.2.0.0")],
        &["b SecondDefault"],
    );
}

#[test]
fn a_nodes_own_address_is_never_given_out() {
    let asks = service(&[(ADDRESS, "10.1.0.1")]);
    let mut cluster = cluster(
        [("pool", default_eip("10.1.0.0/30"))],
        [("a", service(&[])), ("b", service(&[])), ("c", asks)],
    );
    let node = |address: &str| Node {
        internal_addresses: vec![address.parse().unwrap()],
        excluded: false,
        ready: true,
    };
    cluster.nodes.insert("n".into(), node("10.1.0.1"));
    expect(&cluster, &[("a", "10.1.0.0"), ("b", "10.1.0.2")], &["c NodeAddress"]);
}

/// A07.
#[test]
fn large_prefixes_are_used_from_their_base() {
    let eips = [("pool", default_eip("fd00:1:2:3::/64"))];
    expect(
        &cluster(eips, [("a", service(&[])), ("b", service(&[]))]),
        &[("a", "fd00:1:2:3::"), ("b", "fd00:1:2:3::1")],
        &[],
    );
}

/// B26, B28.
#[test]
fn annotations_of_other_times_are_answered() {
    let eips = || [("pool", default_eip("10.1.0.0/24"))];
    let protocol = |value| service(&[("protocol.openelb.kubesphere.io/v1alpha1", value)]);
    expect(
        &cluster(eips(), [("a", protocol("bgp"))]),
        &[("a", "10.1.0.0")],
        &["a ProtocolIgnored"],
    );
    expect(&cluster(eips(), [("a", protocol("layer2"))]), &[("a", "10.1.0.0")], &[]);
    let proxy = service(&[("node-proxy.openelb.kubesphere.io/type", "deployment")]);
    expect(&cluster(eips(), [("a", proxy)]), &[], &["a NodeProxyUnsupported"]);
}
