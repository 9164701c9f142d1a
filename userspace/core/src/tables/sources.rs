//! `SOURCES`: which source addresses the frontends let in.
//!
//! The kernel takes the longest prefix of the frontend that has a source; flags in the frontend's directory entry say
//! whether it looks at all, and what becomes of a source without a prefix. Changes are ordered so that every source finds
//! either the old answer or the new one at any time:
//!
//! 1. Prefixes that are new or say something else, the longest first: whoever finds one finds the longest of the new
//!    ones, or still a longer old one.
//! 2. The flags, in one store.
//! 3. With the next step, when no packet that read the old flags is under way, prefixes that are no longer wanted, the
//!    shortest first: whoever loses one finds a longer old one, or the new answer.
//!
//! The prefixes of a frontend that is gone are removed before its id is free. If the map is full, a frontend whose prefixes
//! do not all fit refuses everybody: half a list would let in whom nobody meant.

use super::{SourceKey, Write};
use crate::plan::Sources;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use weir_common::abi::{SOURCE_PREFIXES, source};

#[derive(Debug, Default)]
pub(super) struct SourcePrefixes {
    /// By frontend id: what its prefixes say.
    held: BTreeMap<u32, BTreeMap<SourceKey, u32>>,
    /// In the map and no longer wanted.
    stale: BTreeSet<SourceKey>,
    /// Entries of the map, stale ones among them.
    count: usize,
}

impl SourcePrefixes {
    /// What the map holds; what belongs to none of the frontends is removed with the next release.
    pub fn adopt(contents: &[(SourceKey, u32)], is_frontend: impl Fn(u32) -> bool) -> Self {
        let mut adopted = Self {
            count: contents.len(),
            ..Self::default()
        };
        for (key, verdict) in contents {
            match key.frontend().filter(|id| is_frontend(*id)) {
                Some(id) => {
                    adopted.held.entry(id).or_default().insert(key.masked(), *verdict);
                }
                None => {
                    adopted.stale.insert(key.masked());
                }
            }
        }
        adopted
    }

    /// Removes what the last step left behind.
    pub fn release(&mut self, writes: &mut Vec<Write>) {
        let mut stale: Vec<SourceKey> = std::mem::take(&mut self.stale).into_iter().collect();
        stale.sort_by_key(|key| key.length);
        self.count -= stale.len();
        writes.extend(stale.into_iter().map(|key| Write::RemoveSource { key }));
    }

    /// Whether prefixes wait to be removed.
    pub fn waiting(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Enters the prefixes of frontend `id`; false if they do not all fit: then none is entered, and the frontend must be
    /// made to refuse everybody.
    pub fn update(&mut self, id: u32, wanted: &Sources, writes: &mut Vec<Write>) -> bool {
        if wanted.are_unrestricted() && !self.held.contains_key(&id) {
            return true;
        }
        let held = self.held.entry(id).or_default();
        let mut next = entries(id, wanted);
        let new = next.keys().filter(|key| !held.contains_key(key)).count();
        let fits = self.count + new <= SOURCE_PREFIXES as usize;
        if !fits {
            next.clear();
        }
        let mut changed: Vec<_> = next
            .iter()
            .filter(|(key, verdict)| held.get(key) != Some(verdict))
            .map(|(key, verdict)| (*key, *verdict))
            .collect();
        changed.sort_by_key(|(key, _)| std::cmp::Reverse(key.length));
        writes.extend(
            changed
                .into_iter()
                .map(|(key, verdict)| Write::SetSource { key, verdict }),
        );
        self.count += next.keys().filter(|key| !held.contains_key(key)).count();
        self.stale.extend(held.keys().filter(|key| !next.contains_key(key)));
        *held = next;
        if held.is_empty() {
            self.held.remove(&id);
        }
        fits
    }

    /// Retires the prefixes of a frontend that is gone.
    pub fn remove(&mut self, id: u32) {
        self.stale.extend(self.held.remove(&id).unwrap_or_default().into_keys());
    }
}

fn entries(id: u32, sources: &Sources) -> BTreeMap<SourceKey, u32> {
    let entry = |prefix: &IpNet, verdict: u32| (SourceKey::new(id, prefix), verdict);
    let allowed = sources
        .allowed
        .iter()
        .flatten()
        .map(|prefix| entry(prefix, source::ALLOWED));
    allowed
        .chain(sources.denied.iter().map(|prefix| entry(prefix, source::DENIED)))
        .collect()
}
