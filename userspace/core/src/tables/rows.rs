//! `ROWS` and `HISTORY`: which backend each hash of a frontend leads to, and which ones it led to before.
//!
//! # History
//!
//! A row is `{current, previous}`, and beside it stands its past. New flows go to `current`. A packet of a flow that
//! `current`'s node does not know is passed on to `previous`, and from there along the past that the nodes on the way know.
//! When a row's owner changes, the former owner moves to the front of the list, however long ago the change before was: a
//! connection lives for days. An endpoint that flaps, A to B to A, leaves `{A,B}`, and flows begun before and during B's
//! time are both found. So the last ten owners of a row are followed, each once ([`Owners::succeed`]), and among them
//!
//! - those that answer come first, then those that the plan has as not serving, then those it has no more: a packet sent
//!   to a dead node comes back from nowhere, and a pod that is gone may have flows for a moment yet, but no longer;
//! - who comes last gives way first when there are more;
//! - a row without an owner ("no backends") is no owner: the list survives it, `{A,0}`, `{0,A}`, `{B,A}`.
//!
//! UDP rows remember only those that answer, and only for as long as an idle UDP flow does ([`Memory`]).
//!
//! # Size
//!
//! The *choice* of a backend is made by a table whose size follows from the plan ([`super::rendezvous::size`]). The rows of a
//! frontend may be more: the table is then repeated, which changes nobody's choice. A table that shrinks therefore keeps
//! its rows, and no history is lost; a table that grows gets a new range in which each row takes its history from the old
//! row of the same hashes. Only when there is no room are spare rows given up ([`Rows::shrink`]); rows that fall
//! together remember their most frequent owners. A frontend without backends keeps its rows, all `{0, previous}`, so
//! that what drains is still found.
//!
//! Rows that nobody uses have no past: it is cleared before they can be used again.
//!
//! [`Memory`]: super::standing::Memory

use super::{Write, owners::Owners, ranges::Ranges};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};
use weir_common::abi::{Past, Row, RowRange};

/// All rows of all frontends.
#[derive(Debug)]
pub(super) struct Rows {
    ranges: Ranges,
    /// How often rows and pasts name each backend id.
    references: Vec<u32>,
    /// Rows out of use that have a past.
    stale: Vec<u32>,
}

/// The rows of one frontend.
#[derive(Debug)]
pub(super) struct Table {
    base: u32,
    /// The owner of each row; shared with the write that fills them, until that is done.
    current: Arc<[u32]>,
    /// The owner before, by index; what is beyond the end is 0, as it is for all rows of a frontend that never changed.
    previous: Vec<u32>,
    /// By index; what is beyond the end is empty, as it is for rows that changed once at most.
    past: Vec<Past>,
    /// How often each id is a former owner.
    former: BTreeMap<u32, u32>,
}

impl Table {
    /// As the directory tells the kernel.
    pub fn range(&self) -> RowRange {
        RowRange {
            base: self.base,
            mask: self.current.len() as u32 - 1,
        }
    }

    /// Number of rows, a power of two.
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether any row remembers a former owner.
    pub fn remembers(&self) -> bool {
        !self.former.is_empty()
    }

    /// The former owners that rows remember, in order.
    pub fn former(&self) -> impl Iterator<Item = u32> {
        self.former.keys().copied()
    }

    /// Whether any row remembers one of `ids`.
    pub fn remembers_any(&self, ids: &BTreeSet<u32>) -> bool {
        !ids.is_empty() && self.former.keys().any(|id| ids.contains(id))
    }

    fn owners(&self, index: usize) -> Owners {
        Owners {
            row: Row {
                current: self.current[index],
                previous: self.previous.get(index).copied().unwrap_or_default(),
            },
            past: self.past.get(index).copied().unwrap_or_default(),
        }
    }

    fn put(&mut self, index: usize, owners: &Owners) {
        let Row { current, previous } = owners.row;
        if self.current[index] != current {
            Arc::make_mut(&mut self.current)[index] = current;
        }
        let length = self.len();
        put(&mut self.previous, length, index, previous);
        put(&mut self.past, length, index, owners.past);
    }

    /// Takes note that a row's owners are others now.
    fn recount(&mut self, held: &Owners, next: Option<&Owners>) {
        for id in held.former() {
            if let Some(count) = self.former.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.former.remove(&id);
                }
            }
        }
        next.into_iter().for_each(|next| self.count(next));
        if self.former.is_empty() {
            (self.previous, self.past) = (Vec::new(), Vec::new());
        }
    }

    fn count(&mut self, owners: &Owners) {
        owners.former().for_each(|id| *self.former.entry(id).or_default() += 1);
    }
}

/// Sets one of `length` values, of which only those up to the last that is not the default one may be there.
fn put<T: Copy + Default + PartialEq>(values: &mut Vec<T>, length: usize, index: usize, value: T) {
    if index >= values.len() && value != T::default() {
        values.reserve_exact(length - values.len());
        values.resize(index + 1, T::default());
    }
    if let Some(held) = values.get_mut(index) {
        *held = value;
    }
}

