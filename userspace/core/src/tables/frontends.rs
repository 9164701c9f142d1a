//! Frontends: an id and rows for each, kept in step with who serves it.
//!
//! Rows change when who serves the frontend does, and what they remember also when a former owner does no longer answer, is
//! gone or is back, and for UDP with time.

use super::{
    Contents, Settings, SourceKey, Write,
    backends::Backends,
    ids::Ids,
    key::Key,
    members::Members,
    policies::with_policy,
    refusal::{Refusal, refused},
    rows::{Rows, Table},
    sources::SourcePrefixes,
    stack::Stack,
    standing::{Memory, Standing},
    wanted::{Role, Wanted, WantedFrontend},
};
use crate::{
    SharedMap,
    ascending::Ascending,
    model::{Condition, ObjectRef},
    plan::Frontend,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use weir_common::abi::{Address, DirectoryEntry, FRONTENDS, kind, policy, protocol};

#[derive(Debug)]
pub(super) struct Frontends {
    ids: Ids,
    rows: Rows,
    sources: SourcePrefixes,
    /// Where the stack has flows.
    stack: Stack,
    held: BTreeMap<Key, Held>,
    /// The id of each.
    by_key: SharedMap<Key, u32>,
    /// Those of which something did not fit: they are tried again with each step.
    lacking: BTreeSet<Key>,
    /// Who remembers whom: each former owner with the frontends whose rows it is in.
    remembered: BTreeSet<(u32, Key)>,
    /// The UDP frontends among them.
    to_forget: BTreeSet<Key>,
    /// How many are served at each address.
    served: SharedMap<Address, u32>,
    /// What the sizes of tables followed from in the last step; `None` while that is not known.
    halvings: Option<u32>,
    /// Rows did not suffice in the last step: spare ones are to be given up.
    short: bool,
    /// The next step gives up spare rows where this one did not.
    retry: bool,
    /// What the plan says of each backend id, as of the last step; `None` while that is not known.
    standings: Vec<Option<Standing>>,
}

#[derive(Debug)]
struct Held {
    id: u32,
    table: Table,
    /// What the rows were computed from; `None` when that is not known.
    from: Option<Members>,
    /// When its rows last changed hands; `None` when that is not known.
    changed: Option<u64>,
    /// Counted in [`Frontends::served`].
    served: bool,
    /// The former owners that are in [`Frontends::remembered`].
    noted: Vec<u32>,
}

impl Held {
    /// Seconds until no UDP flow is left that had another owner.
    fn forget_in(&self, settings: &Settings) -> u64 {
        let changed = self.changed.unwrap_or(settings.now);
        // One more, as seconds are cut off.
        (changed + settings.udp_idle + 1).saturating_sub(settings.now)
    }

    /// Whether its former owners have been remembered for long enough.
    fn is_to_forget(&self, key: &Key, settings: &Settings) -> bool {
        is_udp(key) && self.table.remembers() && self.forget_in(settings) == 0
    }

    /// Whether there is something to do though the plan says what it said before: its table is to have another size, or a
    /// former owner `moved` or is to be forgotten.
    fn is_due(&self, key: &Key, size: usize, moved: &BTreeSet<u32>, settings: &Settings) -> bool {
        self.from.as_ref().is_none_or(|members| members.size != size)
            || self.table.remembers_any(moved)
            || self.is_to_forget(key, settings)
    }
}

/// What a step may write to, and complain to.
pub(super) struct Outcome<'a> {
    pub writes: &'a mut Vec<Write>,
    pub conditions: &'a mut Vec<Condition>,
}

impl Outcome<'_> {
    fn refuse(&mut self, frontend: &WantedFrontend, refusal: Refusal, what: String) {
        self.conditions
            .push(refused(ObjectRef::service(&frontend.frontend.service), refusal, what));
    }
}

impl Frontends {
    /// None, over this many rows and backend ids.
    pub fn new(rows: usize, backends: usize) -> Self {
        Self {
            ids: Ids::new(0, FRONTENDS),
            rows: Rows::new(u32::try_from(rows).unwrap_or(u32::MAX), backends.max(1)),
            sources: SourcePrefixes::default(),
            stack: Stack::default(),
            held: BTreeMap::new(),
            by_key: SharedMap::new(),
            lacking: BTreeSet::new(),
            remembered: BTreeSet::new(),
            to_forget: BTreeSet::new(),
            served: SharedMap::new(),
            halvings: None,
            short: false,
            retry: false,
            standings: vec![None; backends],
        }
    }

