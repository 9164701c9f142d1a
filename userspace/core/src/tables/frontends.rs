//! Frontends: an id and rows for each, kept in step with who serves it.
//!
//! Rows change when who serves the frontend does, and what they remember also when a former owner does no longer answer, is
//! gone or is back, and for UDP with time.

use super::{
    Contents, Settings, SourceKey, Write,
    backends::Backends,
    ids::Ids,
    key::Key,
    policies::with_policy,
    refusal::{Refusal, refused},
    rendezvous::{self, Member},
    rows::{Rows, Table},
    sources::SourcePrefixes,
    standing::{Memory, Standing},
    wanted::{Wanted, WantedFrontend},
};
use crate::model::{Condition, ObjectRef};
use std::collections::{BTreeMap, BTreeSet};
use weir_common::abi::{DirectoryEntry, FRONTENDS, kind, policy, protocol};

#[derive(Debug)]
pub(super) struct Frontends {
    ids: Ids,
    rows: Rows,
    sources: SourcePrefixes,
    held: BTreeMap<Key, Held>,
    /// Rows did not suffice in the last step: spare ones are to be given up.
    short: bool,
    /// The next step gives up spare rows where this one did not.
    retry: bool,
    /// What the plan says of each backend id, as of the last step.
    standings: Vec<Standing>,
}

#[derive(Debug)]
struct Held {
    id: u32,
    table: Table,
    /// What the rows were computed from; `None` when that is not known.
    from: Option<Source>,
    /// When its rows last changed hands; `None` when that is not known.
    changed: Option<u64>,
}

impl Held {
    /// Seconds until no UDP flow is left that had another owner.
    fn forget_in(&self, settings: &Settings) -> u64 {
        let changed = self.changed.unwrap_or(settings.now);
        // One more, as seconds are cut off.
        (changed + settings.udp_idle + 1).saturating_sub(settings.now)
    }
}

/// All that a table depends on.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    members: Vec<Member>,
    size: usize,
}

impl Source {
    fn new(frontend: &WantedFrontend<'_>, size: usize, backends: &Backends) -> Self {
        let member = |&(key, weight): &(Key, u32)| {
            Some(Member {
                key,
                weight,
                id: backends.id(&key)?,
            })
        };
        Self {
            members: frontend.members.iter().filter_map(member).collect(),
            size,
        }
    }

    /// Whether it is that of these members, none left out.
    fn is(&self, members: &[(Key, u32)], size: usize) -> bool {
        let same = |(held, wanted): (&Member, &(Key, u32))| (held.key, held.weight) == *wanted;
        self.size == size && self.members.len() == members.len() && self.members.iter().zip(members).all(same)
    }
}

/// What a step may write to, and complain to.
pub(super) struct Outcome<'a> {
    pub writes: &'a mut Vec<Write>,
    pub conditions: &'a mut Vec<Condition>,
}

