//! A sorted map whose copies share what they have in common.
//!
//! Sources hand over the whole cluster for every change, and plans are whole, too. With thousands of entries, copying and
//! comparing them would take longer than everything else. Here the entries lie in short sorted runs, each behind an [`Arc`]:
//! a copy counts references, a change copies one run, and comparing two maps ([`SharedMap::changes_since`]) passes over the
//! runs that they share. What a map says does not depend on how it came about.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    iter::{self, FusedIterator},
    mem,
    ops::Index,
    sync::Arc,
};

/// Entries of a run at most; when there would be more it becomes two.
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
        let (mut run, place) = self.find(&key);
        let mut place = match place {
            Ok(place) => {
                let (_, held) = Arc::make_mut(&mut self.runs[run]).get_mut(place)?;
                return Some(mem::replace(held, value));
            }
            Err(place) => place,
        };
        if run == self.runs.len() {
            // Behind everything.
            match run.checked_sub(1) {
                Some(last) => (run, place) = (last, self.runs[last].len()),
                None => self.runs.push(Arc::default()),
            }
        }
        let entries = Arc::make_mut(&mut self.runs[run]);
        entries.insert(place, (key, value));
        if entries.len() > LONGEST {
            let second = entries.split_off(LONGEST / 2);
            self.runs.insert(run + 1, Arc::new(second));
        }
        self.len += 1;
        None
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
        if !self.contains_key(&key) {
            self.insert(key.clone(), V::default());
        }
        self.get_mut(&key).expect("it is there now")
    }

    /// All values, to be changed, in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let entries = self.runs.iter_mut().flat_map(|run| Arc::make_mut(run).iter_mut());
        entries.map(|(_, value)| value)
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

/// The entries of a map.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    runs: &'a [Run<K, V>],
    /// The next entry.
    run: usize,
    place: usize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u16, u8),
        Remove(u16),
        Change(u16, u8),
        /// From here on changes are counted.
        Mark,
    }

    fn act() -> impl Strategy<Value = Act> {
        let key = || 0..400_u16;
        prop_oneof![
            8 => (key(), 0..3_u8).prop_map(|(key, value)| Act::Insert(key, value)),
            4 => key().prop_map(Act::Remove),
            2 => (key(), 0..3_u8).prop_map(|(key, value)| Act::Change(key, value)),
            1 => Just(Act::Mark),
        ]
    }

    type Pair = (SharedMap<u16, u8>, BTreeMap<u16, u8>);

    fn check((map, model): &Pair) {
        assert!(map.iter().eq(model));
        assert_eq!(map.len(), model.len());
        assert!(map.runs.iter().all(|run| (1..=LONGEST).contains(&run.len())));
        assert_eq!(*map, model.clone().into_iter().collect(), "however it came about");
        for key in 0..400 {
            assert_eq!(map.get(&key), model.get(&key));
            assert!(map.iter_from(&key).eq(model.range(key..)));
        }
    }

    fn changes(former: &Pair, now: &Pair) {
        let expected: Vec<_> = (0..400_u16)
            .map(|key| (key, former.1.get(&key).copied(), now.1.get(&key).copied()))
            .filter(|(_, former, now)| former != now)
            .collect();
        let found = now.0.changes_since(&former.0);
        let found: Vec<_> = found
            .map(|(key, former, now)| (*key, former.copied(), now.copied()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(former.0 == now.0, former.1 == now.1);
    }

    proptest! {
        #[test]
        fn is_as_an_ordinary_map_and_knows_what_changed(acts in vec(act(), 0..900)) {
            let mut now = Pair::default();
            let mut marks = vec![now.clone()];
            for act in acts {
                let (map, model) = &mut now;
                match act {
                    Act::Insert(key, value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
                    Act::Remove(key) => assert_eq!(map.remove_entry(&key), model.remove_entry(&key)),
                    Act::Change(key, value) => {
                        assert_eq!(map.get_mut(&key).map(|held| *held = value), model.get_mut(&key).map(|held| *held = value));
                    }
                    Act::Mark => marks.push(now.clone()),
                }
            }
            check(&now);
            for mark in &marks {
                check(mark);
                changes(mark, &now);
                changes(&now, mark);
            }
        }
    }

    #[test]
    fn copies_share_all_but_the_run_that_changed() {
        let map: SharedMap<u32, u32> = (0..1000).map(|key| (key, key)).collect();
        let mut other = map.clone();
        other.insert(500, 0);
        let shared = map
            .runs
            .iter()
            .zip(&other.runs)
            .filter(|(one, other)| Arc::ptr_eq(one, other));
        assert_eq!((map.runs.len(), shared.count()), (16, 15));
    }
}
