//! Services that ask for each other's addresses.

use crate::{
    checks::{AskedAt, check_not_doubled, check_settled},
    running::{Controller, settle},
    server::{ADDRESSES, Server, ask, key},
};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeSet, net::IpAddr};

/// As many as the smaller Eips have addresses.
const SERVICES: usize = 4;
/// Where the addresses of the third Eip, of the other family, begin.
const OTHER_FAMILY: usize = 5;

/// What each Service is to ask for: the place of its address in the first Eip and, if there is one, in the third.
#[derive(Clone, Debug)]
struct Wish {
    places: Vec<usize>,
    other: Option<Vec<usize>>,
}

impl Wish {
    fn any() -> impl Strategy<Value = Self> {
        let places = || Just((0..SERVICES).collect::<Vec<_>>()).prop_shuffle();
        (places(), proptest::option::of(places())).prop_map(|(places, other)| Self { places, other })
    }

    fn of(places: &[usize]) -> Self {
        Self {
            places: places.to_vec(),
            other: None,
        }
    }

    fn addresses(&self, service: usize) -> Vec<usize> {
        let other = self.other.as_ref().map(|places| places[service] + OTHER_FAMILY);
        std::iter::once(self.places[service]).chain(other).collect()
    }

    fn ask(&self, server: &mut Server, service: usize) {
        let addresses = self.addresses(service);
        server.change_service(&key(service), |service, _| ask(service, &addresses, None));
    }

    fn check_met(&self, server: &Server) -> Result<(), TestCaseError> {
        for index in 0..SERVICES {
            let shown: BTreeSet<IpAddr> = server.now().0[&key(index)].0.ingress.iter().copied().collect();
            let wished = self
                .addresses(index)
                .into_iter()
                .map(|at| ADDRESSES[at].parse().unwrap());
            prop_assert_eq!(shown, wished.collect(), "s{}", index);
        }
        Ok(())
    }
}

/// A server with full Eips, in which each Service has what its number says.
fn full(ports: usize) -> Result<Server, TestCaseError> {
    let mut server = Server::new(false, ports);
    server.create_eip(0);
    server.create_eip(2);
    (0..SERVICES).for_each(|index| server.create_service(index, &[index]));
    settle(&mut server, &mut AskedAt::new())?;
    Ok(server)
}

/// Controllers that are killed after so many writes each, again and again, until one has nothing to do.
fn run_killed(
    server: &mut Server,
    lives: &[usize],
    had_asked: &mut AskedAt,
    mut after: impl FnMut(&Server) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    for life in lives.iter().cycle().take(400) {
        let mut controller = Controller::started(server);
        controller.read_services(server);
        controller.plan(server);
        if controller.todo.is_empty() {
            return Ok(());
        }
        for _ in 0..*life {
            controller.write(server)?;
            check_not_doubled(server.now().0, had_asked)?;
            after(server)?;
        }
    }
    prop_assert!(false, "no end");
    Ok(())
}

/// Every Service has something, shown or in a book.
fn nobody_has_nothing(server: &Server) -> Result<(), TestCaseError> {
    let (services, eips) = server.now();
    let recorded: BTreeSet<_> = eips.values().flat_map(|(_, eip)| eip.status.entries()).collect();
    for (key, (service, _)) in services {
        let has = !service.ingress.is_empty() || recorded.iter().any(|(_, of)| of == key);
        prop_assert!(has, "{key} has nothing");
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config())]

    /// B19, B24: whatever is asked for, one address for each, is had in the end, and nobody has nothing on the way.
    #[test]
    fn any_order_of_full_eips_becomes_any_other(
        ports in 1..=SERVICES,
        wishes in vec(Wish::any(), 1..4),
        lives in vec(1..9_usize, 1..12),
    ) {
        let mut server = full(ports)?;
        let mut had_asked = AskedAt::new();
        for wish in wishes {
            (0..SERVICES).for_each(|service| wish.ask(&mut server, service));
            run_killed(&mut server, &lives, &mut had_asked, nobody_has_nothing)?;
            wish.check_met(&server)?;
            check_settled(&server)?;
        }
    }

    /// B19, B24: also if the wishes come one by one, while those before are under way.
    #[test]
    fn wishes_that_come_one_by_one_are_met(
        ports in 1..=SERVICES,
        wishes in vec((Wish::any(), 0..SERVICES, 0..9_usize), 1..12),
        last in Wish::any(),
        lives in vec(1..9_usize, 1..12),
    ) {
        let mut server = full(ports)?;
        let mut had_asked = AskedAt::new();
        let lasting = (0..SERVICES).map(|service| (last.clone(), service, 0));
        for (wish, service, writes) in wishes.into_iter().chain(lasting) {
            wish.ask(&mut server, service);
            let mut controller = Controller::started(&server);
            controller.read_services(&server);
            controller.plan(&server);
            for _ in 0..writes {
                controller.write(&mut server)?;
                check_not_doubled(server.now().0, &mut had_asked)?;
            }
        }
        run_killed(&mut server, &lives, &mut had_asked, |_| Ok(()))?;
        check_settled(&server)?;
        last.check_met(&server)?;
    }
}

/// B19, B24: circles of two, three and four, with one port or several; no more than one of a circle is ever without an address.
#[test]
fn circles_are_moved_round() -> Result<(), TestCaseError> {
    let circles = |places: &[usize]| {
        let moved = |at: &usize| places[*at] != *at;
        let pair = |at: &usize| moved(at) && places[places[*at]] == *at;
        // A pair is counted at both of its ends.
        let pairs = (0..SERVICES).filter(pair).count() / 2;
        let longer = (0..SERVICES).filter(|at| moved(at) && !pair(at)).count();
        pairs + usize::from(longer > 0)
    };
    for (places, ports) in [
        ([1, 0, 2, 3], 1),
        ([1, 2, 0, 3], 1),
        ([1, 2, 3, 0], 1),
        ([1, 0, 3, 2], 1),
        ([3, 0, 1, 2], 2),
        ([2, 3, 0, 1], 2),
        ([1, 0, 3, 2], 2),
        ([1, 2, 3, 0], 4),
    ] {
        let wish = Wish::of(&places);
        let mut server = full(ports)?;
        (0..SERVICES).for_each(|service| wish.ask(&mut server, service));
        let most = if ports == SERVICES { 0 } else { circles(&places) };
        run_killed(&mut server, &[1], &mut AskedAt::new(), |server| {
            let without = server
                .now()
                .0
                .values()
                .filter(|(service, _)| service.ingress.is_empty());
            prop_assert!(without.count() <= most, "{:?} with {} ports", places, ports);
            nobody_has_nothing(server)
        })?;
        wish.check_met(&server)?;
        check_settled(&server)?;
    }
    Ok(())
}
