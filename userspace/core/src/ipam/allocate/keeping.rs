//! What Services have already and keep: as they ask for it, or as what they ask for cannot be made out.
//!
//! A mistake in what a Service asks for (no address, an Eip that is not there) says nothing about the address it has, so it
//! keeps that until it asks for another one that is there, or is none of ours any more. Others that wait get nothing of it.

use super::{Allocator, Refusal, Request, Slot};
use crate::model::{Automatic, Condition, Family, reason};
use std::net::IpAddr;

/// An address that a Service keeps in one of its slots.
struct Kept<'a> {
    slot: usize,
    eip: &'a str,
    /// Why it is not by what the Service asks for.
    mistake: Option<Refusal>,
}

impl<'a> Allocator<'a, '_> {
    /// Fills slots with the addresses that Services have had, if those still are what they ask for, or if that cannot be made
    /// out: first with what they show, then with what is remembered of them. Of two that share an address and both have a port
    /// there now, who came there first keeps it. What cannot be made out is said, and left with no slots to fill.
    pub(super) fn keep(&mut self, requests: &mut [Request<'a>], conditions: &mut Vec<Condition>) {
        let mut mistakes: Vec<Vec<(Condition, IpAddr)>> = requests.iter().map(|_| Vec::new()).collect();
        for shown in [true, false] {
            let mut had: Vec<(usize, usize, IpAddr)> = Vec::new();
            for (index, request) in requests.iter().enumerate().filter(|(_, it)| !it.slots.is_empty()) {
                let of_status = request.service.ingress.iter().filter(|_| shown);
                let previous = self.cluster.previous.get(request.key).filter(|_| !shown);
                let addresses = of_status.chain(previous.into_iter().flatten());
                had.extend(addresses.map(|address| (self.cluster.came_after(request.key, *address), index, *address)));
            }
            had.sort_by_key(|(place, index, _)| (*place, *index));
            for (_, index, address) in had {
                let request = &mut requests[index];
                if let Some(Kept { slot, eip, mistake }) = self.kept(request, address, shown) {
                    let slot = request.slots.remove(slot);
                    self.give(request, address, eip, slot.requested == Some(address));
                    mistakes[index].extend(mistake.map(|mistake| (*mistake.condition, address)));
                }
            }
        }
        for (request, mistakes) in requests.iter_mut().zip(mistakes) {
            let unreadable = request.unreadable.as_deref().filter(|_| mistakes.is_empty());
            conditions.extend(unreadable.cloned());
            conditions.extend(told(mistakes));
            if request.unreadable.is_some() {
                request.slots.clear();
            }
        }
    }

    /// How a Service may keep `address`, which it shows or of which it is only remembered that it had it; if it may.
    fn kept(&self, request: &Request<'a>, address: IpAddr, shows: bool) -> Option<Kept<'a>> {
        let mut slots = request.slots.iter().enumerate();
        slots.find_map(|(at, slot)| {
            let (eip, mistake) = self.held(request, *slot, address, shows)?;
            Some(Kept { slot: at, eip, mistake })
        })
    }

    /// The Eip by which a Service may keep an address in a slot, if it may; with the mistake, if that is why.
    fn held(
        &self,
        request: &Request<'a>,
        slot: Slot,
        address: IpAddr,
        shows: bool,
    ) -> Option<(&'a str, Option<Refusal>)> {
        // What the one allocator of a cluster gave out stays when a node takes the address or the Eip is refused: neither is
        // the Service's fault. What it has not shown yet, nobody relies on.
        let one_allocator = self.cluster.automatic != Automatic::Hashed;
        let taken_by_node = self.node_addresses.contains(&address) && !one_allocator;
        if taken_by_node || slot.family.is_some_and(|family| family != Family::of(address)) {
            return None;
        }
        let refused = self.pools.refused(address).filter(|_| one_allocator);
        let held = self.cluster.rules.hold_eips_in_use;
        let pools = [self.pools.containing(address), refused].into_iter().flatten();
        let names = pools.filter(|pool| !pool.eip.deleting || held).map(|pool| pool.name);
        // Whether an Eip that cannot be read still has it is not known.
        let label = request.service.label.as_deref().filter(|_| one_allocator);
        let unreadable = label.filter(|label| shows && self.unreadable.contains(label));
        let mut names = names.chain(unreadable);
        let as_asked = request.unreadable.is_none() && slot.requested.is_none_or(|requested| requested == address);
        let named = |name: &&str| request.eips.is_empty() || request.eips.contains(name);
        let (eip, mistake) = match names.clone().find(|name| as_asked && named(name)) {
            Some(eip) => (eip, None),
            // Hosts that each allocate for themselves do not all remember the same.
            None if !one_allocator => return None,
            None => (names.next()?, Some(self.made_out(request, slot).err()?)),
        };
        // Who remembers a withheld address itself has been sharing it.
        let previous = self.cluster.previous.get(request.key);
        let withheld =
            self.withheld.contains(&address) && !previous.is_some_and(|previous| previous.contains(&address));
        let claim = self.given.claims.get(&address);
        let no_port_taken = claim.is_none_or(|claim| claim.conflict(request.service).is_none());
        let stays = match slot.requested {
            // That somebody has come to one of its ports is no reason to leave: that port alone is then the other's.
            _ if mistake.is_some() && shows => true,
            Some(requested) if requested == address => shows || !one_allocator || no_port_taken,
            _ => {
                let shares = claim.is_none_or(|claim| !claim.automatic) || shows && one_allocator;
                no_port_taken && shares && !withheld
            }
        };
        stays.then_some((eip, mistake))
    }
}

/// What is said of the mistakes of a Service by which it keeps addresses: each once.
fn told(mistakes: Vec<(Condition, IpAddr)>) -> Vec<Condition> {
    let mut told: Vec<(Condition, String)> = Vec::new();
    for (mistake, address) in mistakes {
        match told.iter_mut().find(|(other, _)| *other == mistake) {
            Some((_, addresses)) => *addresses += &format!(" and {address}"),
            None => told.push((mistake, address.to_string())),
        }
    }
    let told = told.into_iter().map(|(mistake, addresses)| {
        let message = format!("{} Until then the Service keeps {addresses}.", mistake.message);
        Condition::new(mistake.object, &mistake.field, reason::ADDRESS_KEPT, message)
    });
    told.collect()
}
