//! `BACKENDS`: where each backend is, and the ids rows know them by.
//!
//! A backend has one id, however many frontends share it, for as long as the plan has it (serving or draining) or a row
//! names it, if only as a former owner. Port, protocol, flags and node of an entry are one word, so a backend that
//! turns up on another node, or that gets no new flows any more, changes in one store.

use super::{Write, frontends::Frontends, ids::Ids, key::Key, nodes::Nodes, standing::Standing, wanted::Wanted};
use crate::SharedMap;
use std::collections::BTreeSet;
use weir_common::abi::{Address, BACKEND_DRAINING, BACKEND_LOCAL, Backend};

#[derive(Debug)]
pub(super) struct Backends {
    ids: Ids,
    held: SharedMap<Key, Held>,
    /// Those that the plan does not have: rows, or flows, may still name them.
    unplanned: BTreeSet<Key>,
    /// Those of this node that have flows which go on.
    live: BTreeSet<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub id: u32,
    flags: u8,
    node: u32,
}

impl Backends {
    /// What the map holds; entries that are no backend, or a backend a second time, are cleared.
    pub fn adopt(contents: &[Backend], nodes: &Nodes, repairs: &mut Vec<Write>) -> Self {
        let mut adopted = Self {
            ids: Ids::new(1, contents.len() as u32),
            held: SharedMap::new(),
            unplanned: BTreeSet::new(),
            live: BTreeSet::new(),
        };
        let known: BTreeSet<u32> = nodes.ids().map(|(_, id)| id).collect();
        for (id, backend) in (0..)
            .zip(contents)
            .filter(|(_, backend)| **backend != Backend::default())
        {
            let key = Key::from(backend);
            let new = key.address != Address::UNSPECIFIED && !adopted.held.contains_key(&key);
            if !new || !adopted.ids.claim(id) {
                repairs.push(Write::Backend {
                    id,
                    backend: Backend::default(),
                });
                continue;
            }
            let held = Held {
                id,
                flags: backend.flags & (BACKEND_LOCAL | BACKEND_DRAINING),
                node: if known.contains(&backend.node) { backend.node } else { 0 },
            };
            if entry(&key, &held) != *backend {
                repairs.push(write(&key, &held));
            }
            adopted.held.insert(key, held);
        }
        adopted
    }

    /// Clears what the last step left behind.
    pub fn release(&mut self, writes: &mut Vec<Write>) {
        writes.extend(self.ids.release().into_iter().map(|id| Write::Backend {
            id,
            backend: Backend::default(),
        }));
    }

    /// Whether entries wait to be cleared.
    pub fn waiting(&self) -> bool {
        self.ids.waiting()
    }

    /// Enters those of `keys` that are planned backends, and brings all of them that are there up to date; gives those for
    /// which there is no id. `keys` go up.
    pub fn update<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k Key> + Clone,
        wanted: &Wanted,
        writes: &mut Vec<Write>,
    ) -> BTreeSet<Key> {
        for key in keys.clone().filter(|key| wanted.backend(key).is_none()) {
            let Some(held) = self.held.get_mut(key) else { continue };
            self.unplanned.insert(*key);
            if held.flags & BACKEND_DRAINING == 0 {
                held.flags |= BACKEND_DRAINING;
                writes.push(write(key, held));
            }
        }
        let mut refused = BTreeSet::new();
        for (key, planned) in keys.filter_map(|key| Some((key, wanted.backend(key)?))) {
            let held = self.held.get(key).copied();
            let Some(id) = held.map(|held| held.id).or_else(|| self.ids.take()) else {
                refused.insert(*key);
                continue;
            };
            self.unplanned.remove(key);
            // A node that left the plan: the way that was is the best guess.
            let node = wanted.basis().nodes.get(planned.node).copied();
            let node = node.or(held.map(|held| held.node)).unwrap_or(0);
            let local_flag = if planned.local { BACKEND_LOCAL } else { 0 };
            let draining_flag = match planned.standing {
                Standing::Serving => 0,
                Standing::Draining | Standing::NotServing | Standing::Gone => BACKEND_DRAINING,
            };
            let next = Held {
                id,
                flags: local_flag | draining_flag,
                node: if planned.local { 0 } else { node },
            };
            if held != Some(next) {
                self.held.insert(*key, next);
                writes.push(write(key, &next));
            }
        }
        refused
    }

    /// Whether ids run out, so that those that only old rows name are worth more than what they remember.
    pub fn scarce(&self) -> bool {
        self.ids.free() <= self.ids.capacity() / 8
    }

    /// The backends that neither the plan nor a row names, and that have no flows which go on.
    pub fn unused(&self, frontends: &Frontends) -> Vec<Key> {
        let unplanned = self.unplanned.iter();
        unplanned
            .filter(|key| !self.is_remembered(key, frontends))
            .copied()
            .collect()
    }

    fn is_remembered(&self, key: &Key, frontends: &Frontends) -> bool {
        let held = self.held.get(key);
        held.is_some_and(|held| frontends.name(held.id) || held.flags & BACKEND_LOCAL != 0 && self.live.contains(key))
    }

    /// Retires backends.
    pub fn remove(&mut self, unused: &[Key]) {
        for key in unused {
            self.unplanned.remove(key);
            if let Some(held) = self.held.remove(key) {
                self.ids.retire(held.id);
            }
        }
    }

    /// Takes over which pods of this node have flows that go on.
    pub fn set_live(&mut self, live: BTreeSet<Key>) {
        self.live = live;
    }

    /// Whether this is a backend of this node that a row names, or that has flows which go on.
    pub fn is_remembered_here(&self, key: &Key, frontends: &Frontends) -> bool {
        let local = self.held.get(key).is_some_and(|held| held.flags & BACKEND_LOCAL != 0);
        local && self.is_remembered(key, frontends)
    }

    /// All of them.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.held.keys().copied()
    }

    /// What the map holds, by key.
    pub const fn held(&self) -> &SharedMap<Key, Held> {
        &self.held
    }

    /// The id of a backend.
    pub fn id(&self, key: &Key) -> Option<u32> {
        self.held.get(key).map(|held| held.id)
    }

    /// By id, whether a backend has it.
    pub fn known(&self) -> Vec<bool> {
        let mut known = vec![false; self.ids.capacity() as usize + 1];
        for held in self.held.values() {
            known[held.id as usize] = true;
        }
        known
    }

    /// Ids of the nodes that backends are on.
    pub fn nodes(&self) -> BTreeSet<u32> {
        self.held.values().map(|held| held.node).collect()
    }
}

fn entry(key: &Key, held: &Held) -> Backend {
    Backend {
        address: key.address,
        port: key.port,
        protocol: key.protocol,
        flags: held.flags,
        node: held.node,
        ..Backend::default()
    }
}

fn write(key: &Key, held: &Held) -> Write {
    Write::Backend {
        id: held.id,
        backend: entry(key, held),
    }
}