    /// Takes over a frontend found in the directory; false if it cannot be one.
    pub fn adopt(
        &mut self,
        key: &Key,
        entry: &DirectoryEntry,
        contents: &Contents<'_>,
        known: impl Fn(u32) -> bool,
        repairs: &mut Vec<Write>,
    ) -> bool {
        if !self.ids.claim(entry.id) {
            return false;
        }
        let adopted = self
            .rows
            .adopt(entry.rows, contents.rows, contents.history, known, repairs);
        let Some(table) = adopted else {
            self.ids.retire(entry.id);
            self.ids.release();
            return false;
        };
        let held = Held {
            id: entry.id,
            table,
            from: None,
            changed: None,
            served: false,
            noted: Vec::new(),
        };
        self.by_key.insert(*key, held.id);
        self.held.insert(*key, held);
        self.note_remembered(key);
        true
    }

    /// Takes over the source prefixes of the frontends taken over before.
    pub fn adopt_sources(&mut self, contents: &[(SourceKey, u32)]) {
        let ids: BTreeSet<u32> = self.held.values().map(|held| held.id).collect();
        self.sources = SourcePrefixes::adopt(contents, |id| ids.contains(&id));
    }

    /// Clears what no adopted frontend uses.
    pub fn clear_unused(&self, contents: &Contents<'_>, repairs: &mut Vec<Write>) {
        self.rows.clear_unused(contents.history, repairs);
    }

    /// Makes what the last step left behind available again.
    pub fn release(&mut self, writes: &mut Vec<Write>) {
        self.sources.release(writes);
        self.ids.release();
        self.rows.release(writes);
    }

    /// Whether something waits for that, or another step can find the rows that this one could not.
    pub fn waiting(&self) -> bool {
        self.ids.waiting() || self.rows.waiting() || self.sources.waiting() || self.retry
    }

    /// Forgets former owners that the plan does not have, which frees their ids with the next step.
    pub fn forget(&mut self, writes: &mut Vec<Write>) {
        for held in self.held.values_mut() {
            self.rows
                .review(&mut held.table, Memory::Planned.orders(&self.standings), writes);
        }
        let all: Vec<Key> = self.keys().collect();
        all.iter().for_each(|key| self.note_remembered(key));
    }

    pub const fn stack(&self) -> &Stack {
        &self.stack
    }

    pub fn set_stack(&mut self, stack: Stack) {
        self.stack = stack;
    }

    /// Takes over whom the rows of a frontend remember now.
    fn note_remembered(&mut self, key: &Key) {
        let Some(held) = self.held.get_mut(key) else { return };
        let now: Vec<u32> = held.table.former().collect();
        if held.noted == now {
            return;
        }
        for id in &held.noted {
            self.remembered.remove(&(*id, *key));
        }
        self.remembered.extend(now.iter().map(|id| (*id, *key)));
        if is_udp(key) && !now.is_empty() {
            self.to_forget.insert(*key);
        } else {
            self.to_forget.remove(key);
        }
        held.noted = now;
    }

    /// The frontends whose rows remember one of `ids`.
    fn rememberers(&self, ids: &BTreeSet<u32>) -> impl Iterator<Item = Key> {
        let of = |id: &u32| {
            let id = *id;
            let from = self.remembered.range((id, Key::FIRST)..);
            from.take_while(move |(held, _)| *held == id).map(|(_, key)| *key)
        };
        ids.iter().flat_map(of)
    }

    /// Seconds until a row is to forget.
    pub fn forget_in(&self, settings: &Settings) -> Option<u64> {
        let held = self.to_forget.iter().filter_map(|key| self.held.get(key));
        held.map(|held| held.forget_in(settings)).min()
    }

