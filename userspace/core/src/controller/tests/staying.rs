//! Addresses that stay whatever others do.

use super::*;

fn asking(port: u16) -> Service {
    let mut service = service(&[(ADDRESS, "10.1.0.8")]);
    service.ports[0].port = port;
    service
}

fn default_pool() -> Eip {
    Eip {
        annotations: [("eip.openelb.kubesphere.io/is-default-eip".to_owned(), "true".to_owned())].into(),
        ..eip("10.1.0.8/30")
    }
}

/// B13, B20: who came first to an address keeps it when another moves onto its port there.
#[test]
fn an_older_service_takes_no_port_of_who_came_first() {
    let mut objects = Objects::with(&[("pool", default_pool())], &[("first", service(&[]))]);
    objects.service("first").created = Some(200);
    objects.settle();
    let mut late = asking(443);
    late.created = Some(100);
    objects.services.insert(key("late"), (late, ServiceObject::default()));
    objects.settle();
    assert_eq!(objects.service("late").ingress, [address("10.1.0.8")]);
    objects.service("late").ports[0].port = 80;
    objects.settle();
    assert_eq!(objects.service("first").ingress, [address("10.1.0.8")]);
    // It stays there too, but agents give the port to who came first.
    assert_eq!(objects.service("late").ingress, [address("10.1.0.8")]);
    let mut cluster = objects.world().cluster;
    cluster.automatic = crate::model::Automatic::Given;
    let mut conditions = Vec::new();
    let pools = ipam::Pools::new(&cluster.eips, &mut conditions);
    let given = ipam::allocate(&cluster, &pools, &mut conditions);
    assert!(given.by_service.contains_key(&key("first")));
    let told: Vec<_> = conditions.iter().map(|it| (&*it.object.name, &*it.reason)).collect();
    assert_eq!(told, [("late", "PortConflict")]);
}

/// A13, A14, B24: an address in two books, of which one Eip has been changed to overlap the other.
#[test]
fn an_address_in_two_books_leaves_one() {
    let mut objects = Objects::with(
        &[("alpha", eip("10.2.0.0/30")), ("zone", eip("10.1.0.8/30"))],
        &[("web", service(&[(ADDRESS, "10.1.0.8")]))],
    );
    objects.settle();
    // The older one by name is the one that is used now.
    objects.eips.get_mut("alpha").unwrap().0.address = "10.1.0.0/24".into();
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.1.0.8")]);
    assert_eq!(objects.services[&key("web")].1.label.as_deref(), Some("alpha"));
    assert_eq!(objects.used("zone"), BTreeMap::new());
    objects.eips.get_mut("zone").unwrap().0.deleting = true;
    objects.settle();
    assert!(!objects.eips.contains_key("zone"));
}

/// B20: a node that gets an address of a Service takes it from nobody.
#[test]
fn a_node_takes_no_address_of_a_service() {
    let mut objects = Objects::with(&[("pool", default_pool())], &[("web", service(&[]))]);
    objects.settle();
    objects.nodes = vec!["a".into()];
    objects.node_addresses = vec![address("10.1.0.8"), address("10.1.0.9")];
    assert_eq!(objects.round(), [""; 0]);
    // Nobody is given one.
    objects
        .services
        .insert(key("next"), (service(&[]), ServiceObject::default()));
    objects.settle();
    assert_eq!(objects.service("next").ingress, [address("10.1.0.10")]);
}

/// B20: what an Eip has that cannot be read any more is not known to be gone.
#[test]
fn an_address_outlives_a_mistake_in_its_eip() {
    let mut objects = Objects::with(&[("pool", default_pool())], &[("web", service(&[]))]);
    objects.settle();
    objects.eips.get_mut("pool").unwrap().0.address = "224.0.0.0/24".into();
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.1.0.8")]);
    assert_eq!(objects.used("pool").len(), 1);
    objects.eips.get_mut("pool").unwrap().0.address = "10.1.0.8/30".into();
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.1.0.8")]);
    assert_eq!(objects.used("pool").len(), 1);
}

/// B02: a label that somebody has set by mistake gives us no right to another balancer's status.
#[test]
fn what_another_balancer_has_given_stays() {
    let mut foreign = service(&[]);
    foreign.load_balancer_class = Some("other".into());
    foreign.ingress = vec![address("10.9.0.1")];
    foreign.label = Some("pool".into());
    let mut objects = Objects::with(&[("pool", default_pool())], &[("web", foreign)]);
    objects.services.get_mut(&key("web")).unwrap().1.label = Some("pool".into());
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.9.0.1")]);
    assert_eq!(objects.services[&key("web")].1.label, None);
}

/// B15, B22: a second family comes after what is there, and the label stays.
#[test]
fn what_is_shown_stays_first() {
    let mut web = service(&[(POOL, "pool,six")]);
    web.family_policy = crate::model::FamilyPolicy::PreferDualStack;
    web.families = vec![crate::model::Family::V6, crate::model::Family::V4];
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", web)]);
    // Before there is a second Eip, its absence is no obstacle.
    objects.service("web").annotations.insert(POOL.into(), "pool".into());
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.1.0.8")]);
    objects
        .eips
        .insert("six".into(), (eip("fd00::/64"), EipObject::default()));
    objects
        .service("web")
        .annotations
        .insert(POOL.into(), "pool,six".into());
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.1.0.8"), address("fd00::")]);
    assert_eq!(objects.services[&key("web")].1.label.as_deref(), Some("pool"));
}

/// B20: who shows an address that it asked for keeps it beside others when it asks no more; who does not show it yet does not
/// come to it without asking.
#[test]
fn an_address_that_is_shown_is_not_asked_for_again() {
    let shared = |settled: bool| {
        let mut objects = Objects::with(&[("pool", default_pool())], &[("first", service(&[]))]);
        objects.settle();
        objects
            .services
            .insert(key("late"), (asking(443), ServiceObject::default()));
        if settled {
            objects.settle();
        } else {
            while objects.used("pool").values().all(|keys| !keys.contains("late")) {
                objects.round();
            }
        }
        objects.service("late").annotations.remove(ADDRESS);
        objects.settle();
        assert_eq!(objects.service("first").ingress, [address("10.1.0.8")]);
        objects.service("late").ingress.clone()
    };
    assert_eq!(shared(true), [address("10.1.0.8")]);
    assert_eq!(shared(false), [address("10.1.0.9")]);
}

/// B20, B24: who keeps an address without asking for it takes no port there from who came first.
#[test]
fn two_with_one_port_of_an_address_are_parted_if_they_did_not_ask() {
    let mut objects = Objects::with(&[("pool", default_pool())], &[("first", service(&[]))]);
    objects.settle();
    objects
        .services
        .insert(key("a-late"), (asking(443), ServiceObject::default()));
    objects.settle();
    objects.service("a-late").annotations.remove(ADDRESS);
    objects.service("a-late").ports[0].port = 80;
    objects.settle();
    assert_eq!(objects.service("first").ingress, [address("10.1.0.8")]);
    assert_eq!(objects.service("a-late").ingress, [address("10.1.0.9")]);
}
