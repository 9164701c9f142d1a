//! Controllers against a model of the API server: whatever is done to the objects, however old the controllers' views are and
//! wherever they stop, no address is lost or given twice, and in the end there is nothing left to write.

mod checks;
mod running;
mod server;
mod swaps;

use checks::{AskedAt, check_not_doubled, check_settled};
use proptest::{collection::vec, option, prelude::*, test_runner::RngSeed};
use running::{Controller, settle};
use server::{ADDRESSES, HALVES, MISTAKES, RANGES, Server, Services, ask, key};
use weir_core::controller::{Action, EipStatus};

const SERVICES: usize = 5;
/// What is done, in any order.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, Vec<usize>),
    Delete(usize),
    /// Asks for addresses, an Eip, or neither.
    Ask(usize, Vec<usize>, Option<usize>),
    /// Asks for what nobody can make out.
    Mistake(usize, usize),
    OptIn(usize, bool),
    CreateEip(usize),
    DeleteEip(usize),
    Disable(usize, bool),
    LoseInterface(usize, bool),
    /// Leaves an Eip half of its addresses, or gives it all of them again.
    Resize(usize, bool),
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
    let addresses = || vec(0..ADDRESSES.len(), 0..3);
    let who = || 0..2_usize;
    prop_oneof![
        3 => (service(), addresses()).prop_map(|(s, a)| Step::Create(s, a)),
        2 => service().prop_map(Step::Delete),
        2 => (service(), addresses(), option::of(eip())).prop_map(|(s, a, e)| Step::Ask(s, a, e)),
        2 => (service(), 0..MISTAKES.len()).prop_map(|(s, m)| Step::Mistake(s, m)),
        1 => (service(), any::<bool>()).prop_map(|(s, on)| Step::OptIn(s, on)),
        2 => eip().prop_map(Step::CreateEip),
        1 => eip().prop_map(Step::DeleteEip),
        1 => (eip(), any::<bool>()).prop_map(|(e, on)| Step::Disable(e, on)),
        1 => (eip(), any::<bool>()).prop_map(|(e, on)| Step::LoseInterface(e, on)),
        2 => (eip(), any::<bool>()).prop_map(|(e, all)| Step::Resize(e, all)),
        1 => eip().prop_map(Step::LoseBook),
        8 => (who(), 1..4_usize).prop_map(|(c, n)| Step::SeeServices(c, n)),
        8 => (who(), 1..4_usize).prop_map(|(c, n)| Step::SeeEips(c, n)),
        8 => who().prop_map(Step::Plan),
        20 => who().prop_map(Step::Act),
        4 => who().prop_map(Step::ReadServices),
        1 => who().prop_map(Step::Crash),
    ]
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

    /// A10, B20, B23, B24.
    #[test]
    fn no_address_is_lost_or_given_twice(
        full in any::<bool>(),
        hold in any::<bool>(),
        ports in 1..4_usize,
        steps in vec(step(), 20..250),
    ) {
        let mut server = Server::new(hold, ports);
        server.create_eip(0);
        if full {
            // All of the small Eip is given out, so that whatever becomes free is wanted.
            (0..SERVICES).for_each(|index| server.create_service(index, &[]));
            settle(&mut server, &mut AskedAt::new())?;
        }
        let mut controllers = [Controller::started(&server), Controller::started(&server)];
        // Who shows an address that it asked for when it came to it.
        let mut had_asked = AskedAt::new();
        for step in steps {
            match step {
                Step::Create(index, addresses) => server.create_service(index, &addresses),
                Step::Delete(index) => server.change_service(&key(index), |service, _| service.deleting = true),
                Step::Ask(index, addresses, eip) => {
                    server.change_service(&key(index), |service, _| ask(service, &addresses, eip));
                }
                Step::Mistake(index, mistake) => {
                    let (key_of, value) = MISTAKES[mistake];
                    server.change_service(&key(index), |service, _| {
                        service.annotations.insert(key_of.into(), value.into());
                    });
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
                Step::Resize(index, all) => server.change_eip(&format!("e{index}"), |eip, _| {
                    eip.address = if all { RANGES } else { HALVES }[index].into();
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
    let mut server = Server::new(false, 2);
    let lose_book = |server: &mut Server| {
        server.change_eip("e0", |_, object| object.status = EipStatus::default());
    };
    server.create_eip(0);
    server.create_service(1, &[]);
    // The first controller stops when the Service is marked, and before it shows its address.
    act_until(&mut server, |services| services[&key(1)].1.marked())?;
    let mut old = Controller::started(&server);
    old.plan(&server);
    lose_book(&mut server);
    // The second one, when another Service shows the same address.
    server.create_service(0, &[]);
    act_until(&mut server, |services| !services[&key(0)].0.ingress.is_empty())?;
    prop_assert!(server.now().0[&key(1)].0.ingress.is_empty());
    lose_book(&mut server);
    for _ in 0..4 {
        old.eips = server.eips.len() - 1;
        old.plan(&server);
        while !old.todo.is_empty() {
            old.act(&mut server)?;
            check_not_doubled(server.now().0, &mut AskedAt::new())?;
        }
    }
    settle(&mut server, &mut AskedAt::new())?;
    check_settled(&server)
}

/// A10: whoever waits for an address of an Eip that is full gets one when it grows, and nobody else moves.
#[test]
fn who_waits_gets_an_address_of_an_eip_that_grows() -> Result<(), TestCaseError> {
    let mut server = Server::new(false, 1);
    server.create_eip(0);
    server.change_eip("e0", |eip, _| eip.address = HALVES[0].into());
    (0..4).for_each(|index| server.create_service(index, &[]));
    let shown = |server: &Server| -> Vec<Vec<String>> {
        let services = server.now().0.values();
        services
            .map(|(service, _)| service.ingress.iter().map(ToString::to_string).collect())
            .collect()
    };
    settle(&mut server, &mut AskedAt::new())?;
    check_settled(&server)?;
    prop_assert_eq!(shown(&server), [vec!["10.1.0.0"], vec!["10.1.0.1"], vec![], vec![]]);
    prop_assert!(server.now().1["e0"].1.status.occupied);
    server.change_eip("e0", |eip, _| eip.address = RANGES[0].into());
    settle(&mut server, &mut AskedAt::new())?;
    check_settled(&server)?;
    prop_assert_eq!(
        shown(&server),
        [vec!["10.1.0.0"], vec!["10.1.0.1"], vec!["10.1.0.2"], vec!["10.1.0.3"]]
    );
    Ok(())
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