impl Rows {
    /// `capacity` free rows, for backend ids below `backends`.
    pub fn new(capacity: u32, backends: usize) -> Self {
        Self {
            ranges: Ranges::new(capacity),
            references: vec![0; backends],
            stale: Vec::new(),
        }
    }

    /// Takes over a range found in the maps; `None` if it cannot be one. Ids that `known` does not have are left out. `pasts` are
    /// those that are not empty, in order.
    pub fn adopt(
        &mut self,
        range: RowRange,
        rows: &[Row],
        pasts: &[(u32, Past)],
        known: impl Fn(u32) -> bool,
        repairs: &mut Vec<Write>,
    ) -> Option<Table> {
        let length = range.mask.checked_add(1).filter(|length| length.is_power_of_two())?;
        let rows = rows.get(range.base as usize..range.base as usize + length as usize)?;
        if !self.ranges.claim(range.base, length.ilog2()) {
            return None;
        }
        let indexes = range.base..range.base + length;
        let mut owners: Vec<Owners> = rows
            .iter()
            .map(|&row| Owners {
                row,
                past: Past::default(),
            })
            .collect();
        for (index, past) in within(pasts, &indexes) {
            owners[(index - range.base) as usize].past = *past;
        }
        for (index, found) in indexes.zip(&mut owners) {
            let sound = found.sound(&known);
            found.change(&sound, index, repairs);
            *found = sound;
        }
        Some(self.table(range.base, &owners))
    }

    /// Clears the past of rows that no frontend has been adopted with; `pasts` as for [`Rows::adopt`].
    pub fn clear_unused(&self, pasts: &[(u32, Past)], repairs: &mut Vec<Write>) {
        for range in self.ranges.unused() {
            repairs.extend(within(pasts, &range).iter().map(|(index, _)| cleared(*index)));
        }
    }

    /// Rows for a new frontend: one for each of `owners`, or fewer if there is no room; `None` if there is none at all.
    pub fn create(&mut self, owners: &[u32], writes: &mut Vec<Write>) -> Option<Table> {
        let (base, order) = (0..=owners.len().ilog2())
            .rev()
            .find_map(|order| Some((self.ranges.take(order)?, order)))?;
        let rows: Vec<Owners> = owners[..1 << order].iter().map(|&id| Owners::first(id)).collect();
        Some(self.fill(base, &rows, writes))
    }

    /// Gives each row the owner that `owners`, repeated, has for it. If the rows are fewer than `owners` and there is
    /// room, `table` gets a new range, and the old one is retired: the frontend must be pointed at the new one next.
    /// Says whether a hash has another owner than before.
    pub fn update(
        &mut self,
        table: &mut Table,
        owners: &[u32],
        order: impl Fn(u32) -> Option<u8>,
        writes: &mut Vec<Write>,
    ) -> bool {
        let grown = (table.len() < owners.len())
            .then(|| self.ranges.take(owners.len().ilog2()))
            .flatten();
        let mut changed = false;
        let mut succeed = |table: &Table, index: usize| {
            let held = table.owners(index & (table.len() - 1));
            let next = owners[index & (owners.len() - 1)];
            changed |= held.row.current != next;
            held.succeed(next, &order)
        };
        if let Some(base) = grown {
            let rows: Vec<Owners> = (0..owners.len()).map(|index| succeed(table, index)).collect();
            let grown = self.fill(base, &rows, writes);
            self.remove(&std::mem::replace(table, grown));
        } else {
            for index in 0..table.len() {
                let next = succeed(table, index);
                self.set(table, index, &next, writes);
            }
        }
        changed
    }

    /// Puts the former owners of every row into order again, and forgets those that have none.
    pub fn review(&mut self, table: &mut Table, order: impl Fn(u32) -> Option<u8>, writes: &mut Vec<Write>) {
        for index in 0..table.len() {
            let held = table.owners(index);
            self.set(table, index, &held.succeed(held.row.current, &order), writes);
        }
    }

    /// Gives up all rows of `table` but the first `owners.len()`: the frontend must be pointed at these next. Says whether
    /// a hash has another owner than before.
    pub fn shrink(
        &mut self,
        table: &mut Table,
        owners: &[u32],
        order: impl Fn(u32) -> Option<u8>,
        writes: &mut Vec<Write>,
    ) -> bool {
        let size = owners.len();
        let mut changed = false;
        for (index, &next) in owners.iter().enumerate().take(table.len()) {
            let joined: Vec<Owners> = (index..table.len())
                .step_by(size)
                .map(|index| table.owners(index))
                .collect();
            changed |= joined.iter().any(|held| held.row.current != next);
            self.set(table, index, &Owners::join(&joined, next, &order), writes);
        }
        while table.len() > size {
            let half = table.len() / 2;
            let spare: Vec<Owners> = (half..table.len()).map(|index| table.owners(index)).collect();
            spare.iter().for_each(|owners| table.recount(owners, None));
            table.current = table.current[..half].into();
            table.previous.truncate(half);
            table.past.truncate(half);
            self.retire(table.base + half as u32, &spare);
        }
        changed
    }

