//! Services that ask for what another has.

use super::*;

fn on_port(port: u16) -> Service {
    let mut service = service(&[(POOL, "pool")]);
    service.ports[0].port = port;
    service
}

impl Objects {
    fn asks(&mut self, name: &str, address: &str) {
        let annotations = &mut self.service(name).annotations;
        annotations.insert(ADDRESS.into(), address.into());
    }

    /// The Eip is full: `a` has the first address, and so on.
    fn full<const N: usize>(range: &str, services: [(&str, Service); N]) -> Self {
        let mut objects = Self::with(&[("pool", eip(range))], &services);
        objects.settle();
        objects.events.clear();
        objects
    }

    /// What is said with the next writes.
    fn said(&self) -> Vec<String> {
        let actions = plan(&self.world()).actions;
        let events = actions.into_iter().flat_map(|action| match action {
            Action::Show { events, .. } | Action::Mark { events, .. } => events,
            Action::Guard { .. } | Action::Record { .. } => Vec::new(),
        });
        events
            .map(|event| format!("{}: {}", event.object, event.message))
            .collect()
    }
}

/// B19, B24: the youngest goes first, each is told, and whoever is waited for is in words what does not go on.
#[test]
fn two_on_one_port_swap_their_addresses() {
    let mut objects = Objects::full("10.1.0.8/31", [("a", on_port(80)), ("b", on_port(80))]);
    objects.service("a").created = Some(200);
    objects.service("b").created = Some(100);
    objects.asks("a", "10.1.0.9");
    objects.asks("b", "10.1.0.8");
    assert_eq!(
        objects.round(),
        ["record pool 10.1.0.8=apps/a;apps/b 10.1.0.9=apps/b;apps/a"]
    );
    assert_eq!(
        objects.said(),
        [
            "Service apps/a: 10.1.0.8 is no longer this Service's: it and apps/b ask for each other's addresses on the same \
             port, and it is the youngest, so it goes first and has none until the others have moved"
        ]
    );
    assert_eq!(objects.round(), ["show a []"]);
    assert_eq!(objects.round(), ["record pool 10.1.0.8=apps/b 10.1.0.9=apps/b;apps/a"]);
    // As told if it stays so.
    let told = |name: &str, objects: &Objects| {
        let served = objects.services[&key(name)].1.served.clone().unwrap();
        (served.holds, served.reason, served.message)
    };
    let (holds, reason, message) = told("a", &objects);
    assert_eq!((holds, &*reason), (false, "AddressAwaited"));
    assert_eq!(
        message,
        "10.1.0.9 is this Service's when Service apps/b has left it; see what that Service says if it does not."
    );
    let (holds, _, message) = told("b", &objects);
    assert!(holds, "what it has is served");
    assert_eq!(
        message,
        "10.1.0.8 is this Service's when whoever had it is struck from the status of its Eip."
    );
    assert_eq!(
        objects.said(),
        [
            "Service apps/b: 10.1.0.9 is no longer this Service's",
            "Service apps/b: 10.1.0.8 of Eip pool is this Service's"
        ]
    );
    assert_eq!(objects.round(), ["show b [10.1.0.8]"]);
    assert_eq!(objects.round(), ["record pool 10.1.0.8=apps/b 10.1.0.9=apps/a"]);
    assert_eq!(objects.round(), ["show a [10.1.0.9]"]);
    assert_eq!(objects.round(), [""; 0]);
    assert_eq!(objects.events, ["ReleaseIP", "ReleaseIP", "AssignIP", "AssignIP"]);
    assert_eq!(told("a", &objects).1, "Served");
}

/// B12, B19: with different ports nobody has to go first.
#[test]
fn two_on_different_ports_swap_at_once() {
    let mut objects = Objects::full("10.1.0.8/31", [("a", on_port(80)), ("b", on_port(443))]);
    objects.asks("a", "10.1.0.9");
    objects.asks("b", "10.1.0.8");
    assert_eq!(
        objects.round(),
        ["record pool 10.1.0.8=apps/a;apps/b 10.1.0.9=apps/b;apps/a"]
    );
    assert_eq!(objects.round(), ["show a [10.1.0.9]", "show b [10.1.0.8]"]);
    assert_eq!(objects.round(), ["record pool 10.1.0.8=apps/b 10.1.0.9=apps/a"]);
    assert_eq!(objects.round(), [""; 0]);
}

/// B19: a row of Services of which the last goes to a free address is no circle: nobody is without one.
#[test]
fn a_row_moves_up_without_a_gap() {
    let names = ["a", "b", "c"];
    let mut objects = Objects::full("10.1.0.8/30", names.map(|name| (name, on_port(80))));
    for (name, address) in [("a", "10.1.0.9"), ("b", "10.1.0.10"), ("c", "10.1.0.11")] {
        objects.asks(name, address);
    }
    for _ in 0..20 {
        objects.round();
        assert!(names.iter().all(|name| !objects.service(name).ingress.is_empty()));
    }
    let shown = names.map(|name| objects.service(name).ingress.clone());
    assert_eq!(
        shown,
        ["10.1.0.9", "10.1.0.10", "10.1.0.11"].map(|it| vec![address(it)])
    );
}

/// B20, B24: of two families, only the address that others wait for is given up.
#[test]
fn the_other_family_stays_while_addresses_are_swapped() {
    let both = |first: &str, second: &str| {
        let mut service = service(&[(POOL, "pool,six"), (ADDRESS, &format!("{first},{second}"))]);
        service.family_policy = crate::model::FamilyPolicy::RequireDualStack;
        service
    };
    let eips = [("pool", eip("10.1.0.8/31")), ("six", eip("fd00::/64"))];
    let services = [("a", both("10.1.0.8", "fd00::8")), ("b", both("10.1.0.9", "fd00::9"))];
    let mut objects = Objects::with(&eips, &services);
    objects.settle();
    objects.asks("a", "10.1.0.9,fd00::8");
    objects.asks("b", "10.1.0.8,fd00::a");
    let mut shows = Vec::new();
    for _ in 0..20 {
        shows.extend(objects.round().into_iter().filter(|made| made.starts_with("show")));
    }
    assert_eq!(
        shows,
        [
            "show b [10.1.0.9 fd00::a]",
            "show b [fd00::a]",
            "show a [fd00::8 10.1.0.9]",
            "show b [fd00::a 10.1.0.8]"
        ]
    );
}

/// B20: of who gave its address up for others and asks no more, the address that it waited for is kept.
#[test]
fn who_has_gone_first_and_changes_its_mind_loses_nothing() {
    let mut objects = Objects::full("10.1.0.8/31", [("a", on_port(80)), ("b", on_port(80))]);
    objects
        .services
        .insert(key("0-waits"), (on_port(80), ServiceObject::default()));
    objects.asks("a", "10.1.0.9");
    objects.asks("b", "10.1.0.8");
    while !objects.service("b").ingress.is_empty() {
        objects.round();
    }
    objects.round();
    objects.service("b").annotations.remove(ADDRESS);
    objects.settle();
    assert_eq!(objects.service("a").ingress, [address("10.1.0.9")]);
    assert_eq!(objects.service("b").ingress, [address("10.1.0.8")]);
    assert!(objects.service("0-waits").ingress.is_empty());
}
