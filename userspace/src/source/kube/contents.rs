//! What the API has said so far, and whether something new makes it another snapshot.

use super::{
    super::objects::{Identity, Object},
    Scope,
    records::{Record, Records},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};
use weir_core::{
    SharedMap,
    model::{Cluster, Condition, ServiceKey, Slices},
};

/// An object as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    /// `None` if it could not be read; then what was read before counts.
    pub(super) object: Option<Object>,
    /// What is written into it, for a controller.
    pub(super) record: Option<Record>,
    /// What is wrong with it.
    pub(super) faults: Vec<Condition>,
}

/// Everything said, less what nobody needs.
#[derive(Debug)]
pub(super) struct Contents {
    /// Without faults. Has the EndpointSlices only of Services that it has.
    cluster: Cluster,
    /// EndpointSlices of other Services: one may become of interest, and then its slices are not told again.
    unclaimed: SharedMap<ServiceKey, Slices>,
    /// Which Service an EndpointSlice belongs to.
    slices: BTreeMap<Identity, ServiceKey>,
    faults: BTreeMap<Identity, Vec<Condition>>,
    records: Records,
    /// The nodes that say in an Eip that they take packets out of the tunnel, by Eip.
    taking: BTreeMap<String, BTreeSet<String>>,
}

impl Contents {
    /// Nothing.
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            cluster: Cluster {
                automatic: scope.automatic(),
                tunnels: (scope == Scope::Agent).then(Arc::default),
                ..Cluster::default()
            },
            unclaimed: SharedMap::new(),
            slices: BTreeMap::new(),
            faults: BTreeMap::new(),
            records: Records::default(),
            taking: BTreeMap::new(),
        }
    }

    /// What is written into the objects.
    pub(super) const fn records(&self) -> &Records {
        &self.records
    }

    /// All of it.
    pub(super) fn snapshot(&self) -> Cluster {
        Cluster {
            faults: self.faults.values().flatten().cloned().collect(),
            ..self.cluster.clone()
        }
    }

    /// Takes in an object; whether the snapshot is another.
    pub(super) fn set(&mut self, entry: Entry) -> bool {
        let Entry {
            identity,
            object,
            record,
            faults,
        } = entry;
        let written = record.is_some_and(|record| self.records.set(&identity, record));
        if written && identity.kind == "Eip" {
            self.hear(&identity.name);
        }
        let faulted = if faults.is_empty() {
            self.faults.remove(&identity).is_some()
        } else {
            put(&mut self.faults, identity.clone(), faults)
        };
        let name = identity.name.clone();
        let changed = match object {
            None => false,
            Some(Object::Eip(eip)) => put(&mut self.cluster.eips, name, eip),
            Some(Object::Node(node)) => put(&mut self.cluster.nodes, name, node),
            Some(Object::Namespace(labels)) => put(&mut self.cluster.namespaces, name, labels),
            Some(Object::Service(service)) => {
                let key = key(&identity);
                if !self.cluster.services.contains_key(&key) {
                    let slices = self.unclaimed.remove_entry(&key);
                    self.cluster.endpoint_slices.extend(slices);
                }
                put_shared(&mut self.cluster.services, key, service)
            }
            Some(Object::EndpointSlice(service, slice)) => {
                let former = self.slices.insert(identity.clone(), service.clone());
                let moved = former
                    .filter(|former| *former != service)
                    .is_some_and(|former| self.remove_slice(&former, &name));
                let claimed = self.cluster.services.contains_key(&service);
                let of = if claimed {
                    &mut self.cluster.endpoint_slices
                } else {
                    &mut self.unclaimed
                };
                let differs = of.get(&service).and_then(|slices| slices.get(&name)) != Some(&slice);
                if differs {
                    of.or_default(service).insert(name, slice);
                }
                moved || claimed && differs
            }
            // Nobody follows them.
            Some(Object::BgpConf(_) | Object::BgpPeer(_)) => false,
        };
        changed || faulted || written
    }

    /// Forgets an object; whether the snapshot is another.
    pub(super) fn remove(&mut self, identity: &Identity) -> bool {
        let faulted = self.faults.remove(identity).is_some();
        self.records.remove(identity);
        let name = &identity.name;
        let changed = match &*identity.kind {
            "Eip" => {
                let told = self.hear(name);
                self.cluster.eips.remove(name).is_some() || told
            }
            "Node" => self.cluster.nodes.remove(name).is_some(),
            "Namespace" => self.cluster.namespaces.remove(name).is_some(),
            "Service" => {
                let key = key(identity);
                let slices = self.cluster.endpoint_slices.remove_entry(&key);
                self.unclaimed.extend(slices);
                self.cluster.services.remove(&key).is_some()
            }
            "EndpointSlice" => self
                .slices
                .remove(identity)
                .is_some_and(|service| self.remove_slice(&service, name)),
            _ => false,
        };
        changed || faulted
    }

    /// Which nodes take packets out of the tunnel, now that they have written something else into an Eip; whether these are
    /// others.
    fn hear(&mut self, eip: &str) -> bool {
        let Some(former) = &mut self.cluster.tunnels else {
            return false;
        };
        let standings = self.records.eips.get(eip).into_iter().flat_map(|eip| &eip.nodes);
        let taking = standings.filter(|(_, standing)| standing.takes_tunnel);
        let taking: BTreeSet<String> = taking.map(|(node, _)| node.clone()).collect();
        if self.taking.get(eip).unwrap_or(&BTreeSet::new()) == &taking {
            return false;
        }
        self.taking.insert(eip.to_owned(), taking);
        let all: BTreeSet<String> = self.taking.values().flatten().cloned().collect();
        let other = **former != all;
        if other {
            *former = Arc::new(all);
        }
        other
    }

    /// Takes in all objects of a kind; whether the snapshot is another.
    pub(super) fn replace(&mut self, kind: &str, entries: Vec<Entry>) -> bool {
        let present: BTreeSet<Identity> = entries.iter().map(|entry| entry.identity.clone()).collect();
        let gone: Vec<Identity> = self.known(kind).filter(|known| !present.contains(known)).collect();
        let mut changed = false;
        for identity in gone {
            changed |= self.remove(&identity);
        }
        for entry in entries {
            changed |= self.set(entry);
        }
        changed
    }

    /// Objects of a kind; also one that could never be read.
    fn known(&self, kind: &str) -> impl Iterator<Item = Identity> {
        let named = |names: Vec<&String>| -> Vec<Identity> {
            names
                .into_iter()
                .map(|name| Identity::cluster_scoped(kind, name))
                .collect()
        };
        let known = match kind {
            "Eip" => named(self.cluster.eips.keys().collect()),
            "Node" => named(self.cluster.nodes.keys().collect()),
            "Namespace" => named(self.cluster.namespaces.keys().collect()),
            "Service" => self.cluster.services.keys().map(Identity::service).collect(),
            "EndpointSlice" => self.slices.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let faulty = self.faults.keys().filter(|identity| identity.kind == kind).cloned();
        known.into_iter().chain(faulty.collect::<Vec<_>>())
    }

    /// Removes a Service's slice; whether the snapshot is another.
    fn remove_slice(&mut self, service: &ServiceKey, name: &str) -> bool {
        let claimed = take(&mut self.cluster.endpoint_slices, service, name);
        take(&mut self.unclaimed, service, name);
        claimed
    }
}

fn key(identity: &Identity) -> ServiceKey {
    ServiceKey {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
    }
}

/// Whether there was no such value.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    match map.get_mut(&key) {
        Some(former) if *former == value => false,
        Some(former) => {
            drop(mem::replace(former, value));
            true
        }
        None => map.insert(key, value).is_none(),
    }
}

/// The same, without parting what others share if there was.
fn put_shared<K: Ord + Clone, V: PartialEq + Clone>(map: &mut SharedMap<K, V>, key: K, value: V) -> bool {
    let differs = map.get(&key) != Some(&value);
    if differs {
        map.insert(key, value);
    }
    differs
}

fn take(of: &mut SharedMap<ServiceKey, Slices>, service: &ServiceKey, name: &str) -> bool {
    let Some(slices) = of.get_mut(service) else {
        return false;
    };
    let taken = slices.remove(name).is_some();
    if slices.is_empty() {
        of.remove(service);
    }
    taken
}

#[cfg(test)]
mod tests;
