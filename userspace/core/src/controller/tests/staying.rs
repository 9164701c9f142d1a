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

/// A Service of IPv4 with its address, of an Eip that is full, which another one waits for.
fn served_and_awaited() -> Objects {
    let mut web = service(&[(POOL, "pool")]);
    web.families = vec![crate::model::Family::V4];
    let unusable = Eip {
        interface: None,
        ..eip("10.4.0.0/24")
    };
    let eips = [
        ("pool", eip("10.1.0.8")),
        ("two", eip("10.2.0.0/24")),
        ("six", eip("fd00::/64")),
        ("unusable", unusable),
    ];
    let mut objects = Objects::with(&eips, &[("web", web)]);
    objects.settle();
    objects
        .services
        .insert(key("late"), (service(&[(POOL, "pool")]), ServiceObject::default()));
    objects.settle();
    objects.events.clear();
    objects
}

/// B20: what cannot be made out says nothing about the address that is there. It stays, with all that is written of it, and who
/// waits for it goes on waiting, whoever plans.
#[test]
fn a_mistake_in_what_a_service_asks_for_takes_nothing_from_it() {
    let node_proxy = "node-proxy.openelb.kubesphere.io/type";
    let mistakes = [
        ("`ten` is not an IP address.", ADDRESS, "ten"),
        ("`ten` is not an IP address.", ADDRESS, "10.1.0.8,ten"),
        ("`10.1.0` is not an IP address.", "spec.loadBalancerIP", "10.1.0"),
        ("fd00::5 is IPv6,", ADDRESS, "fd00::5"),
        ("no Eip has 192.0.2.1.", ADDRESS, "192.0.2.1"),
        ("10.2.0.5 is not in Eip pool,", ADDRESS, "10.2.0.5"),
        ("there is no Eip nowhere.", POOL, "nowhere"),
        ("Eip unusable cannot be used.", POOL, "unusable"),
        ("Eip six has no IPv4 addresses,", POOL, "six"),
        ("and `pod` is no kind of it.", node_proxy, "pod"),
    ];
    for (words, field, value) in mistakes {
        let mut objects = served_and_awaited();
        let before = objects.service("web").clone();
        let (book, marks) = (objects.used("pool"), objects.services[&key("web")].1.clone());
        let web = objects.service("web");
        if field == "spec.loadBalancerIP" {
            web.load_balancer_ip = Some(value.into());
        } else {
            web.annotations.insert(field.into(), value.into());
        }
        assert_eq!(objects.round(), [""; 0], "{words}");
        // Also while nothing is given out.
        assert_eq!(plan(&objects.world().giving(false)).actions, [], "{words}");
        assert_eq!(objects.service("web").ingress, [address("10.1.0.8")], "{words}");
        assert_eq!(objects.used("pool"), book);
        let told = objects.services[&key("web")].1.clone();
        assert_eq!((told.finalizer, &told.label), (marks.finalizer, &marks.label));
        let (holds, reason, message) = told.served.map(|it| (it.holds, it.reason, it.message)).unwrap();
        assert_eq!((holds, &*reason), (true, "AddressKept"), "{message}");
        let stays = message.ends_with(" Until then the Service keeps 10.1.0.8.");
        assert!(message.contains(words) && stays, "{message}");
        let warnings = plan(&objects.world()).warnings;
        let of_web: Vec<_> = warnings.iter().filter(|it| it.object.name == "web").collect();
        assert_eq!(of_web.len(), 1, "{of_web:?}");
        assert_eq!((&*of_web[0].reason, &of_web[0].message), ("ConstructRequest", &message));

        // Mended, it is as it was.
        *objects.service("web") = before;
        assert_eq!(objects.round(), [""; 0], "{words}");
        assert_eq!(objects.service("web").ingress, [address("10.1.0.8")], "{words}");
        assert_eq!(
            objects.services[&key("web")].1.served.as_ref().unwrap().reason,
            "Served"
        );
        assert_eq!(objects.events, [""; 0]);
        assert!(objects.service("late").ingress.is_empty());
    }
}

