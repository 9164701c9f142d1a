//! A sorted map whose copies share what they have in common.
//!
//! Sources hand over the whole cluster for every change, and plans are whole, too. With thousands of entries, copying and
//! comparing them would take longer than everything else. Here the entries lie in short sorted runs, each behind an [`Arc`]:
//! a copy counts references, a change copies one run, and comparing two maps ([`SharedMap::changes_since`]) passes over the
//! runs that they share. What a map says does not depend on how it came about.

#[cfg(test)]
mod tests;
mod walk;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, fmt, iter, mem, ops::Index, sync::Arc};
pub use walk::Iter;

/// Entries of a run at most; when one is to get more, it becomes two.
const LONGEST: usize = 64;
/// Two neighbours that have no more together become one.
const SHORT: usize = LONGEST / 4;

type Run<K, V> = Arc<Vec<(K, V)>>;

/// Entries in the order of their keys.
pub struct SharedMap<K, V> {
    /// None is empty.
    runs: Vec<Run<K, V>>,
    len: usize,
}

impl<K, V> SharedMap<K, V> {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            runs: Vec::new(),
            len: 0,
        }
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            runs: &self.runs,
            run: 0,
            place: 0,
        }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// Where a key is: its run, and its place there or the one it would have.
    fn find(&self, key: &K) -> (usize, Result<usize, usize>) {
        let ends_before = |run: &Run<K, V>| run.last().is_some_and(|(last, _)| last < key);
        let run = self.runs.partition_point(ends_before);
        let place = self
            .runs
            .get(run)
            .map_or(Err(0), |entries| entries.binary_search_by(|(held, _)| held.cmp(key)));
        (run, place)
    }

    /// An entry.
    #[must_use]
    pub fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let (run, place) = self.find(key);
        let (key, value) = self.runs.get(run)?.get(place.ok()?)?;
        Some((key, value))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// Whether a key is there.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entries from `key` on, in order.
    #[must_use]
    pub fn iter_from(&self, key: &K) -> Iter<'_, K, V> {
        let (run, place) = self.find(key);
        Iter {
            runs: &self.runs,
            run,
            place: place.unwrap_or_else(|place| place),
        }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value in; gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            (run, Ok(place)) => {
                let (_, held) = Arc::make_mut(&mut self.runs[run]).get_mut(place)?;
                Some(mem::replace(held, value))
            }
            (run, Err(place)) => {
                self.insert_at(run, place, (key, value));
                None
            }
        }
    }

    /// Puts an entry where [`Self::find`] would have it; gives the run and the place there that it got.
    fn insert_at(&mut self, mut run: usize, mut place: usize, entry: (K, V)) -> (usize, usize) {
        if run == self.runs.len() {
            // Behind everything. Where entries come in order, all runs but the last are full.
            match self.runs.last() {
                Some(last) if last.len() < LONGEST => (run, place) = (run - 1, last.len()),
                _ => self.runs.push(Arc::default()),
            }
        } else if self.runs[run].len() == LONGEST {
            let second = Arc::make_mut(&mut self.runs[run]).split_off(LONGEST / 2);
            self.runs.insert(run + 1, Arc::new(second));
            if place > LONGEST / 2 {
                (run, place) = (run + 1, place - LONGEST / 2);
            }
        }
        Arc::make_mut(&mut self.runs[run]).insert(place, entry);
        self.len += 1;
        (run, place)
    }

    /// Takes an entry out.
    pub fn remove_entry(&mut self, key: &K) -> Option<(K, V)> {
        let (run, Ok(place)) = self.find(key) else { return None };
        let removed = Arc::make_mut(&mut self.runs[run]).remove(place);
        self.len -= 1;
        if self.runs[run].is_empty() {
            self.runs.remove(run);
        } else {
            self.join(run);
            self.join(run.saturating_sub(1));
        }
        Some(removed)
    }

    /// Takes an entry out; gives its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (run, Ok(place)) = self.find(key) else { return None };
        let (_, value) = Arc::make_mut(&mut self.runs[run]).get_mut(place)?;
        Some(value)
    }

    /// The value of a key, to be changed; the default one if there was none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let (run, place) = match self.find(&key) {
            (run, Ok(place)) => (run, place),
            (run, Err(place)) => self.insert_at(run, place, (key, V::default())),
        };
        &mut Arc::make_mut(&mut self.runs[run])[place].1
    }

    /// Makes one of a run and the next if both are short.
    fn join(&mut self, run: usize) {
        let next = self.runs.get(run + 1).map_or(LONGEST, |next| next.len());
        if self.runs[run].len() + next <= SHORT {
            let next = self.runs.remove(run + 1);
            Arc::make_mut(&mut self.runs[run]).extend(next.iter().cloned());
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            runs: self.runs.clone(),
            len: self.len,
        }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changes_since(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Clone, V: Clone> IntoIterator for SharedMap<K, V> {
    type Item = (K, V);
    type IntoIter = iter::FlatMap<std::vec::IntoIter<Run<K, V>>, Vec<(K, V)>, fn(Run<K, V>) -> Vec<(K, V)>>;

    fn into_iter(self) -> Self::IntoIter {
        self.runs.into_iter().flat_map(Arc::unwrap_or_clone)
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    /// Of entries with the same key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let sorted: BTreeMap<K, V> = entries.into_iter().collect();
        let len = sorted.len();
        let mut sorted = sorted.into_iter();
        let run = || Some(Arc::new(sorted.by_ref().take(LONGEST).collect::<Vec<_>>()));
        let runs = iter::from_fn(run).take_while(|run| !run.is_empty()).collect();
        Self { runs, len }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V> Index<&K> for SharedMap<K, V> {
    type Output = V;

    /// # Panics
    ///
    /// If the key is not there.
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("no entry with this key")
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for SharedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(|entries| entries.into_iter().collect())
    }
}
