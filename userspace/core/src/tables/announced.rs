//! `FILTER` and `RESPONDERS`: which addresses packets are looked up for, and which ones are answered for.
//!
//! Both are what draws packets, so they are opened after everything behind them is there, and closed before anything goes.

use super::{
    Write,
    key::address_of,
    refusal::{Refusal, interface_missing, refused},
};
use crate::{
    links::Links,
    model::{Condition, Mode, ObjectRef},
    plan::Plan,
};
use std::collections::{BTreeMap, BTreeSet};
use weir_common::{
    abi::{Address, FILTER_WORDS, RESPONDERS, Responder, ResponderKey},
    hash,
};

#[derive(Debug)]
pub(super) struct Announced {
    filter: Vec<u64>,
    responders: BTreeMap<ResponderKey, Responder>,
}

/// What the two maps are to hold.
pub(super) struct WantedAnnounced {
    filter: Vec<u64>,
    responders: BTreeMap<ResponderKey, Responder>,
}

impl WantedAnnounced {
    /// For the addresses `known` to the directory and the VIPs that are `served`.
    pub fn new(
        known: &BTreeSet<Address>,
        served: &BTreeSet<Address>,
        plan: &Plan,
        links: &Links,
        conditions: &mut Vec<Condition>,
    ) -> Self {
        let mut filter = vec![0; FILTER_WORDS as usize];
        for address in known {
            let (index, bit) = hash::filter_bit(hash::address(address));
            filter[index as usize] |= bit;
        }
        let mut responders = BTreeMap::new();
        let mut without_interface = BTreeSet::new();
        for (address, vip) in &plan.vips {
            // Until VRRP is spoken, `vip` is served as `layer2` is.
            let answers = vip.owned && matches!(vip.mode, Mode::Layer2 | Mode::Vip);
            let name = vip.interface.as_ref().filter(|_| answers);
            let Some(name) = name.filter(|_| served.contains(&address_of(*address))) else {
                continue;
            };
            let Some(interface) = links.interfaces.get(name) else {
                if without_interface.insert(&vip.eip) {
                    conditions.push(interface_missing(&vip.eip, *address, name));
                }
                continue;
            };
            if responders.len() + interface.slaves.len() >= RESPONDERS as usize {
                let object = ObjectRef::cluster_scoped("Eip", &vip.eip);
                conditions.push(refused(
                    object,
                    Refusal::Responders,
                    format!("{address} is not answered for"),
                ));
                continue;
            }
            for ifindex in std::iter::once(&interface.ifindex).chain(&interface.slaves) {
                let key = ResponderKey {
                    address: address_of(*address),
                    ifindex: *ifindex,
                    vlan: (interface.vlan & 0x0fff).to_be_bytes(),
                    ..ResponderKey::default()
                };
                let responder = Responder {
                    mac: interface.mac,
                    ..Responder::default()
                };
                responders.insert(key, responder);
            }
        }
        Self { filter, responders }
    }
}

impl Announced {
    /// What the maps hold.
    pub fn adopt(filter: &[u64], responders: &[(ResponderKey, Responder)]) -> Self {
        let mut filter = filter.to_vec();
        filter.resize(FILTER_WORDS as usize, 0);
        Self {
            filter,
            responders: responders.iter().copied().collect(),
        }
    }

    /// Opens what is to be open.
    pub fn open(&mut self, wanted: &WantedAnnounced, writes: &mut Vec<Write>) {
        for (index, (held, wanted)) in (0..).zip(self.filter.iter_mut().zip(&wanted.filter)) {
            if *held | wanted != *held {
                *held |= wanted;
                writes.push(Write::Filter { index, word: *held });
            }
        }
        let new = wanted
            .responders
            .keys()
            .filter(|key| !self.responders.contains_key(key))
            .count();
        if self.responders.len() + new > RESPONDERS as usize {
            self.retract(wanted, writes);
        }
        for (&key, &responder) in &wanted.responders {
            if self.responders.insert(key, responder) != Some(responder) {
                writes.push(Write::SetResponder { key, responder });
            }
        }
    }

    /// Closes everything else.
    pub fn close(&mut self, wanted: &WantedAnnounced, writes: &mut Vec<Write>) {
        self.retract(wanted, writes);
        for (index, (held, &wanted)) in (0..).zip(self.filter.iter_mut().zip(&wanted.filter)) {
            if *held != wanted {
                *held = wanted;
                writes.push(Write::Filter { index, word: wanted });
            }
        }
    }

    fn retract(&mut self, wanted: &WantedAnnounced, writes: &mut Vec<Write>) {
        self.responders.retain(|&key, _| {
            let keep = wanted.responders.contains_key(&key);
            if !keep {
                writes.push(Write::RemoveResponder { key });
            }
            keep
        });
    }
}
