//! Whether a loop turns.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// When a loop turned last.
#[derive(Debug)]
pub struct Alive {
    at: Mutex<Instant>,
}

impl Default for Alive {
    fn default() -> Self {
        Self {
            at: Mutex::new(Instant::now()),
        }
    }
}

impl Alive {
    /// It turns.
    pub fn beat(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// What to say if it has not turned for longer than `limit`; `whose` loop it is.
    #[must_use]
    pub fn unwell(&self, whose: &str, limit: Duration) -> Option<String> {
        let since = self.at.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        (since > limit).then(|| format!("the {whose}'s loop has not turned for {} s", since.as_secs()))
    }
}
