//! Waiting for something to become true, with a limit, and saying what was seen last when it does not.

use anyhow::{Result, bail};
use std::{
    env, io, thread,
    time::{Duration, Instant},
};

/// How long things that should be quick may take on a machine that is busy, or paused for seconds.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Between one attempt and the next.
const SHORTEST: Duration = Duration::from_millis(20);
/// The same after a slow one, which may have waited in vain for an answer.
const LONGEST: Duration = Duration::from_millis(300);

/// The seconds in `WEIR_TEST_PATIENCE`, for machines much slower than usual; else [`PATIENCE`].
pub fn patience() -> Duration {
    let seconds = env::var("WEIR_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// Repeats `attempt` until it succeeds and returns its value.
///
/// # Errors
/// With the last failure, when [`patience`] is over.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let (start, patience) = (Instant::now(), patience());
    loop {
        let before = Instant::now();
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > patience => {
                bail!("waited {patience:?} for {what}; the last attempt: {error:#}")
            }
            // Where asking is slow, whom we ask is slow, too, and needs the processor.
            Err(_) => thread::sleep((before.elapsed() * 3).clamp(SHORTEST, LONGEST)),
        }
    }
}

/// What `call` gives once no signal interrupts it.
///
/// The kernel restarts no call on a socket that has a time-out: it fails with `EINTR` whenever a handler runs, and also
/// after the process was stopped and goes on (signal(7)), as it happens where whole machines are paused.
///
/// # Errors
/// Any other that `call` has.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
