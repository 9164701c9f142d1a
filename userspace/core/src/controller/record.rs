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
    let mut entered: BTreeMap<&str, BTreeSet<(IpAddr, &ServiceKey)>> = BTreeMap::new();
    for (key, taken) in &served.wanted {
        for (address, eip) in taken {
            entered.entry(*eip).or_default().insert((*address, *key));
        }
    }
    let eips = world.eips.iter().filter_map(|(name, object)| {
        let eip = world.cluster.eips.get(name)?;
        let entered = entered.remove(name.as_str()).unwrap_or_default();
        next(name, eip, object, served, &entered)
    });
    eips.collect()
}

fn next(
    name: &str,
    eip: &Eip,
    object: &EipObject,
    served: &Served<'_>,
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
        let stays = if served.wants(&key, address) {
            // It may be in the book of another Eip now.
            entered.contains(&(address, &key)) || !served.settled(&key)
        } else {
            !served.has_left(&key, address)
        };
        let keys = book.entry(address).or_default();
        if stays && !keys.contains(&key) {
            keys.push(key);
        }
    }
    book.retain(|_, keys| !keys.is_empty());
    let shown = served.holders.shown.iter();
    let shown = shown.filter(|(address, _)| range.is_some_and(|range| range.contains(**address)));
    let shown = shown.flat_map(|(address, keys)| keys.iter().map(|key| (*address, *key)));
    // Of two Eips that have it, it is in the book of the one that counts.
    let shown = shown.filter(|(address, key)| served.eip_of(key, *address).is_none_or(|eip| eip == name));
    // What a Service shows is its own, whatever the book says; who is only to have it comes after who does.
    for (address, key) in shown.chain(entered.iter().copied()) {
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
