//! A plan in the terms of the maps: keys instead of addresses and names.
//!
//! Kept from step to step. [`Wanted::enter`] takes over the next plan and tells which keys may have become something else,
//! so that a step looks at those alone; what is shared with the plan before is not even read.

use super::{key::Key, rendezvous, standing::Standing};
use crate::{
    SharedMap,
    model::Protocol,
    plan::{BackendKey, Frontend, FrontendKey, Plan, Vip},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use weir_common::abi::{Address, protocol};

/// What a directory key is to be; the first in order wins a key, and room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Tunnel,
    Peer,
    Backend,
    Frontend,
    Vip,
}

#[derive(Debug, Default)]
pub(super) struct Wanted {
    basis: Basis,
    /// The plan's own.
    planned: SharedMap<FrontendKey, Arc<Frontend>>,
    vips: SharedMap<IpAddr, Arc<Vip>>,
    pub frontends: BTreeMap<Key, WantedFrontend>,
    /// How many frontends ask for tables of each size.
    sizes: BTreeMap<usize, usize>,
    /// What frontends say of backends, and how many of them.
    uses: SharedMap<Use, u32>,
    /// The name that comes before all others.
    no_node: Arc<str>,
}

/// What keys of every kind depend on: when it changes, nothing is taken for known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    pub tunnel: Option<Key>,
    pub peers: BTreeSet<Key>,
    /// The nodes that have an id, by name.
    pub nodes: BTreeMap<String, u32>,
    pub jiffies_per_second: u64,
}

#[derive(Debug)]
pub(super) struct WantedFrontend {
    pub name: FrontendKey,
    pub frontend: Arc<Frontend>,
    /// How many get new flows.
    pub members: usize,
}

/// What a frontend says of a backend: the first in order counts, but for the standing, of which the best does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    key: Key,
    /// Not on this node.
    elsewhere: bool,
    node: Arc<str>,
    standing: Standing,
}

/// A backend of the plan, with the best that is said of it. Where two nodes are said to have it, this one, or else the
/// first by name.
#[derive(Clone, Copy, Debug)]
pub(super) struct WantedBackend<'a> {
    pub local: bool,
    pub node: &'a str,
    pub standing: Standing,
}

impl Wanted {
    /// Nothing, on this basis.
    pub fn new(basis: Basis) -> Self {
        Self {
            basis,
            ..Self::default()
        }
    }

    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// Takes over a plan; gives the keys of which something may be wanted that was not before, in no order.
    pub fn enter(&mut self, plan: &Plan) -> Vec<Key> {
        let mut touched = Vec::new();
        let former = std::mem::replace(&mut self.vips, plan.vips.clone());
        let come_or_gone = plan.vips.changes_since(&former);
        let come_or_gone = come_or_gone.filter(|(_, last, next)| last.is_none() || next.is_none());
        touched.extend(come_or_gone.map(|(address, ..)| Key::address(*address)));

        let former = std::mem::replace(&mut self.planned, plan.frontends.clone());
        for (name, last, next) in plan.frontends.changes_since(&former) {
            self.change(name, last, next, &mut touched);
        }
        touched
    }

    /// One frontend is another, came or went.
    fn change(
        &mut self,
        name: &FrontendKey,
        last: Option<&Arc<Frontend>>,
        next: Option<&Arc<Frontend>>,
        touched: &mut Vec<Key>,
    ) {
        touched.extend([Key::from(name), Key::address(name.address)]);
        let uses = |frontend: &Arc<Frontend>| uses(frontend).collect::<BTreeSet<Use>>();
        let (last, next) = (last.map(uses).unwrap_or_default(), next.map(uses).unwrap_or_default());
        for gone in last.difference(&next) {
            touched.push(gone.key);
            if let Some(count) = self.uses.get_mut(gone) {
                *count -= 1;
                if *count == 0 {
                    self.uses.remove(gone);
                }
            }
        }
        for new in next.difference(&last) {
            touched.push(new.key);
            *self.uses.or_default(new.clone()) += 1;
        }
    }

    /// Says what each of the keys is to be, and keeps the frontends among them.
    pub fn roles(&mut self, mut touched: Vec<Key>) -> BTreeMap<Key, Option<Role>> {
        touched.sort_unstable();
        touched.dedup();
        let mut roles = Vec::with_capacity(touched.len());
        for key in touched {
            let role = self.role(&key);
            let named = self.frontend(&key).filter(|_| role == Some(Role::Frontend));
            let wanted = named.map(|(name, frontend)| WantedFrontend {
                name: *name,
                frontend: frontend.clone(),
                members: members(frontend).len(),
            });
            self.put(key, wanted);
            roles.push((key, role));
        }
        roles.into_iter().collect()
    }