    /// Retires the rows of a frontend that nothing leads to any more.
    pub fn remove(&mut self, table: &Table) {
        let rows: Vec<Owners> = (0..table.len()).map(|index| table.owners(index)).collect();
        self.retire(table.base, &rows);
    }

    /// Retires a range with these rows.
    fn retire(&mut self, base: u32, rows: &[Owners]) {
        for (index, owners) in (base..).zip(rows) {
            owners.all().for_each(|id| self.references[id as usize] -= 1);
            if owners.past != Past::default() {
                self.stale.push(index);
            }
        }
        self.ranges.retire(base, rows.len().ilog2());
    }

    /// Makes the retired rows available.
    pub fn release(&mut self, writes: &mut Vec<Write>) {
        writes.extend(self.stale.drain(..).map(cleared));
        self.ranges.release();
    }

    /// Whether retired rows wait to be released.
    pub fn waiting(&self) -> bool {
        self.ranges.waiting()
    }

    /// Rows in all.
    pub fn capacity(&self) -> usize {
        self.ranges.capacity() as usize
    }

    /// Whether any row, or its past, names backend `id`.
    pub fn name(&self, id: u32) -> bool {
        self.references.get(id as usize).is_some_and(|&count| count > 0)
    }

    fn fill(&mut self, base: u32, rows: &[Owners], writes: &mut Vec<Write>) -> Table {
        let table = self.table(base, rows);
        let indexed = || (base..).zip(rows);
        let pasts = indexed().filter(|(_, owners)| owners.past != Past::default());
        writes.extend(pasts.map(|(index, Owners { past, .. })| Write::Past { index, past: *past }));
        writes.push(Write::NewRows {
            first: base,
            owners: table.current.clone(),
        });
        let changed = indexed().filter(|(_, owners)| owners.row.previous != 0);
        writes.extend(changed.map(|(index, Owners { row, .. })| Write::Row { index, row: *row }));
        table
    }

    fn table(&mut self, base: u32, rows: &[Owners]) -> Table {
        let mut table = Table {
            base,
            current: rows.iter().map(|owners| owners.row.current).collect(),
            previous: Vec::new(),
            past: Vec::new(),
            former: BTreeMap::new(),
        };
        for (index, owners) in rows.iter().enumerate() {
            owners.all().for_each(|id| self.references[id as usize] += 1);
            table.count(owners);
            table.put(index, owners);
        }
        table
    }

    fn set(&mut self, table: &mut Table, index: usize, next: &Owners, writes: &mut Vec<Write>) {
        let held = table.owners(index);
        if held == *next {
            return;
        }
        held.all().for_each(|id| self.references[id as usize] -= 1);
        next.all().for_each(|id| self.references[id as usize] += 1);
        table.put(index, next);
        table.recount(&held, Some(next));
        held.change(next, table.base + index as u32, writes);
    }
}

/// Those of the rows in `range`.
fn within<'a>(pasts: &'a [(u32, Past)], range: &Range<u32>) -> &'a [(u32, Past)] {
    let before = |end: u32| pasts.partition_point(|(index, _)| *index < end);
    &pasts[before(range.start)..before(range.end)]
}

fn cleared(index: u32) -> Write {
    Write::Past {
        index,
        past: Past::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn former_owners_take_room_only_while_there_are_any() {
        let (mut rows, mut writes) = (Rows::new(8, 10), Vec::new());
        let mut table = rows.create(&[1, 2, 1, 2], &mut writes).expect("there is room");
        let room = |table: &Table| (table.previous.capacity(), table.past.capacity());
        assert_eq!(room(&table), (0, 0));
        rows.update(&mut table, &[1, 3, 1, 2], |_| Some(0), &mut writes);
        assert_eq!(room(&table), (4, 0));
        rows.update(&mut table, &[1, 4, 1, 2], |_| Some(0), &mut writes);
        assert_eq!(room(&table), (4, 4));
        rows.review(&mut table, |_| None, &mut writes);
        assert_eq!(room(&table), (0, 0));
        assert!(!rows.name(3) && rows.name(4));
    }

    #[test]
    fn new_rows_are_shared_with_the_write_that_fills_them_until_they_change() {
        let (mut rows, mut writes) = (Rows::new(8, 10), Vec::new());
        let mut table = rows.create(&[1, 2], &mut writes).expect("there is room");
        let [Write::NewRows { first: 0, owners }] = &*writes else {
            panic!("{writes:?}")
        };
        assert!(Arc::ptr_eq(owners, &table.current));
        let owners = owners.clone();
        rows.update(&mut table, &[1, 3], |_| Some(0), &mut writes);
        assert_eq!(
            (&*owners, &*table.current),
            (&[1, 2][..], &[1, 3][..]),
            "nor what changes it later"
        );
    }
}
