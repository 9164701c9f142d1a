//! A plan in the terms of the maps: keys instead of addresses and names.

use super::{
    Settings,
    key::{Key, address_of},
    rendezvous,
    standing::Standing,
};
use crate::plan::{BackendKey, Frontend, FrontendKey, Plan};
use std::{collections::BTreeMap, net::IpAddr};
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

pub(super) struct Wanted<'a> {
    plan: &'a Plan,
    pub frontends: BTreeMap<Key, WantedFrontend<'a>>,
    /// All that serve or drain.
    pub backends: BTreeMap<Key, WantedBackend<'a>>,
    pub keys: BTreeMap<Key, Role>,
}

pub(super) struct WantedBackend<'a> {
    pub backend: &'a BackendKey,
    pub standing: Standing,
}

pub(super) struct WantedFrontend<'a> {
    pub name: &'a FrontendKey,
    pub frontend: &'a Frontend,
    /// Who gets new flows, with weights, by key.
    pub members: Vec<(Key, u32)>,
}

impl<'a> Wanted<'a> {
    pub fn new(plan: &'a Plan, settings: &Settings) -> Self {
        let backends = backends(plan);
        let mut keys: Vec<(Role, Key)> = Vec::new();
        keys.extend(
            plan.tunnel_address
                .map(|address| (Role::Tunnel, tunnel(address, settings))),
        );
        keys.extend(
            plan.nodes
                .values()
                .map(|address| (Role::Peer, Key::address(address_of(*address)))),
        );
        keys.extend(
            backends
                .iter()
                .filter(|(_, planned)| planned.backend.local)
                .map(|(key, _)| (Role::Backend, *key)),
        );
        keys.extend(plan.frontends.keys().map(|name| (Role::Frontend, Key::from(name))));
        let served = plan
            .frontends
            .keys()
            .filter(|name| plan.vips.contains_key(&name.address));
        keys.extend(served.map(|name| (Role::Vip, Key::address(address_of(name.address)))));
        let mut roles = BTreeMap::new();
        for (role, key) in keys {
            roles.entry(key).or_insert(role);
        }
        let mut frontends = BTreeMap::new();
        for (name, frontend) in &plan.frontends {
            let key = Key::from(name);
            if roles.get(&key) == Some(&Role::Frontend) {
                frontends.entry(key).or_insert_with(|| WantedFrontend {
                    name,
                    frontend,
                    members: members(frontend),
                });
            }
        }
        Self {
            plan,
            frontends,
            backends,
            keys: roles,
        }
    }

    /// A backend of the plan.
    pub fn backend(&self, key: &Key) -> Option<&WantedBackend<'a>> {
        self.backends.get(key)
    }

    /// The tunnel address of a node of the plan.
    pub fn node_address(&self, name: &str) -> Option<Address> {
        self.plan.nodes.get(name).map(|address| address_of(*address))
    }

    /// The keys of one role, in order.
    pub fn keys(&self, role: Role) -> impl Iterator<Item = Key> {
        self.keys
            .iter()
            .filter(move |(_, found)| **found == role)
            .map(|(key, _)| *key)
    }

    /// Size of each frontend's table, in the order of `frontends`: what its backends ask for, halved for all alike
    /// until two thirds of `capacity` rows suffice (so that halving or doubling all has room beside what it replaces).
    /// Nodes with the same plan and capacity choose alike.
    pub fn sizes(&self, capacity: usize) -> Vec<usize> {
        let sizes: Vec<usize> = self
            .frontends
            .values()
            .map(|frontend| rendezvous::size(frontend.members.len()))
            .collect();
        let budget = capacity / 3 * 2;
        let halved = |size: usize, times: u32| (size >> times).max(1);
        let fits = |times: &u32| sizes.iter().map(|&size| halved(size, *times)).sum::<usize>() <= budget;
        let times = (0..16).find(fits).unwrap_or(16);
        sizes.iter().map(|&size| halved(size, times)).collect()
    }
}

fn tunnel(address: IpAddr, settings: &Settings) -> Key {
    Key::socket(address, settings.tunnel_port, protocol::UDP)
}

/// Every backend once, with the best that is said of it. Where two nodes are said to have it, this one, or else the first
/// by name.
fn backends(plan: &Plan) -> BTreeMap<Key, WantedBackend<'_>> {
    let mut all: Vec<(Key, &BackendKey, Standing)> = Vec::new();
    for frontend in plan.frontends.values() {
        let serving = frontend.backends.keys().map(|backend| (backend, Standing::Serving));
        let draining = frontend
            .draining
            .iter()
            .map(|(backend, draining)| (backend, Standing::from(*draining)));
        all.extend(
            serving
                .chain(draining)
                .map(|(backend, standing)| (Key::from(backend), backend, standing)),
        );
    }
    all.retain(|(key, ..)| key.address != Address::UNSPECIFIED);
    all.sort_unstable_by_key(|(key, backend, _)| (*key, !backend.local, &backend.node));
    let mut backends: BTreeMap<Key, WantedBackend<'_>> = BTreeMap::new();
    for (key, backend, standing) in all {
        let planned = backends.entry(key).or_insert(WantedBackend { backend, standing });
        planned.standing = planned.standing.min(standing);
    }
    backends
}

fn members(frontend: &Frontend) -> Vec<(Key, u32)> {
    let mut members: Vec<(Key, u32)> = frontend
        .backends
        .iter()
        .map(|(backend, &weight)| (Key::from(backend), weight))
        .collect();
    members.retain(|(key, _)| key.address != Address::UNSPECIFIED);
    members.sort_unstable_by_key(|&(key, weight)| (key, std::cmp::Reverse(weight)));
    members.dedup_by_key(|(key, _)| *key);
    members
}