impl Outcome<'_> {
    fn refuse(&mut self, frontend: &WantedFrontend<'_>, refusal: Refusal, what: String) {
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
            held: BTreeMap::new(),
            short: false,
            retry: false,
            standings: Vec::new(),
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
        self.held.insert(
            *key,
            Held {
                id: entry.id,
                table,
                from: None,
                changed: None,
            },
        );
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
            let order = |id: u32| Memory::Planned.order(self.standings[id as usize]);
            self.rows.review(&mut held.table, order, writes);
        }
    }

    /// Seconds until a row is to forget.
    pub fn forget_in(&self, settings: &Settings) -> Option<u64> {
        let remembering = self
            .held
            .iter()
            .filter(|(key, held)| is_udp(key) && held.table.remembers());
        remembering.map(|(_, held)| held.forget_in(settings)).min()
    }

    /// Brings the rows and policies of every wanted frontend for which `has_room` up to date, and says with `point` what the
    /// directory is to hold, each time right after the rows and prefixes it leads to.
    pub fn update(
        &mut self,
        wanted: &Wanted<'_>,
        backends: &Backends,
        has_room: impl Fn(&Key) -> bool,
        settings: &Settings,
        outcome: &mut Outcome<'_>,
        mut point: impl FnMut(DirectoryEntry, &mut Vec<Write>),
    ) {
        let standings = backends.standings(wanted);
        let differs = |id: &u32| self.standings.get(*id as usize) != standings.get(*id as usize);
        let moved: Vec<u32> = (0..standings.len() as u32).filter(differs).collect();
        self.standings = standings;
        let sizes = wanted.sizes(self.rows.capacity());
        let shrink = self.short || self.demand(wanted, &sizes) > self.rows.capacity();
        self.short = false;
        for ((key, frontend), size) in wanted.frontends.iter().zip(sizes).filter(|((key, _), _)| has_room(key)) {
            if !self.held.contains_key(key)
                && let Err(refusal) = self.enter(key, frontend, size, backends, outcome.writes)
            {
                outcome.refuse(frontend, refusal, format!("{} is not served", frontend.name));
                continue;
            }
            let Some(held) = self.held.get_mut(key) else { continue };
            let order = |id: u32| Memory::of(key.protocol).order(self.standings[id as usize]);
            let as_wanted = held
                .from
                .as_ref()
                .is_some_and(|source| source.is(&frontend.members, size));
            let spare = shrink && held.table.len() > size;
            if !as_wanted || spare || held.table.len() < size {
                let source = Source::new(frontend, size, backends);
                let owners = rendezvous::table(&source.members, size);
                let changed = if spare {
                    self.rows.shrink(&mut held.table, &owners, order, outcome.writes)
                } else {
                    self.rows.update(&mut held.table, &owners, order, outcome.writes)
                };
                if changed {
                    held.changed = Some(settings.now);
                }
                held.from = Some(source);
            } else if held.table.remembers_any(&moved) {
                self.rows.review(&mut held.table, order, outcome.writes);
            }
            held.changed.get_or_insert(settings.now);
            if is_udp(key) && held.table.remembers() && held.forget_in(settings) == 0 {
                let order = |id: u32| Memory::Nothing.order(self.standings[id as usize]);
                self.rows.review(&mut held.table, order, outcome.writes);
            }
            let Held { id, table, .. } = held;
            if table.len() < size {
                self.short = true;
                let what = format!(
                    "{} is spread over {} rows instead of {size}",
                    frontend.name,
                    table.len()
                );
                outcome.refuse(frontend, Refusal::Rows, what);
            }
            let policy = &frontend.frontend.policy;
            let mut entry = with_policy(entry(key, *id, table), policy, settings);
            if !self.sources.update(*id, &policy.sources, outcome.writes) {
                entry.policies |= policy::SOURCES | policy::ALLOW_LISTED;
                outcome.refuse(
                    frontend,
                    Refusal::Sources,
                    format!("{} refuses everybody, as its source ranges do not fit", frontend.name),
                );
            }
            point(entry, outcome.writes);
        }
        self.retry = self.short && !shrink;
    }

    /// A frontend that was not there.
    fn enter(
        &mut self,
        key: &Key,
        frontend: &WantedFrontend<'_>,
        size: usize,
        backends: &Backends,
        writes: &mut Vec<Write>,
    ) -> Result<(), Refusal> {
        if self.ids.free() == 0 {
            return Err(Refusal::Frontends);
        }
        let source = Source::new(frontend, size, backends);
        let Some(table) = self.rows.create(&rendezvous::table(&source.members, size), writes) else {
            self.short = true;
            return Err(Refusal::Rows);
        };
        let id = self.ids.take().ok_or(Refusal::Frontends)?;
        self.held.insert(
            *key,
            Held {
                id,
                table,
                from: Some(source),
                changed: None,
            },
        );
        Ok(())
    }

    /// Rows in use at the end of an update that gives nothing up.
    fn demand(&self, wanted: &Wanted<'_>, sizes: &[usize]) -> usize {
        let held: usize = self.held.values().map(|held| held.table.len()).sum();
        let grows = |key: &Key, size: usize| self.held.get(key).is_none_or(|held| held.table.len() < size);
        let new = wanted
            .frontends
            .keys()
            .zip(sizes)
            .filter(|(key, size)| grows(key, **size));
        held + new.map(|(_, size)| size).sum::<usize>()
    }

    /// Retires the frontends that are not wanted, once the directory does not lead to them any more.
    pub fn sweep(&mut self, wanted: &Wanted<'_>) {
        let Self {
            ids,
            rows,
            sources,
            held,
            ..
        } = self;
        for (_, gone) in held.extract_if(.., |key, _| !wanted.frontends.contains_key(key)) {
            ids.retire(gone.id);
            sources.remove(gone.id);
            rows.remove(gone.table);
        }
    }

    /// The id of a frontend.
    pub fn id(&self, key: &Key) -> Option<u32> {
        self.held.get(key).map(|held| held.id)
    }

    /// Whether a row names backend `id`.
    pub fn name(&self, id: u32) -> bool {
        self.rows.name(id)
    }
}

fn is_udp(key: &Key) -> bool {
    key.protocol == protocol::UDP
}

fn entry(key: &Key, id: u32, table: &Table) -> DirectoryEntry {
    DirectoryEntry {
        address: key.address,
        port: key.port,
        protocol: key.protocol,
        kind: kind::FRONTEND,
        id,
        rows: table.range(),
        ..DirectoryEntry::default()
    }
}
