//! What a packet may find while a step is under way, looked up the way the kernel does.

use super::{
    SETTINGS,
    image::Image,
    world::{self, NODES, THIS, frontends, node_address},
};
use crate::{
    plan::{BackendKey, FrontendKey, Plan},
    tables::key::Key,
};
use std::collections::BTreeSet;
use weir_common::abi::{BACKEND_DRAINING, BACKEND_LOCAL, Backend, DirectoryEntry, Row, RowRange, kind};

/// What must hold between two plans, whatever was written so far.
pub struct Between<'a> {
    /// The plan before, or several where an agent died on the way.
    pub old: &'a [Plan],
    pub new: &'a Plan,
    /// Plans before those: what the last step left behind may still say who is let in.
    pub earlier: &'a [Plan],
    /// Frontends that were there and are to stay.
    pub kept: Vec<FrontendKey>,
    pub before: &'a Image,
    /// What the step leads to.
    pub after: &'a Image,
    /// All that was ever planned, which old rows may remember.
    pub known: BTreeSet<Key>,
}

impl Between<'_> {
    fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.old.iter().chain([self.new])
    }

    pub fn check(&self, now: &Image) {
        for name in &self.kept {
            let key = Key::from(name);
            assert!(now.filter_has(&key), "{name} is filtered out");
            let entry = now.entry(&key).unwrap_or_else(|| panic!("{name} is not found"));
            assert_eq!(
                entry.id,
                self.before.entry(&key).expect("kept").id,
                "{name} keeps its id"
            );
            self.check_frontend(name, entry, now);
            // Readers that are half way through when the step begins.
            let late = now.entry_in(self.before.slot(&key), &key).expect("old copies stay");
            self.check_frontend(name, late, now);
            let entry = self.before.entry(&key).expect("kept");
            self.check_frontend(name, entry, now);
            self.check_rows(name, self.before.range(entry.rows), now);
            self.check_remembered(name, now, |_| true);
        }
        for name in frontends() {
            let planned = self.plans().any(|plan| plan.frontends.contains_key(&name));
            if let Some(entry) = now.entry(&Key::from(&name)) {
                assert!(planned, "{name} is found and nobody planned it");
                self.check_frontend(&name, entry, now);
            }
        }
        for responder in now.responders.keys() {
            let served = frontends()
                .into_iter()
                .filter(|name| responder.address == name.address.into());
            assert!(
                served
                    .map(|name| Key::from(&name))
                    .any(|key| now.filter_has(&key) && now.entry(&key).is_some())
            );
        }
        self.check_support(now);
    }

    fn check_frontend(&self, name: &FrontendKey, entry: &DirectoryEntry, now: &Image) {
        assert_eq!(entry.kind, kind::FRONTEND);
        self.check_rows(name, now.range(entry.rows), now);
    }

    /// Every source finds an answer at frontend `id` that one of the plans gives, also at an entry read before the step.
    pub fn check_sources(&self, id: Option<u32>, now: &Image) {
        for name in frontends() {
            let key = Key::from(&name);
            let [early, late] = [self.before.entry(&key), now.entry(&key)];
            let kept = early.filter(|_| self.kept.contains(&name));
            let entries = kept.into_iter().chain(late);
            for entry in entries.filter(|entry| Some(entry.id) == id) {
                self.check_sources_of(&name, entry, now);
            }
        }
    }

    fn check_sources_of(&self, name: &FrontendKey, entry: &DirectoryEntry, now: &Image) {
        let plans = || self.plans().chain(self.earlier);
        let planned = || plans().filter_map(|plan| plan.frontends.get(name));
        for source in world::sources(name.address) {
            let admitted = now.admits(entry, source);
            let as_planned = planned().any(|of| world::admits(&of.policy.sources, source) == admitted);
            assert!(as_planned, "{name}: {source} is let in: {admitted}, which no plan says");
        }
    }

    /// What [`Between::check`] does, for one row whose owners were written.
    pub fn check_written_row(&self, index: u32, now: &Image) {
        for name in frontends() {
            let key = Key::from(&name);
            let kept = self.kept.contains(&name);
            for entry in [now.entry(&key), self.before.entry(&key)].into_iter().flatten() {
                let holds = entry.kind == kind::FRONTEND
                    && (entry.rows.base..=entry.rows.base + entry.rows.mask).contains(&index);
                if holds && (kept || now.entry(&key).is_some()) {
                    self.check_rows(&name, &now.rows[index as usize..=index as usize], now);
                }
                if holds && kept {
                    let mask = entry.rows.mask as usize;
                    self.check_remembered(&name, now, |hash| hash & mask == (index - entry.rows.base) as usize);
                }
            }
        }
    }

    /// Whoever is an owner of a row before and after is found in between, by readers that are late, too.
    fn check_remembered(&self, name: &FrontendKey, now: &Image, concerned: impl Fn(usize) -> bool) {
        let key = Key::from(name);
        let [before, after, now_range] =
            [self.before, self.after, now].map(|image| image.entry(&key).expect("kept").rows);
        let at = |image: &Image, range: RowRange, hash: usize| {
            let index = range.base as usize + (hash & range.mask as usize);
            let range = RowRange {
                base: index as u32,
                mask: 0,
            };
            image.owners(range).next().expect("one row")
        };
        let hashes = before.mask.max(after.mask).max(now_range.mask) as usize;
        for hash in (0..=hashes).filter(|hash| concerned(*hash)) {
            let [was, is] = [at(self.before, before, hash), at(self.after, after, hash)];
            // Two may come out of the past into the row, and each needs a slot; so does what changes places.
            let free = |owners: &[u32]| owners[2..].iter().filter(|id| **id == 0).count();
            let crowded = if free(&was) == 0 {
                2
            } else {
                2_usize.saturating_sub(free(&is))
            };
            for seen in [at(now, now_range, hash), at(now, before, hash)] {
                let missing = was.iter().filter(|id| is.contains(id) && !seen.contains(id));
                assert!(missing.count() <= crowded, "{name}: {was:?} {seen:?} {is:?}");
            }
        }
    }

    fn check_rows(&self, name: &FrontendKey, rows: &[Row], now: &Image) {
        let mut current = vec![false; now.backends.len()];
        let mut previous = current.clone();
        for row in rows {
            assert!(row.previous != row.current || row.current == 0);
            current[row.current as usize] = true;
            previous[row.previous as usize] = true;
        }
        let planned = || self.plans().filter_map(|plan| plan.frontends.get(name));
        let without_owner = planned().any(|frontend| frontend.backends.is_empty());
        assert!(!current[0] || without_owner, "{name}: a row without owner");
        for id in (1..current.len()).filter(|&id| current[id]) {
            let backend = now.backends[id];
            let owner = planned()
                .flat_map(|frontend| frontend.backends.keys())
                .find(|owner| is(&backend, owner));
            assert!(owner.is_some(), "{name}: a row leads to {backend:?}, which no plan has");
            self.check_place(&backend, now);
        }
        for id in (1..previous.len()).filter(|&id| previous[id]) {
            let backend = now.backends[id];
            assert!(
                self.known.contains(&Key::from(&backend)),
                "{name}: previous is {backend:?}"
            );
        }
    }

    /// A backend's entry says where one of the plans has it.
    fn check_place(&self, backend: &Backend, now: &Image) {
        let flags = backend.flags & !BACKEND_DRAINING;
        let fits = |plan: &Plan, key: &BackendKey| {
            let node = &now.nodes[backend.node as usize];
            match plan.nodes.get(&*key.node) {
                _ if key.local => flags == BACKEND_LOCAL && backend.node == 0,
                Some(address) => flags == 0 && node.address == (*address).into(),
                None => flags == 0,
            }
        };
        let fits_in = |plan: &Plan| {
            let all = plan
                .frontends
                .values()
                .flat_map(|of| of.backends.keys().chain(of.draining.keys()));
            all.into_iter().any(|key| is(backend, key) && fits(plan, key))
        };
        let found = self.plans().any(fits_in);
        assert!(found, "{backend:?} is where no plan has it");
        let node = &now.nodes[backend.node as usize];
        assert!(node.ifindex == 0 || NODES[..2].iter().any(|name| node.address == node_address(name).into()));
    }

    fn check_support(&self, now: &Image) {
        let tunnel = Key::socket(node_address(THIS), SETTINGS.tunnel_port, 17);
        if self.before.entry(&tunnel).is_some() && self.before.filter_has(&tunnel) {
            assert!(now.entry(&tunnel).is_some_and(|entry| entry.kind == kind::TUNNEL) && now.filter_has(&tunnel));
        }
        for name in NODES {
            let key = Key::address(node_address(name));
            let there = |plan: &Plan| plan.nodes.contains_key(name);
            let [old, new] = [self.old.iter().any(there), there(self.new)];
            match now.entry(&key) {
                Some(peer) => {
                    assert!(old || new);
                    assert_eq!(
                        (peer.kind, now.nodes[peer.id as usize].address),
                        (kind::PEER, key.address)
                    );
                }
                None => assert!(!(old && new && self.before.entry(&key).is_some()), "{name} is refused"),
            }
        }
        for index in 0..world::PODS {
            let local = world::backend(index, 0);
            let key = Key::from(&local);
            let here = |plan: &Plan| {
                plan.frontends
                    .values()
                    .any(|of| of.backends.contains_key(&local) || of.draining.contains_key(&local))
            };
            let [old, new] = [self.old.iter().any(here), here(self.new)];
            match now.entry(&key) {
                Some(entry) => {
                    assert_eq!(entry.kind, kind::BACKEND);
                    assert!(is(&now.backends[entry.id as usize], &local));
                    let remembered = || self.before.named().contains(&entry.id);
                    assert!(old || new || remembered(), "{local} is found and nobody knows it");
                }
                None => assert!(
                    !(old && new && self.before.entry(&key).is_some()),
                    "{local:?} is not found"
                ),
            }
        }
    }
}

fn is(backend: &Backend, key: &BackendKey) -> bool {
    Key::from(backend) == Key::from(key)
}
