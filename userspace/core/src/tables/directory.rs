//! `DIRECTORY` and `DISPLACEMENT`: a perfect hash that changes key by key.
//!
//! The keys of one displacement bucket share a displacement, which sends each to its own slot. A new key goes to the slot
//! its bucket's displacement gives, if that is free. If not, a displacement is searched that sends all keys of the
//! bucket to free slots; the live ones are copied there, one store of the displacement moves every reader over, and the
//! old copies stay until the next step, for packets that read the old displacement just before.
//!
//! Room is made first ([`Directory::reserve`]) and entries are written later ([`Directory::set`]), so that an entry can
//! appear after what it leads to, whichever bucket it is in.

use super::{Write, key::Key};
use std::collections::{BTreeMap, BTreeSet};
use weir_common::{
    abi::{DIRECTORY_SLOTS, DISPLACEMENTS, DirectoryEntry, kind},
    hash,
};

#[derive(Debug)]
pub(super) struct Directory {
    displacement: Vec<u32>,
    /// Slots that hold a key, wait to be cleared, or do not exist.
    taken: Vec<bool>,
    /// By displacement bucket and key. An entry of kind FREE is room made for a key and not written yet.
    placed: BTreeMap<(u32, Key), Placed>,
    /// Slots that nothing leads to any more, cleared with the next release.
    stale: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Placed {
    slot: u32,
    entry: Entry,
}

/// What is known of an entry besides its key; there are a hundred thousand of them.
#[derive(Clone, Debug)]
enum Entry {
    /// The rest is zero.
    Plain { kind: u8, id: u32 },
    /// One with rows or policies.
    Whole(Box<DirectoryEntry>),
}

impl Entry {
    /// Room for one.
    const FREE: Self = Self::Plain {
        kind: kind::FREE,
        id: 0,
    };

    fn new(entry: &DirectoryEntry) -> Self {
        let plain = Self::Plain {
            kind: entry.kind,
            id: entry.id,
        };
        if plain.whole(&Key::from(entry)) == *entry {
            plain
        } else {
            Self::Whole(Box::new(*entry))
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Plain { kind, .. } => *kind,
            Self::Whole(entry) => entry.kind,
        }
    }

    /// As the map has it, for this key.
    fn whole(&self, key: &Key) -> DirectoryEntry {
        match self {
            Self::Plain { kind, id } => key.entry(*kind, *id),
            Self::Whole(entry) => **entry,
        }
    }
}

fn bucket(key: &Key) -> u32 {
    hash::displacement_index(key.hash())
}

impl Directory {
    /// What the two maps hold. Entries that the kernel would not find, and those refused by `keep`, are cleared with the
    /// next release.
    pub fn adopt(
        displacement: &[u32],
        directory: &[DirectoryEntry],
        mut keep: impl FnMut(&Key, &DirectoryEntry) -> bool,
    ) -> Self {
        let mut adopted = Self {
            displacement: displacement.to_vec(),
            taken: vec![true; DIRECTORY_SLOTS as usize],
            placed: BTreeMap::new(),
            stale: Vec::new(),
        };
        adopted.displacement.resize(DISPLACEMENTS as usize, 0);
        for (slot, entry) in (0..DIRECTORY_SLOTS).zip(directory) {
            if entry.kind == kind::FREE {
                adopted.taken[slot as usize] = false;
                continue;
            }
            let key = Key::from(entry);
            let found = adopted.slot(&key, adopted.displacement[bucket(&key) as usize]) == slot;
            if found && keep(&key, entry) {
                let entry = Entry::new(entry);
                adopted.placed.insert((bucket(&key), key), Placed { slot, entry });
            } else {
                adopted.stale.push(slot);
            }
        }
        adopted
    }

    /// Clears what the last step left behind.
    pub fn release(&mut self, writes: &mut Vec<Write>) {
        for slot in std::mem::take(&mut self.stale) {
            self.taken[slot as usize] = false;
            writes.push(Write::Directory {
                slot,
                entry: DirectoryEntry::default(),
            });
        }
    }

