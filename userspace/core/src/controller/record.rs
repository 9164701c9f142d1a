//! Eips: the book of who has which address, the figures that follow from it, and the finalizer.

use super::{Action, EipObject, EipStatus, World, serve::Served};
use crate::{
    ipam::{AddressRange, is_buggy},
    model::{Eip, Family, ServiceKey},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Who has each address of an Eip, in the order in which they came.
type Book = BTreeMap<IpAddr, Vec<ServiceKey>>;

/// The next write of every Eip that is not as it is to be.
pub(super) fn actions(world: &World, served: &Served<'_>) -> Vec<Action> {
    let holders = Holders::new(world, served);
    let mut entered: BTreeMap<&str, BTreeSet<(IpAddr, &ServiceKey)>> = BTreeMap::new();
    for (key, taken) in &served.wanted {
        for (address, eip) in taken {
            entered.entry(*eip).or_default().insert((*address, *key));
        }
    }
    let eips = world.eips.iter().filter_map(|(name, object)| {
        let eip = world.cluster.eips.get(name)?;
        let entered = entered.remove(name.as_str()).unwrap_or_default();
        next(name, eip, object, served, &holders, &entered)
    });
    eips.collect()
}

fn next(
    name: &str,
    eip: &Eip,
    object: &EipObject,
    served: &Served<'_>,
    holders: &Holders<'_>,
    entered: &BTreeSet<(IpAddr, &ServiceKey)>,
) -> Option<Action> {
    let guard = |finalizer| Action::Guard {
        eip: name.into(),
        resource_version: object.resource_version.clone(),
        finalizer,
    };
    if !eip.deleting && !object.finalizer {
        return Some(guard(true));
    }
    if eip.deleting && !object.finalizer {
        return None;
    }
    let range: Option<AddressRange> = eip.address.parse().ok();
    let mut book = Book::new();
    for (address, key) in object.status.entries() {
        let stays = served.wants(&key, address) && entered.contains(&(address, &key)) || !served.settled(&key);
        let keys = book.entry(address).or_default();
        if stays && !keys.contains(&key) {
            keys.push(key);
        }
    }
    book.retain(|_, keys| !keys.is_empty());
    let shown = holders
        .shown
        .iter()
        .filter(|(address, _)| range.is_some_and(|range| range.contains(**address)));
    let shown = shown.flat_map(|(address, keys)| keys.iter().map(|key| (*address, *key)));
    // Of two Eips that have it, it is in the book of the one that counts.
    let shown = shown.filter(|(address, key)| served.eip_of(key, *address).is_none_or(|eip| eip == name));
    // What a Service shows is its own, whatever the book says.
    let entered = entered
        .iter()
        .copied()
        .filter(|(address, key)| holders.all_want(served, *address, key));
    let entered: BTreeSet<_> = shown.chain(entered).collect();
    for (address, key) in entered {
        let keys = book.entry(address).or_default();
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    if eip.deleting && book.is_empty() && object.status.used.is_empty() {
        return Some(guard(false));
    }
    let status = status(eip, &object.status, range, &book);
    (status != object.status).then(|| Action::Record {
        eip: name.into(),
        resource_version: object.resource_version.clone(),
        status,
    })
}

/// The status of an Eip with that book. What cannot be known while `spec.address` is unreadable stays as it is.
fn status(eip: &Eip, now: &EipStatus, range: Option<AddressRange>, book: &Book) -> EipStatus {
    let used: BTreeMap<String, String> = book
        .iter()
        .map(|(address, keys)| {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            (address.to_string(), keys.join(";"))
        })
        .collect();
    let usage = i64::try_from(used.len()).unwrap_or(i64::MAX);
    let of_range = range.map(|range| EipStatus {
        pool_size: i64::try_from(range.size()).unwrap_or(i64::MAX),
        first_ip: range.first().to_string(),
        last_ip: range.last().to_string(),
        v4: range.family() == Family::V4,
        ..EipStatus::default()
    });
    let figures = of_range.unwrap_or_else(|| now.clone());
    let avoided = |address: IpAddr| eip.avoid_buggy_ips && is_buggy(address);
    // Ends at the first free one, so it is not longer than the book.
    let full = |range: AddressRange| {
        let mut all = (0..range.size()).map_while(|offset| range.nth(offset));
        all.all(|address| book.contains_key(&address) || avoided(address))
    };
    EipStatus {
        occupied: range.map_or(now.occupied, full),
        usage,
        used,
        ..figures
    }
}

/// Who is on each address now, by book or by status.
struct Holders<'a> {
    /// Marked Services by an address they show and are not about to give up without a word.
    shown: BTreeMap<IpAddr, BTreeSet<&'a ServiceKey>>,
    all: BTreeMap<IpAddr, BTreeSet<&'a ServiceKey>>,
}

impl<'a> Holders<'a> {
    fn new(world: &'a World, served: &'a Served<'_>) -> Self {
        let mut shown: BTreeMap<IpAddr, BTreeSet<&ServiceKey>> = BTreeMap::new();
        for (key, service, object) in world.services().filter(|(_, _, object)| object.marked()) {
            for address in &service.ingress {
                // The Eip an address is of may have been replaced: the mark tells whose it was.
                if object.label.is_some() {
                    shown.entry(*address).or_default().insert(key);
                }
            }
        }
        let mut all = shown.clone();
        for (key, address, _) in &served.recorded {
            all.entry(*address).or_default().insert(key);
        }
        Self { shown, all }
    }

    /// Whether everybody on an address but `newcomer` is to stay there: who is leaving leaves first. But not if it shows the
    /// address, so that `newcomer` has asked for it, and no port of the two is the same: two that ask for each other's address
    /// would wait for each other for ever.
    fn all_want(&self, served: &Served<'_>, address: IpAddr, newcomer: &ServiceKey) -> bool {
        let holders = self.all.get(&address).into_iter().flatten();
        let mut others = holders.filter(|key| **key != newcomer);
        let shows = |key: &ServiceKey| self.shown.get(&address).is_some_and(|keys| keys.contains(key));
        others.all(|key| served.wants(key, address) || shows(key) && served.share_no_port(newcomer, key))
    }
}
