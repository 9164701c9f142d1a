//! Eips and requests that cannot be served.

use super::*;

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

/// A12: in small letters or not, with spaces or not.
#[test]
fn what_says_neither_that_an_eip_is_the_default_nor_that_it_is_not_is_told() {
    for (name, value, reasons) in [
        (DEFAULT.0, "yes", &["pool UnclearDefault", "s NoEip"][..]),
        (
            "eip.porter.kubesphere.io/is-default-eip",
            "1",
            &["pool UnclearDefault", "s NoEip"],
        ),
        (DEFAULT.0, " FALSE ", &["s NoEip"]),
        (DEFAULT.0, " ", &["s NoEip"]),
    ] {
        let pool = Eip {
            annotations: annotations(&[(name, value)]),
            ..eip("10.1.0.0/24")
        };
        let asks = service(&[(POOL, "pool")]);
        let cluster = cluster([("pool", pool)], [("s", service(&[])), ("t", asks)]);
        expect(&cluster, &[("t", "10.1.0.0")], reasons);
    }
    let unclear = Eip {
        annotations: annotations(&[("eip.porter.kubesphere.io/is-default-eip", "yes")]),
        ..eip("10.1.0.0/24")
    };
    let mut conditions = Vec::new();
    drop(Pools::new(&[("pool".to_owned(), unclear)].into(), &mut conditions));
    assert_eq!(
        conditions[0].to_string(),
        "Eip pool, metadata.annotations[eip.porter.kubesphere.io/is-default-eip]: UnclearDefault: `yes` is neither true nor false, so \
         this Eip is not the default. Write \"true\" or \"false\", or remove the annotation."
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
