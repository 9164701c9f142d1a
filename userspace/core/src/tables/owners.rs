//! One row with all its owners, and the stores that lead from one state of it to the next.

use super::Write;
use std::collections::BTreeMap;
use weir_common::abi::{PAST_OWNERS, Past, Row};

/// Former owners of a row: the previous one and the past.
const FORMER: usize = 1 + PAST_OWNERS;
/// Owners in one word of a [`Past`], which is what is stored at once.
const WORD: usize = 2;

/// The owner of a row and the former ones, first those to be asked first, each once, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners {
    pub row: Row,
    pub past: Past,
}

impl Owners {
    /// A row that nobody had before.
    pub fn first(current: u32) -> Self {
        Self::with(current, &[])
    }

    /// `current` with the first of `former` that there is room for.
    fn with(current: u32, former: &[u32]) -> Self {
        let mut slots = [0; FORMER];
        slots.iter_mut().zip(former).for_each(|(slot, id)| *slot = *id);
        let [previous, owners @ ..] = slots;
        Self {
            row: Row { current, previous },
            past: Past { owners },
        }
    }

    /// All but the current one.
    pub fn former(&self) -> impl Iterator<Item = u32> {
        [self.row.previous]
            .into_iter()
            .chain(self.past.owners)
            .filter(|&id| id != 0)
    }

