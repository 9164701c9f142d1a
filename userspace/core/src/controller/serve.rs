//! Services: what each is to have and where it stands on the way there.

use super::{
    Action, Event, ServiceObject, World,
    handover::{Circles, Holders, Turn},
};
use crate::{
    ipam::{AddressRange, Allocations},
    model::{Automatic, Family, ObjectRef, Service, ServiceKey},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

/// An address and the Eip it is of.
pub(super) type Taken<'a> = (IpAddr, &'a str);

/// What all Services are to have.
pub(super) struct Served<'a> {
    pub(super) world: &'a World,
    /// By Service, in the order of its families; those that are to have nothing are missing.
    pub(super) wanted: BTreeMap<&'a ServiceKey, Vec<Taken<'a>>>,
    /// Services that are to be left as they are, as what they will have is not known now.
    waiting: BTreeSet<&'a ServiceKey>,
    /// Services of ours, whether they are to have anything or not.
    asking: BTreeSet<&'a ServiceKey>,
    /// Who asked for the very address that it is to have.
    pub(super) asked: BTreeSet<(&'a ServiceKey, IpAddr)>,
    /// What is in the books, each with the Eip whose book it is.
    recorded: BTreeSet<(ServiceKey, IpAddr, &'a str)>,
    /// Who is where now.
    pub(super) holders: Holders<'a>,
    /// Who gives up what before it has something else.
    circles: Circles<'a>,
    /// Whether anything is given out by this snapshot.
    pub(super) giving: bool,
}

impl<'a> Served<'a> {
    pub(super) fn new(world: &'a World, allocations: Allocations<'a>) -> Self {
        let mut wanted: BTreeMap<&ServiceKey, Vec<Taken<'a>>> = BTreeMap::new();
        for (key, addresses) in &allocations.by_service {
            let taken = addresses
                .iter()
                .filter_map(|address| Some((*address, allocations.claims.get(address)?.eip)));
            wanted.insert(key, taken.collect());
        }
        for (key, taken) in &mut wanted {
            // What is shown stays where it is, and so does the label.
            if let Some(service) = world.cluster.services.get(*key) {
                taken.sort_by_key(|(address, _)| place(service, *address));
            }
        }
        let giving = world.cluster.automatic != Automatic::Kept;
        let waiting = allocations.asking.iter().copied();
        let waiting = waiting.filter(|key| !giving && !wanted.contains_key(*key)).collect();
        let recorded = world.eips.iter().flat_map(|(name, eip)| {
            let entries = eip.status.entries();
            entries.map(move |(address, key)| (key, address, name.as_str()))
        });
        let recorded = recorded.collect();
        let mut served = Self {
            holders: Holders::new(world, &recorded),
            world,
            recorded,
            wanted,
            waiting,
            asking: allocations.asking,
            asked: allocations.asked,
            circles: Circles::new(),
            giving,
        };
        served.circles = served.circles();
        served
    }

    /// Whether an object is a Service that is to have nothing.
    pub(super) fn lacks_all(&self, object: &ObjectRef) -> bool {
        let key = ServiceKey {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        object.kind == "Service" && !self.wanted.contains_key(&key)
    }

    /// Whether a Service is to have an address.
    pub(super) fn wants(&self, key: &ServiceKey, address: IpAddr) -> bool {
        self.eip_of(key, address).is_some()
    }

    /// The Eip of which a Service is to have an address.
    pub(super) fn eip_of(&self, key: &ServiceKey, address: IpAddr) -> Option<&'a str> {
        let mut taken = self.wanted.get(key).into_iter().flatten();
        taken.find(|(wanted, _)| *wanted == address).map(|(_, eip)| *eip)
    }

    /// The next write of every Service that is not yet, or no longer, as it is to be.
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut shows = Vec::new();
        let mut marks = Vec::new();
        for (key, service, _) in self.world.services() {
            match self.next(key, service) {
                Some(action @ Action::Show { .. }) => shows.push(action),
                Some(action) => marks.push(action),
                None => {}
            }
        }
        shows.append(&mut marks);
        shows
    }

    /// Whether a Service is what it is to be, entries in books aside; one that is gone is.
    pub(super) fn settled(&self, key: &ServiceKey) -> bool {
        match self.world.cluster.services.get(key) {
            Some(service) => {
                let shows = |taken: &Vec<Taken<'_>>| taken.iter().map(|(address, _)| address).eq(&service.ingress);
                let waiting = self.waiting.contains(key) || !self.in_books(key);
                !waiting && self.wanted.get(key).is_none_or(shows) && self.next(key, service).is_none()
            }
            None => true,
        }
    }

    /// Whether a Service that is not to have an address has no more use for being in its book: it does not show it, and what
    /// it is to have instead is in a book.
    pub(super) fn has_left(&self, key: &ServiceKey, address: IpAddr) -> bool {
        let (Some(service), Some(taken)) = (self.world.cluster.services.get(key), self.wanted.get(key)) else {
            return self.settled(key);
        };
        let of_family = |(other, _): &&Taken<'_>| Family::of(*other) == Family::of(address);
        let mut instead = taken.iter().filter(of_family).peekable();
        let known = instead.peek().is_some() || self.giving;
        !service.ingress.contains(&address) && known && instead.all(|(other, eip)| self.is_recorded(key, *other, eip))
    }

    /// Whether all a Service is to have is in the books.
    pub(super) fn in_books(&self, key: &ServiceKey) -> bool {
        let mut taken = self.wanted.get(key).into_iter().flatten();
        taken.all(|(address, eip)| self.is_recorded(key, *address, eip))
    }

    fn is_recorded(&self, key: &ServiceKey, address: IpAddr, eip: &'a str) -> bool {
        self.recorded.contains(&(key.clone(), address, eip))
    }

    /// Whether a Service that is to have something has the label and the finalizer for it.
    pub(super) fn is_marked(&self, key: &ServiceKey, object: &ServiceObject) -> bool {
        let first = self.wanted.get(key).and_then(|taken| taken.first());
        let label = object.label.as_deref();
        object.finalizer && label.is_some() && label == first.map(|(_, eip)| *eip)
    }

    fn next(&self, key: &ServiceKey, service: &Service) -> Option<Action> {
        let object = self.world.services.get(key)?;
        if self.waiting.contains(key) {
            return None;
        }
        let taken = self.wanted.get(key).map_or(&[][..], Vec::as_slice);
        let show = |addresses: Vec<IpAddr>| Action::Show {
            service: key.clone(),
            resource_version: object.resource_version.clone(),
            events: self.events(key, object, &service.ingress, &addresses),
            addresses,
        };
        let mark = |eip: Option<&str>, events| Action::Mark {
            service: key.clone(),
            resource_version: object.resource_version.clone(),
            eip: eip.map(str::to_owned),
            events,
        };
        // That OpenELB is gone keeps no Service.
        let proxy = (service.deleting && object.node_proxy).then(|| Event::proxy_left(key, object));
        match taken.first() {
            // The book comes first.
            Some(_) if !self.in_books(key) => None,
            Some((_, eip)) if !self.is_marked(key, object) => Some(mark(Some(eip), Vec::new())),
            Some(_) => {
                let showing = self.showing(key, service);
                (service.ingress != showing || object.foreign_ingress).then(|| show(showing))
            }
            // What has no mark of ours was never given anything by us; its status is somebody else's.
            None if !object.marked() => proxy.is_some().then(|| mark(None, proxy.into_iter().collect())),
            None if self.gave_any(key, service, object) => Some(show(Vec::new())),
            // With another type, the API server itself has emptied the status.
            None if !service.load_balancer => {
                let released: Vec<IpAddr> = self.recorded_of(key).map(|(address, _)| address).collect();
                let released = self.events(key, object, &released, &[]);
                Some(mark(None, released.into_iter().chain(proxy).collect()))
            }
            None => Some(mark(None, proxy.into_iter().collect())),
        }
    }

    /// What a Service that is to have something can show now: of each family what it is to have or, until it can show that,
    /// what it shows already, unless it gives that up for others.
    fn showing(&self, key: &'a ServiceKey, service: &Service) -> Vec<IpAddr> {
        let taken = self.wanted.get(key).into_iter().flatten().map(|(address, _)| *address);
        let (mut showing, later): (Vec<IpAddr>, Vec<IpAddr>) = taken.partition(|address| {
            service.ingress.contains(address) || self.giving && self.turn(key, *address) == Turn::Now
        });
        let waits = |family| {
            // What else it will have is not known while nothing is given out.
            let unknown = !self.giving && self.asking.contains(key);
            let of_family = |address: &IpAddr| Family::of(*address) == family;
            later.iter().any(of_family) || unknown && !showing.iter().any(of_family)
        };
        let stays = |address: &IpAddr| waits(Family::of(*address)) && !self.circles.contains_key(&(key, *address));
        let stay: Vec<IpAddr> = service.ingress.iter().copied().filter(stays).collect();
        showing.extend(stay);
        showing.sort_by_key(|address| place(service, *address));
        showing
    }

    /// What to say when a Service's status goes from `before` to `after`.
    fn events(&self, key: &'a ServiceKey, object: &ServiceObject, before: &[IpAddr], after: &[IpAddr]) -> Vec<Event> {
        let released = before.iter().filter(|address| !after.contains(address));
        let released = released.map(|address| match self.circles.get(&(key, *address)) {
            Some(circle) => Event::given_up(key, object, *address, circle),
            None => Event::released(key, object, *address),
        });
        let assigned = after.iter().filter(|address| !before.contains(address));
        let assigned = assigned.filter_map(|address| {
            let eip = self.eip_of(key, *address)?;
            Some(Event::assigned(key, object, *address, eip))
        });
        released.chain(assigned).collect()
    }

    /// What the books have of a Service: address and Eip.
    fn recorded_of(&self, key: &ServiceKey) -> impl Iterator<Item = (IpAddr, &'a str)> {
        let from = (key.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED), "");
        let recorded = self.recorded.range(from..).take_while(move |(of, _, _)| of == key);
        recorded.map(|(_, address, eip)| (*address, *eip))
    }

    /// Whether any address that a marked Service shows was given by us. A label alone may be somebody's mistake.
    fn gave_any(&self, key: &ServiceKey, service: &Service, object: &ServiceObject) -> bool {
        let eips = &self.world.cluster.eips;
        let label = object.label.as_ref().and_then(|label| eips.get(label));
        let range: Option<AddressRange> = label.and_then(|eip| eip.address.parse().ok());
        service.ingress.iter().any(|address| {
            range.is_some_and(|range| range.contains(*address))
                || object.finalizer
                || self.recorded_of(key).any(|(recorded, _)| recorded == *address)
        })
    }
}

/// Where an address stands among those of a Service: what is shown stays where it is, the first family comes first.
fn place(service: &Service, address: IpAddr) -> (usize, bool, IpAddr) {
    let shown = service.ingress.iter().position(|shown| *shown == address);
    let first = service.families.first().copied();
    (shown.unwrap_or(usize::MAX), Some(Family::of(address)) != first, address)
}
