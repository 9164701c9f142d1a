//! Waiting for something to become true, with a limit, and saying what was seen last when it does not.

use anyhow::{Result, bail};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How long things that should be quick may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats `attempt` until it succeeds and returns its value.
///
/// # Errors
/// With the last failure, when [`PATIENCE`] is over.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > PATIENCE => {
                bail!("waited {PATIENCE:?} for {what}; the last attempt: {error:#}")
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
