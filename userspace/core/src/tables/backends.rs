//! `BACKENDS`: where each backend is, and the ids rows know them by.
//!
//! A backend has one id, however many frontends share it, for as long as the plan has it (serving or draining) or a row
//! names it, if only as a former owner. Port, protocol, flags and node of an entry are one word, so a backend that
//! turns up on another node, or that gets no new flows any more, changes in one store.

use super::{Write, frontends::Frontends, ids::Ids, key::Key, nodes::Nodes, standing::Standing, wanted::Wanted};
use std::collections::{BTreeMap, BTreeSet};
use weir_common::abi::{Address, BACKEND_DRAINING, BACKEND_LOCAL, Backend};

#[derive(Debug)]
pub(super) struct Backends {
    ids: Ids,
    held: BTreeMap<Key, Held>,
    /// Those of this node that have flows which go on.
    live: BTreeSet<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    id: u32,
    flags: u8,
    node: u32,
}

impl Backends {
    /// What the map holds; entries that are no backend, or a backend a second time, are cleared.
    pub fn adopt(contents: &[Backend], nodes: &Nodes, repairs: &mut Vec<Write>) -> Self {
        let mut adopted = Self {
            ids: Ids::new(1, contents.len() as u32),
            held: BTreeMap::new(),
            live: BTreeSet::new(),
        };
        let known = nodes.ids();
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

    /// Enters the planned backends and brings all that are there up to date; gives those for which there is no id.
    pub fn update(&mut self, wanted: &Wanted<'_>, nodes: &Nodes, writes: &mut Vec<Write>) -> BTreeSet<Key> {
        for (key, held) in self.held.iter_mut().filter(|(key, _)| wanted.backend(key).is_none()) {
            if held.flags & BACKEND_DRAINING == 0 {
                held.flags |= BACKEND_DRAINING;
                writes.push(write(key, held));
            }
        }
        let mut refused = BTreeSet::new();
        for (key, planned) in &wanted.backends {
            let held = self.held.get(key).copied();
            let Some(id) = held.map(|held| held.id).or_else(|| self.ids.take()) else {
                refused.insert(*key);
                continue;
            };
            let local = planned.backend.local;
            // A node that left the plan: the way that was is the best guess.
            let node = || {
                wanted
                    .node_address(&planned.backend.node)
                    .and_then(|address| nodes.id(&address))
            };
            let node = || node().or(held.map(|held| held.node)).unwrap_or(0);
            let local_flag = if local { BACKEND_LOCAL } else { 0 };
            let draining_flag = match planned.standing {
                Standing::Serving => 0,
                Standing::Draining | Standing::NotServing | Standing::Gone => BACKEND_DRAINING,
            };
            let next = Held {
                id,
                flags: local_flag | draining_flag,
                node: if local { 0 } else { node() },
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

    /// Retires the backends that neither the plan nor a row names.
    pub fn sweep(&mut self, wanted: &Wanted<'_>, frontends: &Frontends) {
        let Self { ids, held, live } = self;
        held.retain(|key, held| {
            let lives = held.flags & BACKEND_LOCAL != 0 && live.contains(key);
            let keep = lives || frontends.name(held.id) || wanted.backend(key).is_some();
            if !keep {
                ids.retire(held.id);
            }
            keep
        });
    }

    /// Takes over which pods of this node have flows that go on.
    pub fn set_live(&mut self, live: BTreeSet<Key>) {
        self.live = live;
    }

    /// Whether this is a backend of this node that a row names, or that has flows which go on.
    pub fn is_remembered_here(&self, key: &Key, frontends: &Frontends) -> bool {
        let local = self.held.get(key).filter(|held| held.flags & BACKEND_LOCAL != 0);
        local.is_some_and(|held| self.live.contains(key) || frontends.name(held.id))
    }

    /// The id of a backend.
    pub fn id(&self, key: &Key) -> Option<u32> {
        self.held.get(key).map(|held| held.id)
    }

    /// By id, whether a backend has it.
    pub fn known(&self) -> Vec<bool> {
        self.by_id(false, |_| true)
    }

    /// What the plan says of each backend, by id.
    pub fn standings(&self, wanted: &Wanted<'_>) -> Vec<Standing> {
        let standing = |key: &Key| wanted.backend(key).map_or(Standing::Gone, |planned| planned.standing);
        self.by_id(Standing::Gone, standing)
    }

    fn by_id<T: Clone>(&self, without: T, of: impl Fn(&Key) -> T) -> Vec<T> {
        let mut all = vec![without; self.ids.capacity() as usize + 1];
        for (key, held) in &self.held {
            all[held.id as usize] = of(key);
        }
        all
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