    /// Takes over what the plan says of those of `keys` that are backends; gives the ids of which it says something else.
    fn enter_standings<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k Key>,
        wanted: &Wanted,
        backends: &Backends,
    ) -> BTreeSet<u32> {
        let standing = |key: &Key| wanted.backend(key).map_or(Standing::Gone, |backend| backend.standing);
        let said = keys.filter_map(|key| Some((backends.id(key)?, standing(key))));
        let new = said.filter(|&(id, standing)| self.standings[id as usize].replace(standing) != Some(standing));
        new.map(|(id, _)| id).collect()
    }

    /// Brings the rows and policies of the wanted frontends for which `has_room` up to date, and says with `point` what the
    /// directory is to hold, each time right after the rows and prefixes it leads to. Of those that are as they were but for
    /// `touched` keys only these are looked at.
    pub fn update(
        &mut self,
        (wanted, touched): (&Wanted, &BTreeMap<Key, Option<Role>>),
        backends: &Backends,
        has_room: impl Fn(&Key) -> bool,
        settings: &Settings,
        outcome: &mut Outcome<'_>,
        mut point: impl FnMut(DirectoryEntry, &mut Vec<Write>),
    ) {
        let moved = self.enter_standings(touched.keys(), wanted, backends);
        let halvings = wanted.halvings(self.rows.capacity());
        let same_sizes = self.halvings.replace(halvings) == Some(halvings);
        let mut looked_at: BTreeSet<Key> = touched.keys().copied().collect();
        looked_at.extend(self.lacking.iter().chain(&self.to_forget));
        looked_at.extend(self.rememberers(&moved));
        if self.short || !same_sizes {
            looked_at.extend(wanted.frontends.keys());
        }
        let grows = |key: &Key| {
            let size = wanted.frontends.get(key).map_or(0, |frontend| frontend.size(halvings));
            self.held.get(key).map_or(0, |held| held.table.len()) < size
        };
        let grow = looked_at.iter().any(grows);
        let shrink = self.short || grow && self.demand(wanted, halvings) > self.rows.capacity();
        if shrink {
            looked_at.extend(wanted.frontends.keys());
        }
        self.short = false;
        for key in looked_at {
            let Some(frontend) = wanted.frontends.get(&key) else {
                self.lacking.remove(&key);
                self.set_served(&key, false);
                continue;
            };
            let size = frontend.size(halvings);
            let is_due = |held: &Held| {
                let spare = shrink && held.table.len() > size;
                spare || held.is_due(&key, size, &moved, settings)
            };
            let due = touched.contains_key(&key) || self.lacking.contains(&key);
            let served = if !has_room(&key) {
                false
            } else if due || self.held.get(&key).is_none_or(is_due) {
                let one = (&key, frontend);
                let entry = self.update_one(one, (size, shrink), backends, &moved, settings, outcome);
                self.note_remembered(&key);
                let served = entry.is_some();
                entry.into_iter().for_each(|entry| point(entry, outcome.writes));
                served
            } else {
                true
            };
            self.set_served(&key, served);
        }
        self.retry = self.short && !shrink;
    }

    fn set_served(&mut self, key: &Key, served: bool) {
        let Some(held) = self.held.get_mut(key).filter(|held| held.served != served) else {
            return;
        };
        held.served = served;
        let count = self.served.or_default(key.address);
        *count = if served { *count + 1 } else { *count - 1 };
        if *count == 0 {
            self.served.remove(&key.address);
        }
    }

    /// The addresses at which something is served, with how many frontends.
    pub const fn served(&self) -> &SharedMap<Address, u32> {
        &self.served
    }

    /// Gives what the directory is to hold; `None` if there is no room for the frontend.
    fn update_one(
        &mut self,
        (key, frontend): (&Key, &WantedFrontend),
        (size, shrink): (usize, bool),
        backends: &Backends,
        moved: &BTreeSet<u32>,
        settings: &Settings,
        outcome: &mut Outcome<'_>,
    ) -> Option<DirectoryEntry> {
        let planned = &frontend.frontend;
        if !self.held.contains_key(key)
            && let Err(refusal) = self.enter(key, planned, size, backends, outcome.writes)
        {
            outcome.refuse(frontend, refusal, format!("{} is not served", frontend.name));
            self.lacking.insert(*key);
            return None;
        }
        let held = self.held.get_mut(key)?;
        let order = Memory::of(key.protocol).orders(&self.standings);
        let as_wanted = held.from.as_ref().is_some_and(|members| members.is(planned, size));
        let spare = shrink && held.table.len() > size;
        if !as_wanted || spare || held.table.len() < size {
            let (owners, members) = Members::choose(planned, size, backends);
            let changed = if spare {
                self.rows.shrink(&mut held.table, &owners, order, outcome.writes)
            } else {
                self.rows.update(&mut held.table, &owners, order, outcome.writes)
            };
            if changed {
                held.changed = Some(settings.now);
            }
            held.from = Some(members);
        } else {
            held.from.iter_mut().for_each(|members| members.become_of(planned));
            if held.table.remembers_any(moved) {
                self.rows.review(&mut held.table, order, outcome.writes);
            }
        }
        held.changed.get_or_insert(settings.now);
        if held.is_to_forget(key, settings) {
            let order = Memory::Nothing.orders(&self.standings);
            self.rows.review(&mut held.table, order, outcome.writes);
        }
        let mut lacking = held.from.as_ref().is_none_or(|members| !members.is(planned, size));
        if held.table.len() < size {
            (self.short, lacking) = (true, true);
            let rows = held.table.len();
            let what = format!("{} is spread over {rows} rows instead of {size}", frontend.name);
            outcome.refuse(frontend, Refusal::Rows, what);
        }
        let policy = &frontend.frontend.policy;
        let entry = DirectoryEntry {
            rows: held.table.range(),
            ..key.entry(kind::FRONTEND, held.id)
        };
        let mut entry = with_policy(entry, policy, settings);
        entry.policies |= self.stack.flags(key);
        if !self.sources.update(held.id, &policy.sources, outcome.writes) {
            lacking = true;
            entry.policies |= policy::SOURCES | policy::ALLOW_LISTED;
            let what = format!("{} refuses everybody, as its source ranges do not fit", frontend.name);
            outcome.refuse(frontend, Refusal::Sources, what);
        }
        if lacking {
            self.lacking.insert(*key);
        } else {
            self.lacking.remove(key);
        }
        Some(entry)
    }

    /// A frontend that was not there.
    fn enter(
        &mut self,
        key: &Key,
        planned: &Arc<Frontend>,
        size: usize,
        backends: &Backends,
        writes: &mut Vec<Write>,
    ) -> Result<(), Refusal> {
        if self.ids.free() == 0 {
            return Err(Refusal::Frontends);
        }
        let (owners, members) = Members::choose(planned, size, backends);
        let Some(table) = self.rows.create(&owners, writes) else {
            self.short = true;
            return Err(Refusal::Rows);
        };
        let held = Held {
            id: self.ids.take().ok_or(Refusal::Frontends)?,
            table,
            from: Some(members),
            changed: None,
            served: false,
            noted: Vec::new(),
        };
        self.by_key.insert(*key, held.id);
        self.held.insert(*key, held);
        Ok(())
    }

    /// Rows in use at the end of an update that gives nothing up.
    fn demand(&self, wanted: &Wanted, halvings: u32) -> usize {
        let in_use: usize = self.held.values().map(|held| held.table.len()).sum();
        let mut held = Ascending::new(self.held.iter());
        let sizes = wanted
            .frontends
            .iter()
            .map(|(key, frontend)| (key, frontend.size(halvings)));
        let new = sizes.filter(|(key, size)| held.get(*key).is_none_or(|held| held.table.len() < *size));
        in_use + new.map(|(_, size)| size).sum::<usize>()
    }

    /// Retires those of `keys` that are no frontends any more, once the directory does not lead to them.
    pub fn sweep<'k>(&mut self, keys: impl Iterator<Item = &'k Key>, wanted: &Wanted) {
        for key in keys.filter(|key| !wanted.frontends.contains_key(key)) {
            self.set_served(key, false);
            self.lacking.remove(key);
            self.to_forget.remove(key);
            self.by_key.remove(key);
            if let Some(gone) = self.held.remove(key) {
                for id in gone.noted {
                    self.remembered.remove(&(id, *key));
                }
                self.ids.retire(gone.id);
                self.sources.remove(gone.id);
                self.rows.remove(&gone.table);
            }
        }
    }

    /// All of them.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.held.keys().copied()
    }

    /// The id of a frontend.
    pub fn id(&self, key: &Key) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The id of each.
    pub const fn ids(&self) -> &SharedMap<Key, u32> {
        &self.by_key
    }

    /// Whether a row names backend `id`.
    pub fn name(&self, id: u32) -> bool {
        self.rows.name(id)
    }
}

fn is_udp(key: &Key) -> bool {
    key.protocol == protocol::UDP
}
