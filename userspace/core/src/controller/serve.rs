//! Services: what each is to have and where it stands on the way there.

use super::{Action, Event, ServiceObject, World};
use crate::{
    ipam::{AddressRange, Allocations},
    model::{Automatic, Family, ObjectRef, Service, ServiceKey, ServicePort},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

/// An address and the Eip it is of.
pub(super) type Taken<'a> = (IpAddr, &'a str);

/// What all Services are to have.
pub(super) struct Served<'a> {
    world: &'a World,
    /// By Service, in the order of its families; those that are to have nothing are missing.
    pub(super) wanted: BTreeMap<&'a ServiceKey, Vec<Taken<'a>>>,
    /// Services that are to be left as they are, as what they will have is not known now.
    waiting: BTreeSet<&'a ServiceKey>,
    /// What is in the books, each with the Eip whose book it is.
    pub(super) recorded: BTreeSet<(ServiceKey, IpAddr, &'a str)>,
}

impl<'a> Served<'a> {
    pub(super) fn new(world: &'a World, allocations: &Allocations<'a>) -> Self {
        let mut wanted: BTreeMap<&ServiceKey, Vec<Taken<'a>>> = BTreeMap::new();
        for (key, addresses) in &allocations.by_service {
            let taken = addresses
                .iter()
                .filter_map(|address| Some((*address, allocations.claims.get(address)?.eip)));
            wanted.insert(key, taken.collect());
        }
        for (key, taken) in &mut wanted {
            let service = world.cluster.services.get(*key);
            let first = service.and_then(|service| service.families.first().copied());
            let shown = |address: &IpAddr| service.and_then(|it| it.ingress.iter().position(|it| it == address));
            // What is shown stays where it is, and so does the label.
            taken.sort_by_key(|(address, _)| {
                (
                    shown(address).unwrap_or(usize::MAX),
                    Some(Family::of(*address)) != first,
                    *address,
                )
            });
        }
        let giving = world.cluster.automatic != Automatic::Kept;
        let waiting = allocations.asking.iter().copied();
        let waiting = waiting.filter(|key| !giving && !wanted.contains_key(*key)).collect();
        let recorded = world.eips.iter().flat_map(|(name, eip)| {
            let entries = eip.status.entries();
            entries.map(move |(address, key)| (key, address, name.as_str()))
        });
        Self {
            world,
            recorded: recorded.collect(),
            wanted,
            waiting,
        }
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

    /// Whether two Services can be at one address.
    pub(super) fn share_no_port(&self, one: &ServiceKey, other: &ServiceKey) -> bool {
        let ports = |key| self.world.cluster.services.get(key).map(|service| &service.ports);
        let (Some(ours), Some(theirs)) = (ports(one), ports(other)) else {
            return false;
        };
        let clash = |port: &ServicePort| {
            let same = |their: &ServicePort| (their.port, &their.protocol) == (port.port, &port.protocol);
            theirs.iter().any(same)
        };
        !ours.iter().any(clash)
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
            Some(service) => !self.waiting.contains(key) && self.in_books(key) && self.next(key, service).is_none(),
            None => true,
        }
    }

    /// Whether all a Service is to have is in the books.
    fn in_books(&self, key: &ServiceKey) -> bool {
        let mut taken = self.wanted.get(key).into_iter().flatten();
        taken.all(|(address, eip)| self.recorded.contains(&(key.clone(), *address, eip)))
    }

    fn next(&self, key: &ServiceKey, service: &Service) -> Option<Action> {
        let object = self.world.services.get(key)?;
        if self.waiting.contains(key) {
            return None;
        }
        let taken = self.wanted.get(key).map_or(&[][..], Vec::as_slice);
        let addresses: Vec<IpAddr> = taken.iter().map(|(address, _)| *address).collect();
        let as_wanted = service.ingress == addresses && !object.foreign_ingress;
        let show = || Action::Show {
            service: key.clone(),
            resource_version: object.resource_version.clone(),
            events: Event::of_change(key, object, &service.ingress, taken),
            addresses: addresses.clone(),
        };
        let mark = |eip: Option<&str>, events| Action::Mark {
            service: key.clone(),
            resource_version: object.resource_version.clone(),
            eip: eip.map(str::to_owned),
            events,
        };
        match taken.first() {
            // The book comes first.
            Some(_) if !self.in_books(key) => None,
            Some((_, eip)) if object.label.as_deref() != Some(*eip) || !object.finalizer => {
                Some(mark(Some(eip), Vec::new()))
            }
            Some(_) => (!as_wanted).then(show),
            // What has no mark of ours was never given anything by us; its status is somebody else's.
            None if !object.marked() => None,
            None if self.gave_any(key, service, object) => Some(show()),
            // With another type, the API server itself has emptied the status.
            None if !service.load_balancer => {
                let released: Vec<IpAddr> = self.recorded_of(key).map(|(address, _)| address).collect();
                Some(mark(None, Event::of_change(key, object, &released, &[])))
            }
            None => Some(mark(None, Vec::new())),
        }
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
