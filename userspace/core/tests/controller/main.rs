//! Controllers against a model of the API server: whatever is done to the objects, however old the controllers' views are and
//! wherever they stop, no address is lost or given twice, and in the end there is nothing left to write.

mod server;

use proptest::{collection::vec, option, prelude::*, test_runner::RngSeed};
use server::{ADDRESSES, RANGES, Server, Services, ask, key};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_core::{
    controller::{Action, EipStatus, Fresh, Freshness, World, plan},
    ipam,
    model::{Automatic, Cluster, Service, ServiceKey},
};

const SERVICES: usize = 5;
/// What is done, in any order.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, Option<usize>),
    Delete(usize),
    /// Asks for an address, an Eip, or neither.
    Ask(usize, Option<usize>, Option<usize>),
    OptIn(usize, bool),
    CreateEip(usize),
    DeleteEip(usize),
    Disable(usize, bool),
    LoseInterface(usize, bool),
    LoseBook(usize),
    // What controllers do.
    SeeServices(usize, usize),
    SeeEips(usize, usize),
    Plan(usize),
    Act(usize),
    ReadServices(usize),
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let service = || 0..SERVICES;
    let eip = || 0..RANGES.len();
    let who = || 0..2_usize;
    prop_oneof![
        3 => (service(), option::of(0..ADDRESSES.len())).prop_map(|(s, a)| Step::Create(s, a)),
        2 => service().prop_map(Step::Delete),
        2 => (service(), option::of(0..ADDRESSES.len()), option::of(eip())).prop_map(|(s, a, e)| Step::Ask(s, a, e)),
        1 => (service(), any::<bool>()).prop_map(|(s, on)| Step::OptIn(s, on)),
        2 => eip().prop_map(Step::CreateEip),
        1 => eip().prop_map(Step::DeleteEip),
        1 => (eip(), any::<bool>()).prop_map(|(e, on)| Step::Disable(e, on)),
        1 => (eip(), any::<bool>()).prop_map(|(e, on)| Step::LoseInterface(e, on)),
        1 => eip().prop_map(Step::LoseBook),
        8 => (who(), 1..4_usize).prop_map(|(c, n)| Step::SeeServices(c, n)),
        8 => (who(), 1..4_usize).prop_map(|(c, n)| Step::SeeEips(c, n)),
        8 => who().prop_map(Step::Plan),
        20 => who().prop_map(Step::Act),
        4 => who().prop_map(Step::ReadServices),
        1 => who().prop_map(Step::Crash),
    ]
}

/// One controller: how old its views are, and what it is about to do.
#[derive(Default)]
struct Controller {
    services: usize,
    eips: usize,
    freshness: Freshness,
    world: World,
    todo: Vec<Action>,
    /// Whether the Eips have been found to be those of `world`.
    confirmed: Option<bool>,
}

impl Controller {
    fn started(server: &Server) -> Self {
        Self {
            services: server.services.len() - 1,
            eips: server.eips.len() - 1,
            ..Self::default()
        }
    }

    fn cluster(&self, server: &Server) -> Cluster {
        let (services, eips) = (&server.services[self.services], &server.eips[self.eips]);
        Cluster {
            services: services
                .iter()
                .map(|(key, (service, _))| (key.clone(), service.clone().into()))
                .collect(),
            eips: eips
                .iter()
                .map(|(name, (eip, _))| (name.clone(), eip.clone()))
                .collect(),
            rules: server.rules.clone(),
            ..Cluster::default()
        }
    }

    fn world(&self, server: &Server, give: bool) -> World {
        let (services, eips) = (&server.services[self.services], &server.eips[self.eips]);
        let cluster = self.cluster(server);
        let services = services
            .iter()
            .map(|(key, (_, object))| (key.clone(), object.clone()))
            .collect();
        let eips = eips
            .iter()
            .map(|(name, (_, object))| (name.clone(), object.clone()))
            .collect();
        World::new(cluster, services, eips, give)
    }

    fn plan(&mut self, server: &Server) {
        let fresh = self.freshness.observe(&self.world(server, false));
        self.world = self.world(server, fresh == Fresh::Yes);
        self.todo = plan(&self.world).actions;
        self.todo.reverse();
        self.confirmed = None;
    }

    fn read_services(&mut self, server: &Server) {
        let world = self.world(server, false);
        self.freshness.observe(&world);
        let now = server.now().0.iter();
        let now = now
            .map(|(key, (_, object))| (key.clone(), object.resource_version.clone()))
            .collect();
        self.freshness.listed(&world, now);
    }

