//! What a Service gets for what it asks.

use super::*;

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

/// B01, B03: a name that is not ours is told, also where something else makes the Service ours.
#[test]
fn a_misspelt_balancer_is_told() {
    let named = |value: &str, class: Option<&str>| Service {
        load_balancer_class: class.map(str::to_owned),
        ..service(&[("lb.kubesphere.io/v1alpha1", value)])
    };
    let services = [
        ("a-misspelt", named("OpenELB", None)),
        ("b-classed", named("OpenELB", Some("openelb"))),
        ("c-classed", named("porter", Some("openelb"))),
        ("d-classed", named("", Some("openelb"))),
    ];
    let mut cluster = cluster([("pool", default_eip("10.1.0.0/29"))], services);
    expect(
        &cluster,
        &[
            ("b-classed", "10.1.0.0"),
            ("c-classed", "10.1.0.1"),
            ("d-classed", "10.1.0.2"),
        ],
        &["a-misspelt OtherBalancer", "b-classed BalancerIgnored"],
    );
    cluster.rules.adopt_all = true;
    expect(
        &cluster,
        &[
            ("a-misspelt", "10.1.0.0"),
            ("b-classed", "10.1.0.1"),
            ("c-classed", "10.1.0.2"),
            ("d-classed", "10.1.0.3"),
        ],
        &["a-misspelt BalancerIgnored", "b-classed BalancerIgnored"],
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

/// Nodes that each allocate for themselves.
#[test]
fn with_hashed_a_late_joiner_chooses_like_those_before_it() {
    let of = |services: &[&str]| {
        let eips = [("four", default_eip("10.1.0.0/24")), ("six", default_eip("fd00::/64"))];
        let both = Service {
            family_policy: FamilyPolicy::RequireDualStack,
            ..service(&[])
        };
        let mut cluster = cluster(eips, []);
        cluster.automatic = Automatic::Hashed;
        cluster.services = services
            .iter()
            .map(|name| (key(name), Arc::new(both.clone())))
            .collect();
        cluster
    };
    let (before, _) = outcome(&of(&["z"]));
    let mut running = of(&["a", "z"]);
    hold(&mut running, "z", &before["z"].split(' ').collect::<Vec<_>>());
    // The end of the first 16 bytes, as computed by `printf apps/a | sha256sum`.
    let expected = [
        ("a", "10.1.0.164 fd00::2df0:6c78:c87c:82a4"),
        ("z", "10.1.0.163 fd00::a1f0:4784:25b2:bfa3"),
    ];
    expect(&running, &expected, &[]);
    expect(&of(&["a", "z"]), &expected, &[]);
}

#[test]
fn with_hashed_every_address_is_found() {
    let names = ["a", "b", "c", "d", "e"];
    let mut full = cluster(
        [("pool", default_eip("10.1.0.0/30"))],
        names.map(|name| (name, service(&[]))),
    );
    full.automatic = Automatic::Hashed;
    let (addresses, reasons) = outcome(&full);
    let distinct: BTreeSet<_> = addresses.values().collect();
    assert_eq!((distinct.len(), reasons), (4, vec!["e Exhausted".to_owned()]));
}

#[test]
fn with_lowest_the_lowest_free_address_is_taken() {
    let eips = [("pool", default_eip("10.1.0.0/24"))];
    let mut running = cluster(eips, [("a", service(&[])), ("b", service(&[])), ("z", service(&[]))]);
    assert_eq!(running.automatic, Automatic::Lowest);
    hold(&mut running, "z", &["10.1.0.0"]);
    expect(
        &running,
        &[("a", "10.1.0.1"), ("b", "10.1.0.2"), ("z", "10.1.0.0")],
        &[],
    );
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
