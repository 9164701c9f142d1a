//! Numbers for frontends, backends and nodes: given out in turn, and given back a step late.

/// The ids of one map.
///
/// Ids are given out in rotation, so that a freed one is used again as late as possible: counters, and flows that
/// the kernel remembers by id, have the longest time to be forgotten.
#[derive(Debug)]
pub(super) struct Ids {
    used: Vec<bool>,
    first: u32,
    next: u32,
    free: u32,
    retired: Vec<u32>,
}

impl Ids {
    /// Ids from `first` up to, not including, `end`.
    pub fn new(first: u32, end: u32) -> Self {
        let free = end.saturating_sub(first);
        Self {
            used: vec![false; end as usize],
            first,
            next: first,
            free,
            retired: Vec::new(),
        }
    }

    /// Marks `id` as found in use; false if it cannot be: out of range, or in use already.
    pub fn claim(&mut self, id: u32) -> bool {
        if id < self.first {
            return false;
        }
        match self.used.get_mut(id as usize) {
            Some(used) if !*used => {
                *used = true;
                self.free -= 1;
                self.next = id + 1;
                true
            }
            _ => false,
        }
    }

    /// A free id, the first after the one given out last.
    pub fn take(&mut self) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        let end = u32::try_from(self.used.len()).ok()?;
        (self.next..end)
            .chain(self.first..self.next.min(end))
            .find(|&id| self.claim(id))
    }

    /// Puts `id` out of use. It stays unavailable until [`Ids::release`].
    pub fn retire(&mut self, id: u32) {
        self.retired.push(id);
    }

    /// Makes the retired ids available, and names them in order.
    pub fn release(&mut self) -> Vec<u32> {
        let mut released = std::mem::take(&mut self.retired);
        released.sort_unstable();
        for &id in &released {
            if let Some(used) = self.used.get_mut(id as usize) {
                *used = false;
                self.free += 1;
            }
        }
        released
    }

    /// How many ids can be taken now.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// How many ids there are in all.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.used.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(self.first)
    }

    /// Whether ids wait to be released.
    pub fn waiting(&self) -> bool {
        !self.retired.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_id_is_not_given_out_before_it_is_released() {
        let mut ids = Ids::new(1, 4);
        assert_eq!(
            [ids.take(), ids.take(), ids.take(), ids.take()],
            [Some(1), Some(2), Some(3), None]
        );
        ids.retire(2);
        assert_eq!(ids.take(), None);
        assert_eq!(ids.release(), [2]);
        assert_eq!(ids.take(), Some(2));
    }

    #[test]
    fn a_released_id_comes_back_last() {
        let mut ids = Ids::new(0, 4);
        let first = ids.take();
        ids.retire(first.unwrap());
        ids.release();
        assert_eq!(
            [ids.take(), ids.take(), ids.take(), ids.take()],
            [Some(1), Some(2), Some(3), Some(0)]
        );
    }

    #[test]
    fn an_id_is_claimed_once_and_within_range() {
        let mut ids = Ids::new(1, 3);
        assert!(ids.claim(2));
        assert!(!ids.claim(2) && !ids.claim(0) && !ids.claim(3));
        assert_eq!(ids.free(), 1);
    }
}