    /// Does the next thing of what it has planned; gives whether it changed anything.
    fn act(&mut self, server: &mut Server) -> Result<bool, TestCaseError> {
        let Some(action) = self.todo.pop() else {
            return Ok(false);
        };
        let (services, eips) = server.now();
        match action {
            Action::Show {
                service,
                resource_version,
                addresses,
                ..
            } => {
                let Some(confirmed) = self.confirmed else {
                    let now = eips
                        .iter()
                        .map(|(name, (_, object))| (name.as_str(), object.resource_version.as_str()));
                    self.confirmed = Some(now.eq(self.world.eip_versions()));
                    self.todo.push(Action::Show {
                        service,
                        resource_version,
                        addresses,
                        events: Vec::new(),
                    });
                    return Ok(true);
                };
                let current = services
                    .get(&service)
                    .filter(|(_, it)| it.resource_version == resource_version);
                let Some((before, _)) = current.filter(|_| confirmed) else {
                    return Ok(false);
                };
                sticky(&service, before, &addresses, server)?;
                server.change_service(&service, |service, _| service.ingress = addresses);
            }
            Action::Mark {
                service,
                resource_version,
                eip,
                ..
            } => {
                if services
                    .get(&service)
                    .is_none_or(|(_, it)| it.resource_version != resource_version)
                {
                    return Ok(false);
                }
                server.change_service(&service, |service, object| {
                    object.finalizer = eip.is_some();
                    service.label.clone_from(&eip);
                    object.label = eip;
                });
            }
            Action::Guard {
                eip,
                resource_version,
                finalizer,
            } => {
                if eips
                    .get(&eip)
                    .is_none_or(|(_, it)| it.resource_version != resource_version)
                {
                    return Ok(false);
                }
                server.change_eip(&eip, |_, object| object.finalizer = finalizer);
            }
            Action::Record {
                eip,
                resource_version,
                status,
            } => {
                if eips
                    .get(&eip)
                    .is_none_or(|(_, it)| it.resource_version != resource_version)
                {
                    return Ok(false);
                }
                server.change_eip(&eip, |_, object| object.status = status);
            }
        }
        Ok(true)
    }
}

fn asked(service: &Service) -> Option<IpAddr> {
    service
        .annotations
        .get("eip.openelb.kubesphere.io/v1alpha1")?
        .parse()
        .ok()
}

fn opted_in(service: &Service) -> bool {
    service.annotations.contains_key("lb.kubesphere.io/v1alpha1") && !service.deleting
}

/// What a Service shows changes only if it can no longer have it (B20).
fn sticky(key: &ServiceKey, service: &Service, after: &[IpAddr], server: &Server) -> Result<(), TestCaseError> {
    let eips = server.now().1;
    for address in service.ingress.iter().filter(|address| !after.contains(address)) {
        let named = service.annotations.get("eip.openelb.kubesphere.io/v1alpha2");
        let offered = eips.iter().any(|(name, (eip, _))| {
            let range: ipam::AddressRange = eip.address.parse().unwrap();
            (!eip.deleting || server.rules.hold_eips_in_use)
                && range.contains(*address)
                && named.is_none_or(|named| named == name)
        });
        let fits = opted_in(service) && offered && asked(service).is_none_or(|asked| asked == *address);
        prop_assert!(!fits, "{key} loses {address}, gets {after:?}");
    }
    Ok(())
}

/// Who shows each address: all but one asked for it when they came to it or later, and none has the port of another.
fn check_not_doubled(services: &Services, had_asked: &mut BTreeSet<(ServiceKey, IpAddr)>) -> Result<(), TestCaseError> {
    for (key, (service, _)) in services {
        let asked = asked(service).filter(|asked| service.ingress.contains(asked));
        had_asked.extend(asked.map(|asked| (key.clone(), asked)));
    }
    had_asked.retain(|(key, address)| {
        services
            .get(key)
            .is_some_and(|(service, _)| service.ingress.contains(address))
    });
    let mut shown: BTreeMap<IpAddr, Vec<(&ServiceKey, &Service)>> = BTreeMap::new();
    for (key, (service, _)) in services {
        for address in &service.ingress {
            shown.entry(*address).or_default().push((key, service));
        }
    }
    for (address, who) in shown {
        let unasked = who
            .iter()
            .filter(|(key, _)| !had_asked.contains(&((*key).clone(), address)))
            .count();
        prop_assert!(
            unasked <= 1,
            "{address} is shown by {:?}",
            who.iter().map(|it| it.0).collect::<Vec<_>>()
        );
        let ports: BTreeSet<u16> = who
            .iter()
            .flat_map(|(_, service)| &service.ports)
            .map(|port| port.port)
            .collect();
        prop_assert_eq!(ports.len(), who.len(), "a port twice at {}", address);
    }
    Ok(())
}

