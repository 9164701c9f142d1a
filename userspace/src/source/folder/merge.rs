//! From the objects of single files to one snapshot.

use super::{
    super::objects::{Identity, Object},
    Manifests,
};
use std::collections::{BTreeMap, BTreeSet};
use weir_core::model::{Automatic, Condition, ServiceKey, reason};

/// What one file says.
#[derive(Clone, Debug, Default)]
pub(super) struct FileObjects {
    /// In order.
    pub objects: Vec<Found>,
    /// What is wrong with it.
    pub faults: Vec<Condition>,
}

/// An object and where it is.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Path and document.
    pub place: String,
    pub identity: Identity,
    pub object: Object,
    /// What is wrong with parts of it.
    pub faults: Vec<Condition>,
}

impl FileObjects {
    /// Keeps what an earlier reading of the file had and this one does not, if part of this one cannot be read: that part
    /// may be the missing object.
    pub(super) fn with_last_good(mut self, last: Self) -> Self {
        if self.faults.is_empty() {
            return self;
        }
        let present: BTreeSet<_> = self.objects.iter().map(|found| found.identity.clone()).collect();
        let missing: Vec<_> = last
            .objects
            .into_iter()
            .filter(|found| !present.contains(&found.identity))
            .collect();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|found| found.identity.to_string()).collect();
            let kept = format!(" Served as last read until then: {}.", names.join(", "));
            self.faults.iter_mut().for_each(|fault| fault.message.push_str(&kept));
            self.objects.extend(missing);
        }
        self
    }
}

impl FileObjects {
    /// Whether it has the same objects as `last`, of which none but EndpointSlices and Nodes are others than before, and
    /// there is nothing wrong with either.
    pub(super) fn is_urgent_after(&self, last: &Self) -> bool {
        let sound = |file: &Self| file.faults.is_empty() && file.objects.iter().all(|found| found.faults.is_empty());
        let same = |(next, last): (&Found, &Found)| {
            let urgent = match (&next.object, &last.object) {
                (Object::EndpointSlice(next, _), Object::EndpointSlice(last, _)) => next == last,
                (Object::Node(_), Object::Node(_)) => true,
                (next, last) => next == last,
            };
            urgent && next.identity == last.identity
        };
        let mut objects = self.objects.iter().zip(&last.objects);
        sound(self) && sound(last) && self.objects.len() == last.objects.len() && objects.all(same)
    }
}

impl Manifests {
    /// Puts the objects of a file into the place of those it had; false, and nothing is done, if one of them may be
    /// defined twice.
    pub(super) fn replace(&mut self, file: &FileObjects) -> bool {
        let faults = &self.cluster.faults;
        if faults.iter().any(|fault| fault.reason == reason::DUPLICATE) {
            return false;
        }
        for found in &file.objects {
            insert(self, &found.identity, found.object.clone());
        }
        true
    }
}

/// Puts files together, in the order given. Of two objects with one name the first counts.
pub(super) fn merge<'a>(files: impl Iterator<Item = &'a FileObjects>) -> Manifests {
    let mut manifests = Manifests::default();
    // Hosts with copies of one folder each allocate for themselves.
    manifests.cluster.automatic = Automatic::Hashed;
    let mut seen: BTreeMap<&Identity, &str> = BTreeMap::new();
    for file in files {
        manifests.cluster.faults.extend(file.faults.iter().cloned());
        for found in &file.objects {
            if let Some(first) = seen.get(&found.identity) {
                let message = format!(
                    "it is defined in {first} and again in {}; the first counts. Remove one of the two.",
                    found.place
                );
                let duplicate = Condition::new(found.identity.clone(), "metadata.name", reason::DUPLICATE, message);
                manifests.cluster.faults.push(duplicate);
                continue;
            }
            seen.insert(&found.identity, &found.place);
            manifests.cluster.faults.extend(found.faults.iter().cloned());
            insert(&mut manifests, &found.identity, found.object.clone());
        }
    }
    manifests
}

fn insert(manifests: &mut Manifests, identity: &Identity, object: Object) {
    let cluster = &mut manifests.cluster;
    let name = identity.name.clone();
    match object {
        Object::Eip(eip) => drop(cluster.eips.insert(name, eip)),
        Object::Service(service) => {
            let key = ServiceKey {
                namespace: identity.namespace.clone(),
                name,
            };
            cluster.services.insert(key, service);
        }
        Object::EndpointSlice(service, slice) => {
            cluster.endpoint_slices.or_default(service).insert(name, slice);
        }
        Object::Node(node) => drop(cluster.nodes.insert(name, node)),
        Object::Namespace(labels) => drop(cluster.namespaces.insert(name, labels)),
        Object::BgpConf(conf) => drop(manifests.bgp_confs.insert(name, *conf)),
        Object::BgpPeer(peer) => drop(manifests.bgp_peers.insert(name, *peer)),
    }
}