    /// Whether old copies wait to be cleared.
    pub fn waiting(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Makes room for those of `keys` that have none, the first ones first; gives those for which there is no room.
    pub fn reserve(&mut self, keys: impl Iterator<Item = Key>, writes: &mut Vec<Write>) -> BTreeSet<Key> {
        let mut by_bucket: BTreeMap<u32, Vec<Key>> = BTreeMap::new();
        for key in keys.filter(|key| !self.holds(key)) {
            by_bucket.entry(bucket(&key)).or_default().push(key);
        }
        let mut refused = BTreeSet::new();
        for (bucket, keys) in by_bucket {
            if self.place(bucket, &keys, writes) {
                continue;
            }
            refused.extend(keys.into_iter().filter(|&key| !self.place(bucket, &[key], writes)));
        }
        refused
    }

    /// Makes room for `keys`, all of one bucket, moving the ones that are there already if need be.
    fn place(&mut self, bucket: u32, keys: &[Key], writes: &mut Vec<Write>) -> bool {
        if let Some(slots) = self.fit(keys, self.displacement[bucket as usize]) {
            self.insert(bucket, keys, &slots);
            return true;
        }
        let present: Vec<(Key, Placed)> = self
            .in_bucket(bucket)
            .map(|(key, placed)| (*key, placed.clone()))
            .collect();
        let all: Vec<Key> = present
            .iter()
            .map(|(key, _)| *key)
            .chain(keys.iter().copied())
            .collect();
        let fitting = (0..DIRECTORY_SLOTS).find_map(|value| Some((value, self.fit(&all, value)?)));
        let Some((value, slots)) = fitting else { return false };
        self.insert(bucket, &all, &slots);
        for ((key, old), &slot) in present.into_iter().zip(&slots) {
            if old.entry.kind() == kind::FREE {
                self.taken[old.slot as usize] = false;
                continue;
            }
            self.stale.push(old.slot);
            let entry = old.entry.whole(&key);
            writes.push(Write::Directory { slot, entry });
            self.placed.insert((bucket, key), Placed { slot, ..old });
        }
        self.displacement[bucket as usize] = value;
        writes.push(Write::Displacement { index: bucket, value });
        true
    }

    /// The slots of `keys` under a displacement, if they are free and no two are the same.
    fn fit(&self, keys: &[Key], displacement: u32) -> Option<Vec<u32>> {
        let mut slots = Vec::new();
        for key in keys {
            let slot = self.slot(key, displacement);
            if self.taken[slot as usize] || slots.contains(&slot) {
                return None;
            }
            slots.push(slot);
        }
        Some(slots)
    }

    fn slot(&self, key: &Key, displacement: u32) -> u32 {
        hash::slot(key.hash(), displacement)
    }

    fn insert(&mut self, bucket: u32, keys: &[Key], slots: &[u32]) {
        for (key, &slot) in keys.iter().zip(slots) {
            self.taken[slot as usize] = true;
            let entry = Entry::FREE;
            self.placed.insert((bucket, *key), Placed { slot, entry });
        }
    }

    fn in_bucket(&self, bucket: u32) -> impl Iterator<Item = (&Key, &Placed)> {
        let after = (bucket + 1, Key::FIRST);
        self.placed
            .range((bucket, Key::FIRST)..after)
            .map(|((_, key), placed)| (key, placed))
    }

    /// Whether `key` has an entry or room for one.
    pub fn holds(&self, key: &Key) -> bool {
        self.placed.contains_key(&(bucket(key), *key))
    }

    /// Every key, by bucket.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.placed.keys().map(|(_, key)| *key)
    }

    /// The kind of a key's entry, if it has one or room for one.
    pub fn kind(&self, key: &Key) -> Option<u8> {
        self.placed.get(&(bucket(key), *key)).map(|placed| placed.entry.kind())
    }

    /// Writes the entry of a key that has room; nothing if it is there already.
    pub fn set(&mut self, entry: DirectoryEntry, writes: &mut Vec<Write>) {
        let key = Key::from(&entry);
        let Some(Placed { slot, entry: held }) = self.placed.get_mut(&(bucket(&key), key)) else {
            return;
        };
        let changed = held.whole(&key);
        if changed == entry {
            return;
        }
        *held = Entry::new(&entry);
        // A frontend that is there stays open while it changes: these words can be stored one by one.
        let with_rows = DirectoryEntry {
            rows: entry.rows,
            ..changed
        };
        let live = changed.kind == kind::FRONTEND && with_policy_of(with_rows, &entry) == entry;
        if !live {
            writes.push(Write::Directory { slot: *slot, entry });
            return;
        }
        if changed.rows != entry.rows {
            writes.push(Write::FrontendRows {
                slot: *slot,
                rows: entry.rows,
            });
        }
        if with_rows != entry {
            writes.push(Write::FrontendPolicy { slot: *slot, entry });
        }
    }

    /// Takes a key out. Its slot can be used again from now on, so this comes after [`Directory::reserve`] in a step.
    pub fn remove(&mut self, key: &Key, writes: &mut Vec<Write>) {
        let Some(Placed { slot, entry }) = self.placed.remove(&(bucket(key), *key)) else {
            return;
        };
        self.taken[slot as usize] = false;
        if entry.kind() != kind::FREE {
            writes.push(Write::Directory {
                slot,
                entry: DirectoryEntry::default(),
            });
        }
    }
}

/// `entry` with the policies of `other`.
pub(super) fn with_policy_of(entry: DirectoryEntry, other: &DirectoryEntry) -> DirectoryEntry {
    DirectoryEntry {
        policies: other.policies,
        affinity_ticks: other.affinity_ticks,
        flow_interval: other.flow_interval,
        packet_interval: other.packet_interval,
        source_flow_interval: other.source_flow_interval,
        source_packet_interval: other.source_packet_interval,
        ..entry
    }
}
