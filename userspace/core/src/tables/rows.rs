//! `ROWS`: which backend each hash of a frontend leads to, and which one it led to before.
//!
//! # History
//!
//! A row is `{current, previous}`. New flows go to `current`; a packet of a flow that `current`'s node does not know is
//! passed on to `previous`. When a row's owner changes, the old owner becomes `previous` and stays it, however long, until
//! the row changes again. An endpoint that flaps, A to B to A, leaves `{A,0}`, `{B,A}`, `{A,B}`: flows begun before and
//! during B's time are both found. What is remembered when there is more than one candidate ([`succeed`]):
//!
//! - the old owner, if the plan still has it, serving or draining: it is the most recent one and its flows may live;
//! - if it is gone from the plan while `previous` is not, `previous` stays: a pod that no longer exists has no flows;
//! - a row without an owner ("no backends") is no owner: `previous` survives it, `{A,0}`, `{0,A}`, `{B,A}`;
//! - never the new owner itself: then 0.
//!
//! So one owner back is followed; two changes of one row within the life of a flow are not, by this map alone.
//!
//! # Size
//!
//! The *choice* of a backend is made by a table whose size follows from the plan ([`super::maglev::size`]). The rows of a
//! frontend may be more: the table is then repeated, which changes nobody's choice. A table that shrinks therefore keeps
//! its rows, and no history is lost; a table that grows gets a new range in which each row takes its history from the old
//! row of the same hashes. Only when there is no room are spare rows given up ([`Rows::shrink`]); of the rows that fall
//! together the most frequent old owner is remembered. A frontend without backends keeps its rows, all `{0, previous}`, so
//! that what drains is still found.

use super::{Write, ranges::Ranges};
use std::collections::BTreeMap;
use weir_common::abi::{Row, RowRange};

/// All rows of all frontends.
#[derive(Debug)]
pub(super) struct Rows {
    ranges: Ranges,
    /// How often rows name each backend id.
    references: Vec<u32>,
}

/// The rows of one frontend.
#[derive(Debug)]
pub(super) struct Table {
    base: u32,
    rows: Vec<Row>,
}

impl Table {
    /// As the directory tells the kernel.
    pub fn range(&self) -> RowRange {
        RowRange {
            base: self.base,
            mask: self.rows.len() as u32 - 1,
        }
    }

    /// Number of rows, a power of two.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn order(&self) -> u32 {
        self.rows.len().ilog2()
    }
}

/// What a row becomes when `next` owns it. `lives` says of an id whether the plan has its backend.
pub(super) fn succeed(row: Row, next: u32, lives: impl Fn(u32) -> bool) -> Row {
    let Row { current, previous } = row;
    if current == next {
        return row;
    }
    let older_is_better = current == 0 || (!lives(current) && previous != next && lives(previous));
    let kept = if older_is_better { previous } else { current };
    Row {
        current: next,
        previous: if kept == next { 0 } else { kept },
    }
}

/// What the rows `old`, of which readers will see only one from now on, become when `next` owns it.
fn join(old: &[Row], next: u32, lives: impl Fn(u32) -> bool) -> Row {
    let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
    for row in old {
        let kept = succeed(*row, next, &lives);
        // A row that changes hands now has flows begun a moment ago.
        let weight = if row.current == next { 1 } else { old.len() };
        *votes.entry(kept.previous).or_default() += if kept.previous == 0 { 0 } else { weight };
    }
    let previous = votes
        .into_iter()
        .rev()
        .max_by_key(|&(_, votes)| votes)
        .map_or(0, |(id, _)| id);
    Row {
        current: next,
        previous,
    }
}

impl Rows {
    /// `capacity` free rows, for backend ids below `backends`.
    pub fn new(capacity: u32, backends: usize) -> Self {
        Self {
            ranges: Ranges::new(capacity),
            references: vec![0; backends],
        }
    }

    /// Takes over a range found in the map; `None` if it cannot be one. Ids that `known` does not have become 0.
    pub fn adopt(
        &mut self,
        range: RowRange,
        contents: &[Row],
        known: impl Fn(u32) -> bool,
        repairs: &mut Vec<Write>,
    ) -> Option<Table> {
        let length = range.mask.checked_add(1).filter(|length| length.is_power_of_two())?;
        let found = contents.get(range.base as usize..)?.get(..length as usize)?;
        if !self.ranges.claim(range.base, length.ilog2()) {
            return None;
        }
        let clean = |id: u32| if known(id) { id } else { 0 };
        let mut rows = Vec::with_capacity(found.len());
        for (index, row) in (range.base..).zip(found) {
            let current = clean(row.current);
            let previous = if row.previous == current {
                0
            } else {
                clean(row.previous)
            };
            let sound = Row { current, previous };
            if sound != *row {
                repairs.push(Write::Row { index, row: sound });
            }
            rows.push(sound);
        }
        self.count(&rows);
        Some(Table { base: range.base, rows })
    }

    /// Rows for a new frontend: one for each of `owners`, or fewer if there is no room; `None` if there is none at all.
    pub fn create(&mut self, owners: &[u32], writes: &mut Vec<Write>) -> Option<Table> {
        let (base, order) = (0..=owners.len().ilog2())
            .rev()
            .find_map(|order| Some((self.ranges.take(order)?, order)))?;
        let rows = owners[..1 << order]
            .iter()
            .map(|&current| Row { current, previous: 0 })
            .collect();
        Some(self.fill(base, rows, writes))
    }

