//! Looking up keys in order: one walk instead of a search for each.

use std::{cmp::Ordering, iter::Peekable};

/// A map that is asked for greater and greater keys.
pub(crate) struct Ascending<I: Iterator> {
    rest: Peekable<I>,
}

impl<'a, K: Ord + 'a, V: 'a, I: Iterator<Item = (&'a K, &'a V)>> Ascending<I> {
    /// Over the entries of a map.
    pub(crate) fn new(entries: I) -> Self {
        Self {
            rest: entries.peekable(),
        }
    }

    /// The value of `key`, which is greater than all that were asked for before.
    pub(crate) fn get(&mut self, key: &K) -> Option<&'a V> {
        loop {
            let (next, value) = self.rest.peek()?;
            match (*next).cmp(key) {
                Ordering::Less => drop(self.rest.next()),
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn keys_are_found_in_order_and_only_those_that_are_there() {
        let map = BTreeMap::from([(1, 'a'), (3, 'b'), (4, 'c')]);
        let mut ascending = Ascending::new(map.iter());
        let found = [0, 1, 2, 3, 4, 5].map(|key| ascending.get(&key).copied());
        assert_eq!(found, [None, Some('a'), None, Some('b'), Some('c'), None]);
    }
}