    /// All owners.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        [self.row.current].into_iter().chain(self.former())
    }

    /// Without ids that `known` does not have, and each once.
    pub fn sound(&self, known: impl Fn(u32) -> bool) -> Self {
        let current = Some(self.row.current).filter(|&id| known(id)).unwrap_or(0);
        let mut former = Vec::with_capacity(FORMER);
        for id in self.former().filter(|&id| known(id) && id != current) {
            if !former.contains(&id) {
                former.push(id);
            }
        }
        Self::with(current, &former)
    }

    /// What the row becomes when `next` owns it. Of the former owners those stay for which `order` gives something, the
    /// least first, and among equals the last one first; when there are too many the last of these are forgotten.
    pub fn succeed(&self, next: u32, order: impl Fn(u32) -> Option<u8>) -> Self {
        let mut former = [(0, 0); 1 + FORMER];
        let mut count = 0;
        for id in self.all().filter(|&id| id != 0 && id != next) {
            if let Some(order) = order(id) {
                former[count] = (order, id);
                count += 1;
            }
        }
        former[..count].sort_by_key(|&(order, _)| order);
        let ids = former.map(|(_, id)| id);
        Self::with(next, &ids)
    }

    /// What rows, of which readers will see only one from now on, become when `next` owns it. Among owners of equal order
    /// those of more rows come first, but before them who owns a row now: it has flows begun a moment ago.
    pub fn join(rows: &[Self], next: u32, order: impl Fn(u32) -> Option<u8>) -> Self {
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        for row in rows {
            for (age, id) in row.all().enumerate() {
                let weight = if age == 0 {
                    rows.len() << FORMER
                } else {
                    1 << (FORMER - age)
                };
                *votes.entry(id).or_default() += weight;
            }
        }
        let mut former: Vec<(u8, usize, u32)> = votes
            .into_iter()
            .filter(|&(id, _)| id != 0 && id != next)
            .filter_map(|(id, votes)| Some((order(id)?, usize::MAX - votes, id)))
            .collect();
        former.sort_unstable();
        let former: Vec<u32> = former.into_iter().map(|(_, _, id)| id).collect();
        Self::with(next, &former)
    }

    /// The stores that make row `index` what `next` says.
    ///
    /// Each changes one word. Whoever is among the owners before and after is so after every one of them, as long as
    /// there is a free slot, and what comes out of the past into the row finds one in the past that is to be. Else, which
    /// takes ten owners of one row, the one to be asked last may be missing for the moment.
    pub fn change(mut self, next: &Self, index: u32, writes: &mut Vec<Write>) {
        let both = |id: &u32| *id != 0 && next.all().any(|other| other == *id);
        let staying: Vec<u32> = self.all().filter(both).collect();
        let mut between = next.past;
        // Until the row is stored, who comes into it is found in the past alone.
        let comes: Vec<u32> = staying
            .iter()
            .copied()
            .filter(|&id| !self.has(id) && next.has(id))
            .collect();
        for &id in &comes {
            let owners = &mut between.owners;
            let free = owners.iter().position(|&slot| slot == 0);
            if let Some(slot) = free.or_else(|| owners.iter().rposition(|slot| !comes.contains(slot))) {
                owners[slot] = id;
            }
        }
        self.change_past(&between, &staying, index, writes);
        if self.row != next.row {
            self.row = next.row;
            writes.push(Write::Row { index, row: self.row });
        }
        self.change_past(&next.past, &staying, index, writes);
    }

    /// Whether `id` is in the row itself.
    fn has(&self, id: u32) -> bool {
        [self.row.current, self.row.previous].contains(&id)
    }

    /// Slot by slot, each that nobody would miss first; stores to one word that follow each other become one.
    fn change_past(&mut self, next: &Past, staying: &[u32], index: u32, writes: &mut Vec<Write>) {
        let mut last = None;
        let mut store = |past: &mut Past, slot: usize, id: u32| {
            past.owners[slot] = id;
            if last.replace(slot / WORD) == Some(slot / WORD) {
                writes.pop();
            }
            writes.push(Write::Past { index, past: *past });
        };
        let slots = || (0..PAST_OWNERS).rev();
        while self.past != *next {
            let mut wrong = slots().filter(|&slot| self.past.owners[slot] != next.owners[slot]);
            let unmissed = wrong.clone().find(|&slot| self.is_spare(slot, staying));
            // Where more owners stay than there are slots for, one is missed.
            let unwanted = || {
                wrong
                    .clone()
                    .find(|&slot| !next.owners.contains(&self.past.owners[slot]))
            };
            if let Some(slot) = unmissed.or_else(unwanted) {
                store(&mut self.past, slot, next.owners[slot]);
                continue;
            }
            // Each of them is where another is to be; a copy of one makes room.
            let Some(slot) = wrong.next() else { return };
            if let Some(spare) = slots().find(|&slot| self.is_spare(slot, staying)) {
                let moved = self.past.owners[slot];
                store(&mut self.past, spare, moved);
            }
            store(&mut self.past, slot, next.owners[slot]);
        }
    }

    /// Whether nobody among `staying` is in this slot alone.
    fn is_spare(&self, slot: usize, staying: &[u32]) -> bool {
        let id = self.past.owners[slot];
        let elsewhere = |other: usize| other != slot && self.past.owners[other] == id;
        !staying.contains(&id) || self.has(id) || (0..PAST_OWNERS).any(elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{option, prelude::*};

    fn owners(all: &[u32]) -> Owners {
        Owners::with(all[0], &all[1..])
    }

    fn all(_: u32) -> Option<u8> {
        Some(0)
    }

    #[test]
    fn the_former_owner_comes_first_and_each_is_there_once() {
        let row = owners(&[1]).succeed(1, all);
        assert_eq!(row, owners(&[1]), "nothing changes");
        let row = row.succeed(2, all);
        assert_eq!(row, owners(&[2, 1]));
        let row = row.succeed(1, all);
        assert_eq!(row, owners(&[1, 2]), "a flap remembers who stood in");
        let row = row.succeed(0, all);
        assert_eq!(row, owners(&[0, 1, 2]), "nobody is no owner");
        let row = (3..=10).fold(row, |row, next| row.succeed(next, all));
        assert_eq!(row, owners(&[10, 9, 8, 7, 6, 5, 4, 3, 1, 2]));
        assert_eq!(
            row.succeed(11, all),
            owners(&[11, 10, 9, 8, 7, 6, 5, 4, 3, 1]),
            "the oldest is forgotten"
        );
        assert_eq!(
            row.succeed(2, all),
            owners(&[2, 10, 9, 8, 7, 6, 5, 4, 3, 1]),
            "who comes back needs no room"
        );
    }

    #[test]
    fn who_may_not_answer_is_asked_late_and_gives_way_first() {
        let order = |id| Some(u8::from(id % 2 == 0));
        assert_eq!(owners(&[2, 1]).succeed(3, order), owners(&[3, 1, 2]));
        assert_eq!(owners(&[1, 2, 3, 4]).succeed(1, order), owners(&[1, 3, 2, 4]));
        assert_eq!(
            owners(&[1, 3, 5, 7, 9, 2, 4, 6, 8, 10]).succeed(11, order),
            owners(&[11, 1, 3, 5, 7, 9, 2, 4, 6, 8]),
            "the oldest of them"
        );
        let odd = |id| (id % 2 == 1).then_some(0);
        assert_eq!(
            owners(&[2, 1, 4, 3]).succeed(2, odd),
            owners(&[2, 1, 3]),
            "or is not remembered at all"
        );
    }

    #[test]
    fn joined_rows_remember_first_who_lost_them_and_then_by_number() {
        let joined = [owners(&[1]), owners(&[2]), owners(&[3]), owners(&[2])];
        assert_eq!(Owners::join(&joined, 1, all), owners(&[1, 2, 3]));
        let joined = [owners(&[1, 5]), owners(&[1, 5]), owners(&[2, 6])];
        assert_eq!(Owners::join(&joined, 1, all), owners(&[1, 2, 5, 6]));
        let order = |id| Some(u8::from(id == 2));
        assert_eq!(Owners::join(&joined, 1, order), owners(&[1, 5, 6, 2]));
    }

    #[test]
    fn what_cannot_be_is_repaired() {
        let found = Owners {
            row: Row {
                current: 1,
                previous: 0,
            },
            past: Past {
                owners: [2, 1, 9, 2, 0, 0, 0, 0],
            },
        };
        assert_eq!(found.sound(|id| id < 9), owners(&[1, 2]));
        assert_eq!(found.sound(|id| id == 2), owners(&[0, 2]));
    }

    fn any_owners() -> impl Strategy<Value = Owners> {
        let ids = Just((1..13).collect::<Vec<u32>>()).prop_shuffle();
        (ids, 1..=1 + FORMER, any::<bool>()).prop_map(|(mut ids, count, nobody)| {
            ids.truncate(count);
            ids[0] *= u32::from(!nobody);
            owners(&ids)
        })
    }

    /// The states a reader may find on the way, the last one included.
    fn seen(from: Owners, to: &Owners) -> Vec<Owners> {
        let mut writes = Vec::new();
        from.change(to, 7, &mut writes);
        let mut now = from;
        let step = |write: &Write| {
            match *write {
                Write::Row { index: 7, row } => now.row = row,
                Write::Past { index: 7, past } => now.past = past,
                _ => panic!("{write:?}"),
            }
            now
        };
        writes.iter().map(step).collect()
    }

    proptest! {
        #[test]
        fn nobody_is_missing_in_between(
            from in any_owners(),
            next in 0..14_u32,
            orders in proptest::collection::vec(option::weighted(0.8, 0..3_u8), 14),
        ) {
            let to = from.succeed(next, |id| orders[id as usize]);
            let states = seen(from, &to);
            prop_assert_eq!(states.last().copied().unwrap_or(from), to);
            let staying: Vec<u32> = from.all().filter(|&id| id != 0 && to.all().any(|other| other == id)).collect();
            let free = to.past.owners.iter().filter(|id| **id == 0).count();
            let comes = staying.iter().filter(|id| !from.has(**id) && to.has(**id)).count();
            let crowded = from.past.owners[PAST_OWNERS - 1] != 0 || comes > free;
            let mut before = from;
            for now in states {
                let words = before.past.owners.chunks(WORD).zip(now.past.owners.chunks(WORD));
                let stored = words.filter(|(before, now)| before != now).count();
                prop_assert_eq!(stored + usize::from(before.row != now.row), 1, "one word at a time");
                let missing: Vec<_> = staying.iter().filter(|id| now.all().all(|other| other != **id)).collect();
                prop_assert!(missing.len() <= usize::from(crowded) * 2, "{missing:?} missing of {from:?} -> {now:?} -> {to:?}");
                before = now;
            }
        }

        #[test]
        fn with_all_slots_in_use_the_last_to_be_asked_is_missed(
            from in Just((1..=1 + FORMER as u32).collect::<Vec<u32>>()).prop_shuffle(),
            next in 1..=1 + FORMER as u32,
        ) {
            let from = owners(&from);
            let to = from.succeed(next, all);
            for now in seen(from, &to) {
                let missing: Vec<_> = from.all().filter(|id| now.all().all(|other| other != *id)).collect();
                prop_assert!(missing.is_empty() || missing == [to.past.owners[PAST_OWNERS - 1]], "{missing:?}");
            }
        }
    }
}
