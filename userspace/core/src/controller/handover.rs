//! One Service after another at one address.
//!
//! A book has a Service as soon as it is to have the address; it shows it when everybody has left who cannot be there with it.
//! Services that ask for each other's addresses and have a port in common all wait for another then, round a circle. Of each
//! circle the youngest gives its address up before it has the next one: it shows none for as long as it takes the others to
//! move, one after another, until it is its turn. It cannot lose by that, as the address it waits for is in a book for it.

use super::{World, serve::Served};
use crate::model::{Family, Service, ServiceKey, ServicePort};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Who is on each address now.
#[derive(Default)]
pub(super) struct Holders<'a> {
    /// Marked Services by an address they show.
    pub(super) shown: BTreeMap<IpAddr, BTreeSet<&'a ServiceKey>>,
    /// Services in the book.
    recorded: BTreeMap<IpAddr, BTreeSet<&'a ServiceKey>>,
    /// The addresses for which a book has a Service that is not there, or not yet in this snapshot.
    of_unknown: BTreeSet<IpAddr>,
}

impl<'a> Holders<'a> {
    pub(super) fn new(world: &'a World, recorded: &BTreeSet<(ServiceKey, IpAddr, &str)>) -> Self {
        let mut holders = Self::default();
        // The Eip an address is of may have been replaced: the mark tells whose it was.
        for (key, service, _) in world.services().filter(|(_, _, object)| object.label.is_some()) {
            for address in &service.ingress {
                holders.shown.entry(*address).or_default().insert(key);
            }
        }
        for (key, address, _) in recorded {
            match world.services.get_key_value(key) {
                Some((key, _)) => drop(holders.recorded.entry(*address).or_default().insert(key)),
                None => drop(holders.of_unknown.insert(*address)),
            }
        }
        holders
    }

    fn shows(&self, key: &ServiceKey, address: IpAddr) -> bool {
        self.shown.get(&address).is_some_and(|keys| keys.contains(key))
    }
}

/// When a Service can show an address that a book has for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn<'a> {
    /// Now.
    Now,
    /// When a book no longer has somebody who does not show it.
    Struck,
    /// When this one no longer shows it.
    After(&'a ServiceKey),
}

/// Services that wait for each other, by the address that one of them gives up so that all get on.
pub(super) type Circles<'a> = BTreeMap<(&'a ServiceKey, IpAddr), Vec<&'a ServiceKey>>;

impl<'a> Served<'a> {
    /// When a Service can show an address that it is to have.
    pub(super) fn turn(&self, key: &ServiceKey, address: IpAddr) -> Turn<'a> {
        let leaving = |other: &&&'a ServiceKey| **other != key && !self.wants(other, address);
        let holders = &self.holders;
        let mut recorded = holders.recorded.get(&address).into_iter().flatten().filter(leaving);
        if holders.of_unknown.contains(&address) || recorded.any(|other| !holders.shows(other, address)) {
            return Turn::Struck;
        }
        // Who asks for it may come while others are still leaving.
        let asked = self.asked.contains(&(key, address));
        let shown = holders.shown.get(&address).into_iter().flatten().filter(leaving);
        let mut in_the_way = shown.filter(|other| !asked || !self.share_no_port(key, other));
        in_the_way.next().map_or(Turn::Now, |other| Turn::After(other))
    }

    /// What a Service waits for, as it is somebody else's turn: the address, and who shows it if anybody does.
    pub(super) fn awaited(&self, key: &ServiceKey) -> Option<(IpAddr, Option<&'a ServiceKey>)> {
        let service = self.world.cluster.services.get(key).filter(|_| self.giving)?;
        self.to_come(key, service)
            .find_map(|address| match self.turn(key, address) {
                Turn::Now => None,
                Turn::Struck => Some((address, None)),
                Turn::After(other) => Some((address, Some(other))),
            })
    }

    /// Who gives up what before it has something else.
    pub(super) fn circles(&self) -> Circles<'a> {
        let waits = self.waits();
        let mut seen = BTreeSet::new();
        let mut circles = Circles::new();
        for start in waits.keys() {
            let mut way = Vec::new();
            let mut at = *start;
            while let Some((address, other)) = waits.get(&at).filter(|_| seen.insert(at)) {
                way.push((at.0, *address, *other));
                at = (*other, at.1);
            }
            let Some(closed) = way.iter().position(|(key, _, _)| *key == at.0) else {
                continue;
            };
            let circle = &way[closed..];
            let created = |key| self.world.cluster.services.get(key).and_then(|service| service.created);
            let youngest = circle.iter().max_by_key(|(_, _, other)| (created(other), *other));
            if let Some((_, address, other)) = youngest {
                circles.insert((*other, *address), circle.iter().map(|(key, _, _)| *key).collect());
            }
        }
        circles
    }

    /// Who waits, in which family, for which address, until who leaves it; the first of several. Whoever has another write to
    /// come before is not waiting.
    fn waits(&self) -> BTreeMap<(&'a ServiceKey, Family), (IpAddr, &'a ServiceKey)> {
        let mut waits = BTreeMap::new();
        for (key, service, object) in self.world.services().filter(|_| self.giving) {
            let to_come = self.to_come(key, service);
            for address in to_come.filter(|_| self.in_books(key) && self.is_marked(key, object)) {
                if let Turn::After(other) = self.turn(key, address) {
                    waits.entry((key, Family::of(address))).or_insert((address, other));
                }
            }
        }
        waits
    }

    /// What a Service is to have and does not show.
    fn to_come(&self, key: &ServiceKey, service: &'a Service) -> impl Iterator<Item = IpAddr> {
        let taken = self.wanted.get(key).into_iter().flatten();
        let addresses = taken.map(|(address, _)| *address);
        addresses.filter(|address| !service.ingress.contains(address))
    }

    /// Whether two Services can be at one address.
    fn share_no_port(&self, one: &ServiceKey, other: &ServiceKey) -> bool {
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
}
