use super::*;

fn with(ingress: &[&str], service: Service) -> Service {
    Service {
        ingress: ingress.iter().map(|text| text.parse().unwrap()).collect(),
        ..service
    }
}

fn given<const E: usize, const S: usize>(eips: [(&str, Eip); E], services: [(&str, Service); S]) -> Cluster {
    Cluster {
        automatic: Automatic::Given,
        ..cluster(eips, services)
    }
}

#[test]
fn what_the_status_has_is_taken_and_nothing_else_is_given() {
    let bare = Service {
        annotations: BTreeMap::new(),
        ..service(&[])
    };
    let cluster = given(
        [("pool", default_eip("10.1.0.0/24")), ("six", default_eip("fd00::/120"))],
        [
            ("both", with(&["10.1.0.9", "fd00::9"], service(&[]))),
            ("waiting", service(&[(ADDRESS, "10.1.0.7")])),
            ("other", with(&["10.1.0.8"], bare)),
            // What is asked for does not matter once something is given.
            (
                "changed",
                with(&["10.1.0.6"], service(&[(POOL, "none"), (ADDRESS, "nonsense")])),
            ),
            (
                "mistaken",
                with(
                    &["10.1.0.5"],
                    service(&[(ADDRESS, "fd00::1"), ("node-proxy.openelb.kubesphere.io/type", "pod")]),
                ),
            ),
            (
                "proxy",
                with(
                    &["192.0.2.1"],
                    service(&[("node-proxy.openelb.kubesphere.io/type", "daemonset")]),
                ),
            ),
        ],
    );
    let served = [
        ("both", "10.1.0.9 fd00::9"),
        ("changed", "10.1.0.6"),
        ("mistaken", "10.1.0.5"),
    ];
    expect(&cluster, &served, &[]);
}

#[test]
fn what_is_remembered_does_not_matter() {
    let mut cluster = given([("pool", default_eip("10.1.0.0/24"))], [("s", service(&[]))]);
    hold(&mut cluster, "s", &["10.1.0.5"]);
    expect(&cluster, &[], &[]);
}

#[test]
fn an_address_that_cannot_be_served_is_a_condition() {
    let disabled = Eip {
        disabled: true,
        ..eip("10.1.0.0/24")
    };
    let older = Service {
        created: Some(1),
        ..with(&["10.1.0.1"], service(&[]))
    };
    let younger = Service {
        created: Some(2),
        ..with(&["10.1.0.1"], service(&[]))
    };
    let mut cluster = given(
        [("pool", disabled)],
        [
            ("outside", with(&["10.2.0.1"], service(&[]))),
            ("a-younger", younger),
            ("z-older", older),
            ("node", with(&["10.1.0.200"], service(&[]))),
        ],
    );
    let node = Node {
        internal_addresses: vec!["10.1.0.200".parse().unwrap()],
        excluded: false,
        ready: true,
    };
    cluster.nodes.insert("node-1".into(), node);
    expect(
        &cluster,
        &[("z-older", "10.1.0.1")],
        &[
            "node NodeAddress",
            "outside AddressOutsideEips",
            "a-younger PortConflict",
        ],
    );
}

/// The controller's label says that an address is ours, by whatever rule that was.
#[test]
fn a_service_that_the_controller_has_marked_is_served() {
    let marked = Service {
        annotations: BTreeMap::new(),
        load_balancer_class: Some("edge".into()),
        label: Some("pool".into()),
        ingress: vec!["10.1.0.5".parse().unwrap()],
        ..service(&[])
    };
    let unmarked = Service {
        label: None,
        ..marked.clone()
    };
    let mut cluster = cluster([("pool", eip("10.1.0.0/24"))], [("s", marked), ("t", unmarked)]);
    cluster.automatic = Automatic::Given;
    expect(&cluster, &[("s", "10.1.0.5")], &[]);
}

/// A13: as long as Services have something of a deleting Eip, it is served.
#[test]
fn a_deleting_eip_is_served_until_its_addresses_are_taken_back() {
    let deleting = Eip {
        deleting: true,
        ..eip("10.1.0.0/24")
    };
    let shown = Service {
        ingress: vec!["10.1.0.5".parse().unwrap()],
        ..service(&[])
    };
    let mut cluster = cluster([("pool", deleting)], [("s", shown)]);
    cluster.automatic = Automatic::Given;
    expect(&cluster, &[("s", "10.1.0.5")], &[]);
}
