//! How long to wait before asking again: longer each time, and never the same on every node.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const LEAST: Duration = Duration::from_millis(200);
/// The longest wait. With thousands of nodes that is still few requests a second.
pub(super) const MOST: Duration = Duration::from_secs(10);

/// Waits that grow.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: LEAST }
    }
}

impl Backoff {
    /// The next wait.
    pub(super) fn wait(&mut self) -> Duration {
        self.wait_with(chance())
    }

    /// The next wait begins where the first did.
    pub(super) const fn reset(&mut self) {
        self.next = LEAST;
    }

    /// Between half and all of what is due, as `chance` (0 to 1) says.
    fn wait_with(&mut self, chance: f64) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(MOST);
        due.mul_f64(chance.mul_add(0.5, 0.5))
    }
}

/// A number from 0 to 1, another each time and on each node.
pub(super) fn chance() -> f64 {
    // The only source of chance in the standard library; its quality does not matter here.
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.wait_with(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.wait_with(0.0).as_millis(), 100);
    }

    #[test]
    fn chance_differs() {
        let chances: Vec<_> = (0..100).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(chances.iter().any(|chance| *chance < 0.5) && chances.iter().any(|chance| *chance > 0.5));
    }
}