/// Runs one controller until nothing is left to write.
fn settle(server: &mut Server, had_asked: &mut BTreeSet<(ServiceKey, IpAddr)>) -> Result<(), TestCaseError> {
    let mut controller = Controller::started(server);
    for _ in 0..60 {
        controller.services = server.services.len() - 1;
        controller.eips = server.eips.len() - 1;
        controller.read_services(server);
        controller.plan(server);
        if controller.todo.is_empty() {
            return Ok(());
        }
        while !controller.todo.is_empty() {
            controller.act(server)?;
            check_not_doubled(server.now().0, had_asked)?;
        }
    }
    controller.plan(server);
    prop_assert!(false, "no end: {:?}", controller.todo);
    Ok(())
}

/// In the end the books say what Services show, and whoever could have an address has one.
fn check_settled(server: &Server) -> Result<(), TestCaseError> {
    let (services, eips) = server.now();
    let mut shown = BTreeSet::new();
    for (key, (service, object)) in services {
        for address in &service.ingress {
            shown.insert((*address, key.clone()));
        }
        prop_assert!(!service.deleting, "{key} is stuck");
        prop_assert_eq!(
            object.finalizer,
            !service.ingress.is_empty(),
            "the finalizer of {}",
            key
        );
        prop_assert_eq!(object.label.is_some(), object.finalizer, "the label of {}", key);
    }
    let mut recorded = BTreeSet::new();
    for (name, (eip, object)) in eips {
        let held = server.rules.hold_eips_in_use && object.status.usage > 0;
        prop_assert!((!eip.deleting || held) && object.finalizer, "Eip {name}");
        recorded.extend(object.status.entries());
        prop_assert_eq!(object.status.usage, i64::try_from(object.status.used.len()).unwrap());
    }
    prop_assert_eq!(&shown, &recorded);
    // As the allocator of the plans says it, from nothing but what is shown.
    let controller = Controller::started(server);
    let mut cluster = controller.cluster(server);
    cluster.automatic = Automatic::Lowest;
    let mut conditions = Vec::new();
    let pools = ipam::Pools::new(&cluster.eips, &mut conditions);
    let allocations = ipam::allocate(&cluster, &pools, &mut conditions);
    for (key, addresses) in allocations.by_service {
        let (service, _) = &services[key];
        prop_assert_eq!(&service.ingress, &addresses.into_iter().collect::<Vec<_>>(), "{}", key);
    }
    Ok(())
}

