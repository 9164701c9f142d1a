//! What whoever runs Weir may decide otherwise than OpenELB does.

use super::*;

/// B02.
#[test]
fn the_class_that_is_ours_is_a_rule() {
    let of_class = |class: &str| Service {
        annotations: BTreeMap::new(),
        load_balancer_class: Some(class.into()),
        ..service(&[])
    };
    let services = [("s", of_class("edge")), ("t", of_class("openelb"))];
    let mut cluster = cluster([("pool", default_eip("10.1.0.0/24"))], services);
    expect(&cluster, &[("t", "10.1.0.0")], &[]);
    cluster.rules.class = "edge".into();
    expect(&cluster, &[("s", "10.1.0.0")], &[]);
}

/// B03.
#[test]
fn all_services_without_a_class_are_adopted_by_rule() {
    let plain = || Service {
        annotations: BTreeMap::new(),
        ..service(&[])
    };
    let other = Service {
        load_balancer_class: Some("other".into()),
        ..plain()
    };
    let inner = Service {
        load_balancer: false,
        ..plain()
    };
    let services = [("s", plain()), ("t", other), ("u", inner)];
    let mut cluster = cluster([("pool", default_eip("10.1.0.0/24"))], services);
    expect(&cluster, &[], &[]);
    cluster.rules.adopt_all = true;
    expect(&cluster, &[("s", "10.1.0.0")], &[]);
}

/// B10.
#[test]
fn full_eips_of_the_namespace_give_way_to_the_default_by_rule() {
    let bound = Eip {
        namespaces: ["apps".to_owned()].into(),
        ..eip("10.2.0.1")
    };
    let eips = [("bound", bound), ("pool", default_eip("10.1.0.0/24"))];
    let mut cluster = cluster(eips, [("s", service(&[])), ("t", service(&[]))]);
    expect(&cluster, &[("s", "10.2.0.1")], &["t Exhausted"]);
    cluster.rules.fall_back_to_default = true;
    expect(&cluster, &[("s", "10.2.0.1"), ("t", "10.1.0.0")], &[]);
}

/// A13.
#[test]
fn what_services_have_of_a_deleting_eip_stays_by_rule() {
    let deleting = Eip {
        deleting: true,
        ..default_eip("10.1.0.0/24")
    };
    let mut cluster = cluster(
        [("pool", deleting)],
        [("s", service(&[])), ("t", service(&[(ADDRESS, "10.1.0.9")]))],
    );
    hold(&mut cluster, "s", &["10.1.0.7"]);
    expect(&cluster, &[], &["t EipDisabled", "s NoEip"]);
    cluster.rules.hold_eips_in_use = true;
    // Nothing new, though.
    expect(&cluster, &[("s", "10.1.0.7")], &["t EipDisabled"]);
}

/// A13: until an Eip is gone, nobody else gives out its addresses.
#[test]
fn an_eip_that_overlaps_a_deleting_one_waits() {
    let old = Eip {
        created: Some(1),
        deleting: true,
        ..eip("10.1.0.0/24")
    };
    let new = Eip {
        created: Some(2),
        ..default_eip("10.1.0.0/25")
    };
    let cluster = cluster([("new", new), ("old", old)], [("s", service(&[]))]);
    expect(&cluster, &[], &["new Overlap", "s NoEip"]);
}

/// A28.
#[test]
fn addresses_that_confuse_equipment_are_left_to_who_asks() {
    let careful = Eip {
        avoid_buggy_ips: true,
        ..default_eip("10.1.0.254-10.1.1.1")
    };
    let names = ["s", "t", "u"].map(|name| (name, service(&[])));
    expect(
        &cluster([("pool", careful.clone())], names),
        &[("s", "10.1.0.254"), ("t", "10.1.1.1")],
        &["u Exhausted"],
    );
    let asking = service(&[(ADDRESS, "10.1.1.0")]);
    expect(
        &cluster([("pool", careful)], [("s", asking)]),
        &[("s", "10.1.1.0")],
        &[],
    );
}
