//! Walking over one map, and over what two of them do not have in common.

use super::{Run, SharedMap};
use std::{cmp::Ordering, iter::FusedIterator, sync::Arc};

/// The entries of a map.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    pub(super) runs: &'a [Run<K, V>],
    /// The next entry.
    pub(super) run: usize,
    pub(super) place: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn peek(&self) -> Option<&'a (K, V)> {
        self.runs.get(self.run)?.get(self.place)
    }

    /// The run whose first entry is the next one.
    fn whole_run(&self) -> Option<&'a Run<K, V>> {
        self.runs.get(self.run).filter(|_| self.place == 0)
    }

    fn skip_run(&mut self) {
        (self.run, self.place) = (self.run + 1, 0);
    }
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let entries = self.runs.get(self.run)?;
        let (key, value) = entries.get(self.place)?;
        self.place += 1;
        if self.place == entries.len() {
            self.skip_run();
        }
        Some((key, value))
    }
}

impl<K, V> FusedIterator for Iter<'_, K, V> {}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// What is otherwise than in `former`: keys in order, each with its value there and here.
    #[must_use]
    pub fn changes_since<'a>(&'a self, former: &'a Self) -> Changes<'a, K, V> {
        Changes {
            former: former.iter(),
            now: self.iter(),
        }
    }
}

/// What two maps do not have in common.
#[derive(Debug)]
pub struct Changes<'a, K, V> {
    former: Iter<'a, K, V>,
    now: Iter<'a, K, V>,
}

impl<'a, K: Ord, V: PartialEq> Iterator for Changes<'a, K, V> {
    type Item = (&'a K, Option<&'a V>, Option<&'a V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (Some(former), Some(now)) = (self.former.whole_run(), self.now.whole_run())
                && Arc::ptr_eq(former, now)
            {
                self.former.skip_run();
                self.now.skip_run();
                continue;
            }
            let order = match (self.former.peek(), self.now.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((former, _)), Some((now, _))) => former.cmp(now),
            };
            let former = (order != Ordering::Greater).then(|| self.former.next()).flatten();
            let now = (order != Ordering::Less).then(|| self.now.next()).flatten();
            let (key, _) = now.or(former)?;
            let (former, now) = (former.map(|(_, value)| value), now.map(|(_, value)| value));
            if former != now {
                return Some((key, former, now));
            }
        }
    }
}