    /// What a key is to be.
    pub fn role(&self, key: &Key) -> Option<Role> {
        if self.basis.tunnel.as_ref() == Some(key) {
            return Some(Role::Tunnel);
        }
        if self.basis.peers.contains(key) {
            return Some(Role::Peer);
        }
        if self.backend(key).is_some_and(|backend| backend.local) {
            return Some(Role::Backend);
        }
        if self.frontend(key).is_some() {
            return Some(Role::Frontend);
        }
        (key.protocol == protocol::ANY && self.serves(key.address)).then_some(Role::Vip)
    }

    /// The planned frontend with this key. An IPv4 address may also be written as IPv6; it counts as itself first.
    fn frontend(&self, key: &Key) -> Option<(&FrontendKey, &Arc<Frontend>)> {
        key.names().find_map(|name| self.planned.get_key_value(&name))
    }

    /// Whether an address is given out and has a frontend.
    fn serves(&self, address: Address) -> bool {
        let end = |address, port, protocol| FrontendKey {
            address,
            port,
            protocol,
        };
        Key::address(address).addresses().any(|address| {
            let all = end(address, 0, Protocol::Tcp)..=end(address, u16::MAX, Protocol::Udp);
            let mut planned = self.planned.iter_from(all.start());
            self.vips.contains_key(&address) && planned.next().is_some_and(|(name, _)| all.contains(name))
        })
    }

    /// A backend of the plan.
    pub fn backend(&self, key: &Key) -> Option<WantedBackend<'_>> {
        let first = Use {
            key: *key,
            elsewhere: false,
            node: self.no_node.clone(),
            standing: Standing::Serving,
        };
        let mut uses = self
            .uses
            .iter_from(&first)
            .map(|(one, _)| one)
            .take_while(|one| one.key == *key);
        let first = uses.next()?;
        Some(WantedBackend {
            local: !first.elsewhere,
            node: &first.node,
            standing: uses.map(|one| one.standing).fold(first.standing, Standing::min),
        })
    }

    /// How often the tables of all frontends alike are halved until two thirds of `capacity` rows suffice (so that halving or
    /// doubling all has room beside what it replaces). Nodes with the same plan and capacity choose alike.
    pub fn halvings(&self, capacity: usize) -> u32 {
        let rows = |halvings| -> usize {
            let all = self.sizes.iter();
            all.map(|(size, count)| halved(*size, halvings) * count).sum()
        };
        (0..16)
            .find(|halvings| rows(*halvings) <= capacity / 3 * 2)
            .unwrap_or(16)
    }

    fn put(&mut self, key: Key, frontend: Option<WantedFrontend>) {
        if let Some(frontend) = &frontend {
            *self.sizes.entry(frontend.size(0)).or_default() += 1;
        }
        let former = match frontend {
            Some(frontend) => self.frontends.insert(key, frontend),
            None => self.frontends.remove(&key),
        };
        let size = former.map(|former| former.size(0));
        if let Some(count) = size.and_then(|size| self.sizes.get_mut(&size)) {
            *count -= 1;
        }
    }
}

impl WantedFrontend {
    /// Number of rows of its table: what its backends ask for, halved so often.
    pub fn size(&self, halvings: u32) -> usize {
        halved(rendezvous::size(self.members), halvings)
    }
}

fn halved(size: usize, halvings: u32) -> usize {
    (size >> halvings).max(1)
}

fn uses(frontend: &Frontend) -> impl Iterator<Item = Use> {
    let serving = frontend.backends.keys().map(|backend| (backend, Standing::Serving));
    let draining = frontend.draining.iter();
    let draining = draining.map(|(backend, draining)| (backend, Standing::from(*draining)));
    let all = serving.chain(draining).map(|(backend, standing)| Use {
        key: Key::from(backend),
        elsewhere: !backend.local,
        node: backend.node.clone(),
        standing,
    });
    all.filter(|one| one.key.address != Address::UNSPECIFIED)
}

/// The backends of a frontend that get new flows, with weights, by key.
pub(super) fn members(frontend: &Frontend) -> Vec<(Key, u32)> {
    let member = |(backend, &weight): (&BackendKey, &u32)| (Key::from(backend), weight);
    let mut members: Vec<(Key, u32)> = frontend.backends.iter().map(member).collect();
    members.retain(|(key, _)| key.address != Address::UNSPECIFIED);
    members.sort_unstable_by_key(|&(key, weight)| (key, std::cmp::Reverse(weight)));
    members.dedup_by_key(|(key, _)| *key);
    members
}