    /// Gives each row the owner that `owners`, repeated, has for it. If the rows are fewer than `owners` and there is
    /// room, `table` gets a new range, and the old one is retired: the frontend must be pointed at the new one next.
    pub fn update(&mut self, table: &mut Table, owners: &[u32], lives: impl Fn(u32) -> bool, writes: &mut Vec<Write>) {
        let grown = (table.len() < owners.len())
            .then(|| self.ranges.take(owners.len().ilog2()))
            .flatten();
        if let Some(base) = grown {
            let old = |index: usize| table.rows[index & (table.len() - 1)];
            let rows = owners
                .iter()
                .enumerate()
                .map(|(index, &next)| succeed(old(index), next, &lives))
                .collect();
            let grown = self.fill(base, rows, writes);
            self.remove(std::mem::replace(table, grown));
            return;
        }
        for index in 0..table.len() {
            let next = succeed(table.rows[index], owners[index & (owners.len() - 1)], &lives);
            self.set(table, index, next, writes);
        }
    }

    /// Gives up all rows of `table` but the first `owners.len()`: the frontend must be pointed at these next.
    pub fn shrink(&mut self, table: &mut Table, owners: &[u32], lives: impl Fn(u32) -> bool, writes: &mut Vec<Write>) {
        let size = owners.len();
        for (index, &next) in owners.iter().enumerate().take(table.len()) {
            let joined: Vec<Row> = table.rows.iter().skip(index).step_by(size).copied().collect();
            self.set(table, index, join(&joined, next, &lives), writes);
        }
        while table.len() > size {
            let spare = table.rows.split_off(table.len() / 2);
            self.discount(&spare);
            self.ranges.retire(table.base + spare.len() as u32, spare.len().ilog2());
        }
    }

    /// Forgets those previous owners that the plan does not have.
    pub fn forget(&mut self, table: &mut Table, lives: impl Fn(u32) -> bool, writes: &mut Vec<Write>) {
        for index in 0..table.len() {
            let row = table.rows[index];
            if row.previous != 0 && !lives(row.previous) {
                self.set(table, index, Row { previous: 0, ..row }, writes);
            }
        }
    }

    /// Retires the rows of a frontend that nothing leads to any more.
    pub fn remove(&mut self, table: Table) {
        self.discount(&table.rows);
        self.ranges.retire(table.base, table.order());
    }

    /// Makes the retired rows available.
    pub fn release(&mut self) {
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

    /// Whether any row names backend `id`.
    pub fn name(&self, id: u32) -> bool {
        self.references.get(id as usize).is_some_and(|&count| count > 0)
    }

    fn fill(&mut self, base: u32, rows: Vec<Row>, writes: &mut Vec<Write>) -> Table {
        self.count(&rows);
        writes.extend((base..).zip(&rows).map(|(index, &row)| Write::Row { index, row }));
        Table { base, rows }
    }

    fn set(&mut self, table: &mut Table, index: usize, row: Row, writes: &mut Vec<Write>) {
        let held = std::mem::replace(&mut table.rows[index], row);
        if held != row {
            self.discount(&[held]);
            self.count(&[row]);
            writes.push(Write::Row {
                index: table.base + index as u32,
                row,
            });
        }
    }

    fn count(&mut self, rows: &[Row]) {
        rows.iter().for_each(|row| {
            self.references[row.current as usize] += 1;
            self.references[row.previous as usize] += 1;
        });
    }

    fn discount(&mut self, rows: &[Row]) {
        rows.iter().for_each(|row| {
            self.references[row.current as usize] -= 1;
            self.references[row.previous as usize] -= 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(current: u32, previous: u32) -> Row {
        Row { current, previous }
    }

    #[test]
    fn the_last_owner_that_can_have_flows_is_remembered() {
        let all = |_| true;
        assert_eq!(succeed(row(1, 0), 1, all), row(1, 0), "nothing changes");
        assert_eq!(succeed(row(1, 0), 2, all), row(2, 1));
        assert_eq!(succeed(row(2, 1), 1, all), row(1, 2), "a flap remembers who stood in");
        assert_eq!(succeed(row(2, 1), 3, all), row(3, 2), "the most recent one");
        assert_eq!(
            succeed(row(2, 1), 3, |id| id != 2),
            row(3, 1),
            "unless it is gone and the one before is not"
        );
        assert_eq!(
            succeed(row(2, 1), 3, |id| id == 3),
            row(3, 2),
            "both gone: the most recent one"
        );
        assert_eq!(succeed(row(2, 1), 1, |id| id == 1), row(1, 2), "never the owner itself");
        assert_eq!(succeed(row(1, 2), 0, all), row(0, 1));
        assert_eq!(succeed(row(0, 1), 2, all), row(2, 1), "nobody is no owner");
        assert_eq!(succeed(row(0, 1), 1, all), row(1, 0));
    }

    #[test]
    fn joined_rows_remember_the_most_frequent_owner_that_lost_them() {
        let all = |_| true;
        let joined = [row(1, 0), row(2, 0), row(3, 0), row(2, 0)];
        assert_eq!(join(&joined, 1, all), row(1, 2));
        assert_eq!(
            join(&[row(1, 5), row(1, 0)], 1, all),
            row(1, 5),
            "older history if nothing changes hands"
        );
        assert_eq!(
            join(&[row(1, 5), row(1, 5), row(2, 0)], 1, all),
            row(1, 2),
            "what changes hands comes first"
        );
        assert_eq!(join(&[row(1, 0), row(1, 0)], 1, all), row(1, 0));
    }
}
