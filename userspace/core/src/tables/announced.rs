//! `FILTER` and `RESPONDERS`: which addresses packets are looked up for, and which ones are answered for.
//!
//! Both are what draws packets, so they are opened after everything behind them is there, and closed before anything goes.

use super::{
    Write,
    key::Key,
    refusal::{Refusal, refused},
};
use crate::{
    SharedMap,
    links::Links,
    model::{Condition, Mode, ObjectRef},
    plan::Vip,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use weir_common::{
    abi::{Address, FILTER_WORDS, RESPONDERS, Responder, ResponderKey},
    hash,
};

#[derive(Debug)]
pub(super) struct Announced {
    filter: Vec<u64>,
    responders: BTreeMap<ResponderKey, Responder>,
    /// What they are for, and what is wrong with that; `None` while that is not known.
    last: Option<(Basis, Vec<Condition>)>,
}

/// All that the two maps follow from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Basis {
    /// Where tunnel packets are looked up.
    pub tunnel: Option<Address>,
    /// The addresses at which something is served, with how many frontends.
    pub served: SharedMap<Address, u32>,
    pub vips: SharedMap<IpAddr, Arc<Vip>>,
    pub links: Links,
}

/// What the two maps are to hold.
struct Wanted {
    filter: Vec<u64>,
    responders: BTreeMap<ResponderKey, Responder>,
}

impl Wanted {
    fn new(basis: &Basis, conditions: &mut Vec<Condition>) -> Self {
        let Basis {
            tunnel,
            served,
            vips,
            links,
        } = basis;
        let mut filter = vec![0; FILTER_WORDS as usize];
        for address in served.keys().chain(tunnel) {
            let (index, bit) = hash::filter_bit(hash::address(address));
            filter[index as usize] |= bit;
        }
        let mut responders = BTreeMap::new();
        for (address, vip) in vips {
            // Until VRRP is spoken, `vip` is served as `layer2` is.
            let answers = vip.owned && matches!(vip.mode, Mode::Layer2 | Mode::Vip);
            let name = vip.interface.as_ref().filter(|_| answers);
            let Some(name) = name.filter(|_| served.contains_key(&Address::from(*address))) else {
                continue;
            };
            let interface = links.interfaces.get(name);
            let Some(interface) = interface.filter(|interface| links.taken.contains(&interface.ifindex)) else {
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
                    address: Address::from(*address),
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
            last: None,
        }
    }

    /// Opens what is to be open, then closes everything else; nothing to do if `basis` is that of the last call.
    pub fn update(&mut self, basis: Basis, conditions: &mut Vec<Condition>, writes: &mut Vec<Write>) {
        let last = self.last.take().filter(|(last, _)| *last == basis);
        let (basis, said) = last.unwrap_or_else(|| {
            let mut said = Vec::new();
            let wanted = Wanted::new(&basis, &mut said);
            self.open(&wanted, writes);
            self.close(&wanted, writes);
            (basis, said)
        });
        conditions.extend_from_slice(&said);
        self.last = Some((basis, said));
    }

    /// The keys of the VIPs that `basis` does not serve any more.
    pub fn no_longer_served(&self, basis: &Basis) -> Vec<Key> {
        let changes = self
            .last
            .iter()
            .flat_map(|(last, _)| basis.served.changes_since(&last.served));
        let gone = changes.filter(|(_, _, now)| now.is_none());
        gone.map(|(address, ..)| Key::address(*address)).collect()
    }

    /// Whether something is served at a VIP.
    pub fn serves(&self, address: &Address) -> bool {
        self.last
            .as_ref()
            .is_some_and(|(last, _)| last.served.contains_key(address))
    }

    /// Takes nothing for known any more.
    #[cfg(test)]
    pub fn forget(&mut self) {
        self.last = None;
    }

    fn open(&mut self, wanted: &Wanted, writes: &mut Vec<Write>) {
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

    fn close(&mut self, wanted: &Wanted, writes: &mut Vec<Write>) {
        self.retract(wanted, writes);
        for (index, (held, &wanted)) in (0..).zip(self.filter.iter_mut().zip(&wanted.filter)) {
            if *held != wanted {
                *held = wanted;
                writes.push(Write::Filter { index, word: wanted });
            }
        }
    }

    fn retract(&mut self, wanted: &Wanted, writes: &mut Vec<Write>) {
        self.responders.retain(|&key, _| {
            let keep = wanted.responders.contains_key(&key);
            if !keep {
                writes.push(Write::RemoveResponder { key });
            }
            keep
        });
    }
}