/// The same 200 runs each time, so that a change is what makes it fail; or as many as PROPTEST_CASES says, others each time, for a
/// longer search than a test has time for.
fn config() -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES").ok();
    let given = given.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: given.unwrap_or(200),
        rng_seed: given.map_or(RngSeed::Fixed(1), |_| RngSeed::Random),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// B20, B23, B24.
    #[test]
    fn no_address_is_lost_or_given_twice(
        full in any::<bool>(),
        hold in any::<bool>(),
        steps in vec(step(), 20..250),
    ) {
        let mut server = Server::new(hold);
        server.create_eip(0);
        if full {
            // All of the small Eip is given out, so that whatever becomes free is wanted.
            (0..SERVICES).for_each(|index| server.create_service(index, None));
            settle(&mut server, &mut BTreeSet::new())?;
        }
        let mut controllers = [Controller::started(&server), Controller::started(&server)];
        // Who shows an address that it asked for when it came to it.
        let mut had_asked = BTreeSet::new();
        for step in steps {
            match step {
                Step::Create(index, address) => server.create_service(index, address),
                Step::Delete(index) => server.change_service(&key(index), |service, _| service.deleting = true),
                Step::Ask(index, address, eip) => {
                    server.change_service(&key(index), |service, _| ask(service, address, eip));
                }
                Step::OptIn(index, on) => server.change_service(&key(index), |service, _| {
                    service.annotations.remove("lb.kubesphere.io/v1alpha1");
                    let value = on.then(|| ("lb.kubesphere.io/v1alpha1".to_owned(), "openelb".to_owned()));
                    service.annotations.extend(value);
                }),
                Step::CreateEip(index) => server.create_eip(index),
                Step::DeleteEip(index) => server.change_eip(&format!("e{index}"), |eip, _| eip.deleting = true),
                Step::Disable(index, on) => server.change_eip(&format!("e{index}"), |eip, _| eip.disabled = on),
                Step::LoseInterface(index, on) => server.change_eip(&format!("e{index}"), |eip, _| {
                    eip.interface = (!on).then(|| "eth0".to_owned());
                }),
                Step::LoseBook(index) => {
                    // Not while a Service is being given what the book says: nobody could know of it any more.
                    if controllers.iter().all(|it| it.todo.is_empty()) {
                        server.change_eip(&format!("e{index}"), |_, object| object.status = EipStatus::default());
                    }
                }
                Step::SeeServices(who, more) => {
                    let it = &mut controllers[who];
                    it.services = (it.services + more).min(server.services.len() - 1);
                }
                Step::SeeEips(who, more) => {
                    let it = &mut controllers[who];
                    it.eips = (it.eips + more).min(server.eips.len() - 1);
                }
                Step::Plan(who) => controllers[who].plan(&server),
                Step::Act(who) => {
                    controllers[who].act(&mut server)?;
                }
                Step::ReadServices(who) => controllers[who].read_services(&server),
                Step::Crash(who) => controllers[who] = Controller::started(&server),
            }
            check_not_doubled(server.now().0, &mut had_asked)?;
        }
        settle(&mut server, &mut had_asked)?;
        check_settled(&server)?;
    }
}

/// B23, B24: what a lost book had may be shown by a Service that an old view does not know of.
#[test]
fn nothing_of_a_lost_book_is_given_out_by_an_old_view() -> Result<(), TestCaseError> {
    let mut server = Server::new(false);
    let lose_book = |server: &mut Server| {
        server.change_eip("e0", |_, object| object.status = EipStatus::default());
    };
    server.create_eip(0);
    server.create_service(1, None);
    // The first controller stops when the Service is marked, and before it shows its address.
    act_until(&mut server, |services| services[&key(1)].1.marked())?;
    let mut old = Controller::started(&server);
    old.plan(&server);
    lose_book(&mut server);
    // The second one, when another Service shows the same address.
    server.create_service(0, None);
    act_until(&mut server, |services| !services[&key(0)].0.ingress.is_empty())?;
    prop_assert!(server.now().0[&key(1)].0.ingress.is_empty());
    lose_book(&mut server);
    for _ in 0..4 {
        old.eips = server.eips.len() - 1;
        old.plan(&server);
        while !old.todo.is_empty() {
            old.act(&mut server)?;
            check_not_doubled(server.now().0, &mut BTreeSet::new())?;
        }
    }
    settle(&mut server, &mut BTreeSet::new())?;
    check_settled(&server)
}

/// A controller that knows all there is, and stops when something is true of the Services; its Shows of `s1` are lost.
fn act_until(server: &mut Server, done: impl Fn(&Services) -> bool) -> Result<(), TestCaseError> {
    while !done(server.now().0) {
        let mut controller = Controller::started(server);
        controller.read_services(server);
        controller.plan(server);
        let lost = |action: &Action| matches!(action, Action::Show { service, .. } if *service == key(1));
        controller.todo.retain(|action| !lost(action));
        prop_assert!(!controller.todo.is_empty());
        while !controller.todo.is_empty() && !done(server.now().0) {
            controller.act(server)?;
        }
    }
    Ok(())
}

/// B19, B24: each asks for the address of the other, and no third one is free.
#[test]
fn two_that_ask_for_each_others_address_both_get_it() -> Result<(), TestCaseError> {
    let mut server = Server::new(false);
    server.create_eip(0);
    (0..SERVICES).for_each(|index| server.create_service(index, None));
    settle(&mut server, &mut BTreeSet::new())?;
    for (service, address) in [(1, 1), (2, 0)] {
        server.change_service(&key(service), |service, _| ask(service, Some(address), None));
    }
    settle(&mut server, &mut BTreeSet::new())?;
    check_settled(&server)?;
    for (service, address) in [(1, 1), (2, 0)] {
        let asked: IpAddr = ADDRESSES[address].parse().unwrap();
        prop_assert_eq!(&server.now().0[&key(service)].0.ingress, &[asked]);
    }
    Ok(())
}