/// B17, B19, B28: what can be made out is followed, also after a mistake.
#[test]
fn after_a_mistake_another_request_moves_the_service_and_its_end_releases_it() {
    let follow = |change: fn(&mut Service), shown: &[&str]| {
        let mut objects = served_and_awaited();
        objects.service("web").annotations.insert(ADDRESS.into(), "ten".into());
        objects.settle();
        change(objects.service("web"));
        objects.settle();
        let shown: Vec<IpAddr> = shown.iter().map(|text| address(text)).collect();
        assert_eq!(objects.service("web").ingress, shown);
        assert_eq!(objects.service("late").ingress, [address("10.1.0.8")]);
    };
    let to_two = |service: &mut Service| {
        service.annotations.insert(POOL.into(), "two".into());
        service.annotations.insert(ADDRESS.into(), "10.2.0.5".into());
    };
    follow(to_two, &["10.2.0.5"]);
    follow(
        |service| drop(service.annotations.remove("lb.kubesphere.io/v1alpha1")),
        &[],
    );
    let to_node_proxy = |service: &mut Service| {
        let key = "node-proxy.openelb.kubesphere.io/type";
        service.annotations.insert(key.into(), "deployment".into());
    };
    follow(to_node_proxy, &[]);
}

/// A13, B20: a mistake does not hold what no Eip has any more.
#[test]
fn a_mistake_holds_no_address_of_an_eip_that_goes() {
    let mut objects = served_and_awaited();
    objects.service("web").annotations.insert(ADDRESS.into(), "ten".into());
    objects.settle();
    objects.eips.get_mut("pool").unwrap().0.deleting = true;
    objects.settle();
    assert!(objects.service("web").ingress.is_empty());
    assert!(!objects.eips.contains_key("pool"));
}

/// B15, B20: of two families, what one of them asks for by mistake costs neither its address; what is dropped is given back.
#[test]
fn a_mistake_about_one_family_costs_no_other() {
    use crate::model::{Family, FamilyPolicy};
    let mut web = service(&[(POOL, "pool,six")]);
    web.family_policy = FamilyPolicy::PreferDualStack;
    web.families = vec![Family::V4, Family::V6];
    let eips = [
        ("pool", eip("10.1.0.8/30")),
        ("two", eip("10.2.0.0/24")),
        ("six", eip("fd00::/64")),
    ];
    let mut objects = Objects::with(&eips, &[("web", web)]);
    objects.settle();
    let both = [address("10.1.0.8"), address("fd00::")];
    assert_eq!(objects.service("web").ingress, both);
    let warnings = |objects: &Objects| -> Vec<String> {
        let warnings = plan(&objects.world()).warnings;
        warnings.into_iter().map(|it| it.message).collect()
    };
    objects.service("web").annotations.insert(POOL.into(), "pol".into());
    assert_eq!(objects.round(), [""; 0]);
    let [told] = &warnings(&objects)[..] else {
        panic!("not once")
    };
    assert!(
        told.ends_with(" Until then the Service keeps 10.1.0.8 and fd00::."),
        "{told}"
    );

    // What one family asks for is there, what the other one does is not.
    let annotations = &mut objects.service("web").annotations;
    annotations.remove(POOL);
    annotations.insert(ADDRESS.into(), "10.2.0.9,fd99::9".into());
    objects.settle();
    let shown = [address("10.2.0.9"), address("fd00::")];
    assert_eq!(
        objects.service("web").ingress.iter().collect::<BTreeSet<_>>(),
        shown.iter().collect()
    );
    let [told] = &warnings(&objects)[..] else {
        panic!("not once")
    };
    assert!(
        told.contains("no Eip has fd99::9.") && told.ends_with(" keeps fd00::."),
        "{told}"
    );

    // An Eip of one family is all that a Service needs that only prefers two.
    let annotations = &mut objects.service("web").annotations;
    annotations.remove(ADDRESS);
    annotations.insert(POOL.into(), "two".into());
    objects.settle();
    assert_eq!(objects.service("web").ingress, [address("10.2.0.9")]);
    assert_eq!(warnings(&objects), [""; 0]);
}
