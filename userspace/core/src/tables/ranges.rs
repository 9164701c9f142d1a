//! Ranges of `ROWS`: a buddy allocator, because every table is a power of two and can be halved where it stands.

use std::{collections::BTreeSet, ops::Range};

/// The free ranges, by order (the binary logarithm of their length). A range starts at a multiple of its length.
#[derive(Debug)]
pub(super) struct Ranges {
    free: Vec<BTreeSet<u32>>,
    capacity: u32,
    retired: Vec<(u32, u32)>,
}

impl Ranges {
    /// All of `capacity` rows free.
    pub fn new(capacity: u32) -> Self {
        let mut free = vec![BTreeSet::new(); 32];
        let mut base = 0;
        while base < capacity {
            let order = (capacity - base).ilog2().min(base.trailing_zeros());
            free[order as usize].insert(base);
            base += 1 << order;
        }
        Self {
            free,
            capacity,
            retired: Vec::new(),
        }
    }

    /// Takes the range of this order at `base`; false unless all of it is free.
    pub fn claim(&mut self, base: u32, order: u32) -> bool {
        if order > 31 || base & ((1 << order) - 1) != 0 {
            return false;
        }
        for from in order..32 {
            let block = base & !((1_u32 << from) - 1);
            if self.free[from as usize].remove(&block) {
                // Halve it down to the range; the halves beside the way stay free.
                for half in (order..from).rev() {
                    self.free[half as usize].insert((base & !((1 << half) - 1)) ^ (1 << half));
                }
                return true;
            }
        }
        false
    }

    /// Takes a range of this order, from the smallest free one that holds it.
    pub fn take(&mut self, order: u32) -> Option<u32> {
        let base = self
            .free
            .get(order as usize..)?
            .iter()
            .find_map(|bases| bases.first().copied())?;
        self.claim(base, order).then_some(base)
    }

    /// Puts a range out of use. It stays unavailable until [`Ranges::release`].
    pub fn retire(&mut self, base: u32, order: u32) {
        self.retired.push((base, order));
    }

    /// Makes the retired ranges available.
    pub fn release(&mut self) {
        for (mut base, mut order) in std::mem::take(&mut self.retired) {
            while order < 31 && self.free[order as usize].remove(&(base ^ (1 << order))) {
                base &= !(1 << order);
                order += 1;
            }
            self.free[order as usize].insert(base);
        }
    }

    /// The ranges that are free now.
    pub fn unused(&self) -> impl Iterator<Item = Range<u32>> {
        let by_order = (0_u32..).zip(&self.free);
        by_order.flat_map(|(order, bases)| bases.iter().map(move |&base| base..base + (1 << order)))
    }

    /// Rows in all.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether ranges wait to be released.
    pub fn waiting(&self) -> bool {
        !self.retired.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_is_free_again_after_everything_is_released() {
        let mut ranges = Ranges::new(1000);
        let taken: Vec<_> = std::iter::from_fn(|| ranges.take(3).map(|base| (base, 3))).collect();
        assert_eq!(taken.len(), 125);
        taken.iter().for_each(|&(base, order)| ranges.retire(base, order));
        assert_eq!(ranges.take(3), None, "not before release");
        ranges.release();
        assert_eq!(ranges.free, Ranges::new(1000).free);
    }

    #[test]
    fn a_range_is_claimed_only_when_aligned_inside_and_free() {
        let mut ranges = Ranges::new(256);
        assert!(!ranges.claim(1, 3) && !ranges.claim(256, 0) && !ranges.claim(0, 9) && !ranges.claim(0, 40));
        assert!(ranges.claim(64, 4));
        assert!(!ranges.claim(64, 2) && !ranges.claim(0, 8));
        assert!(ranges.claim(128, 7) && ranges.claim(0, 6));
    }

    proptest! {
        #[test]
        fn ranges_never_overlap(orders in proptest::collection::vec((0_u32..7, any::<bool>()), 1..60)) {
            let mut ranges = Ranges::new(777);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (order, give_back) in orders {
                if give_back && !held.is_empty() {
                    let (base, order) = held.remove(order as usize % held.len());
                    ranges.retire(base, order);
                    ranges.release();
                } else if let Some(base) = ranges.take(order) {
                    prop_assert!(base + (1 << order) <= 777);
                    for &(other, length) in &held {
                        prop_assert!(base + (1 << order) <= other || other + (1 << length) <= base);
                    }
                    held.push((base, order));
                }
            }
        }
    }
}
