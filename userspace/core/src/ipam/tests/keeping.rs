//! Addresses that Services have already.

use super::*;

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
    Arc::make_mut(told.services.get_mut(&key("s")).unwrap()).ingress = vec!["10.1.0.8".parse().unwrap()];
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

/// A file that cannot be read may have the Service whose address is remembered.
#[test]
fn an_address_of_a_service_that_may_be_unread_is_withheld() {
    let told = Service {
        ingress: vec!["10.1.0.0".parse().unwrap()],
        ..service(&[])
    };
    for automatic in [Automatic::Lowest, Automatic::Hashed] {
        let eips = [("pool", default_eip("10.1.0.0/31"))];
        let mut restarted = cluster(eips, [("new", service(&[])), ("told", told.clone())]);
        restarted.automatic = automatic;
        hold(&mut restarted, "unread", &["10.1.0.0"]);
        let fault = |reason| Condition::new(ObjectRef::cluster_scoped("File", "a.yaml"), "", reason, String::new());
        restarted.faults = vec![fault(reason::UNPARSABLE)];
        expect(&restarted, &[("new", "10.1.0.1")], &["told Exhausted"]);

        // Those that shared it go on.
        hold(&mut restarted, "told", &["10.1.0.0"]);
        expect(&restarted, &[("new", "10.1.0.1"), ("told", "10.1.0.0")], &[]);

        // Everything was read, so the Service is gone.
        Arc::make_mut(&mut restarted.previous).remove(&key("told"));
        restarted.faults = vec![fault(reason::INVALID_VALUE)];
        expect(&restarted, &[("new", "10.1.0.1"), ("told", "10.1.0.0")], &[]);
    }
}

/// B13, B20: who came first is asked address by address: being second at another one costs nobody a port.
#[test]
fn who_came_first_to_one_address_need_not_to_another() {
    let mut pool = default_eip("10.1.0.0/24");
    pool.shared = [("10.1.0.1", ["b", "a"]), ("10.1.0.2", ["c", "b"])]
        .map(|(address, names)| (address.parse().unwrap(), names.map(key).to_vec()))
        .into();
    let shows = |address: &str| Service {
        ingress: vec![address.parse().unwrap()],
        ..service(&[])
    };
    let mut cluster = cluster([("pool", pool)], [("a", shows("10.1.0.1")), ("b", shows("10.1.0.1"))]);
    expect(&cluster, &[("a", "10.1.0.0"), ("b", "10.1.0.1")], &[]);
    cluster.automatic = Automatic::Given;
    expect(&cluster, &[("b", "10.1.0.1")], &["a PortConflict"]);
}

/// B20: what cannot be made out keeps what it has, shown or in the book, and takes nothing new; of hosts that each allocate
/// for themselves not all know what it had.
#[test]
fn what_cannot_be_made_out_keeps_what_it_has() {
    let eips = [("pool", default_eip("10.1.0.0/30"))];
    let shows = Service {
        ingress: vec!["10.1.0.0".parse().unwrap()],
        ..service(&[(ADDRESS, "ten")])
    };
    let services = [
        ("booked", service(&[(POOL, "nowhere")])),
        ("late", service(&[])),
        ("new", service(&[(ADDRESS, "ten")])),
        ("shows", shows),
    ];
    let mut held = cluster(eips, services);
    hold(&mut held, "booked", &["10.1.0.1"]);
    let kept = [("booked", "10.1.0.1"), ("late", "10.1.0.2"), ("shows", "10.1.0.0")];
    let said = ["booked AddressKept", "new InvalidAddress", "shows AddressKept"];
    expect(&held, &kept, &said);
    held.automatic = Automatic::Kept;
    expect(&held, &[kept[0], kept[2]], &said);
    held.automatic = Automatic::Hashed;
    let (addresses, said) = outcome(&held);
    assert_eq!(addresses.keys().collect::<Vec<_>>(), ["late"]);
    assert_eq!(
        said,
        ["new InvalidAddress", "shows InvalidAddress", "booked UnknownEip"]
    );
}

/// B12, B20, B24: whoever shares an address keeps it in spite of a mistake, and nobody comes to one by a mistake.
#[test]
fn a_mistake_parts_nobody_and_brings_nobody_together() {
    let on = |number, asked: &str| Service {
        ports: vec![port(number)],
        ..service(&[(ADDRESS, asked)])
    };
    let shows = |service| Service {
        ingress: vec!["10.1.0.3".parse().unwrap()],
        ..service
    };
    let eips = || [("pool", default_eip("10.1.0.0/30"))];
    let mut shared = cluster(
        eips(),
        [
            ("a", shows(on(80, "10.1.0.3"))),
            ("b", shows(on(443, "ten"))),
            ("c", shows(on(80, "ten"))),
        ],
    );
    let all = [("a", "10.1.0.3"), ("b", "10.1.0.3"), ("c", "10.1.0.3")];
    expect(&shared, &all, &["b AddressKept", "c AddressKept"]);

    // In the book beside somebody who has not asked either.
    let unasked = Service {
        ports: vec![port(25)],
        ..service(&[])
    };
    shared = cluster(eips(), [("a", shows(unasked)), ("b", on(443, "ten"))]);
    hold(&mut shared, "a", &["10.1.0.3"]);
    hold(&mut shared, "b", &["10.1.0.3"]);
    expect(&shared, &[("a", "10.1.0.3")], &["b InvalidAddress"]);
}
