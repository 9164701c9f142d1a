//! What a process costs, CPU and memory, as the kernel counts it; and waiting for what it does.

use anyhow::{Context, Result, ensure};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks; the error of a latency.
const LOOK: Duration = Duration::from_micros(50);
/// How long a process has to be idle before it counts as such.
const IDLE: Duration = Duration::from_millis(200);

/// Waits until `look` finds something.
///
/// # Errors
/// When it does not in five minutes.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(LOOK);
    }
}

/// Waits until a process has used no CPU for a while.
///
/// # Errors
/// When it is gone, or never idle.
pub fn idle(process: u32) -> Result<()> {
    let begun = Instant::now();
    let mut last = ticks(process)?;
    loop {
        thread::sleep(IDLE);
        let now = ticks(process)?;
        if now == last {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "process {process} is never idle");
        last = now;
    }
}

/// CPU time a process has used, user and system, in seconds.
///
/// # Errors
/// When it is gone.
pub fn cpu_seconds(process: u32) -> Result<f64> {
    // Linux shows every architecture's clock ticks as hundredths of a second.
    Ok(ticks(process)? as f64 / 100.0)
}

fn ticks(process: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which may contain anything, state is field 3, and the times are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("no process name")?;
    let times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(times.sum::<Result<u64, _>>()?)
}

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Mapped BPF maps and program text included.
    pub all: f64,
    /// What the process alone has.
    pub own: f64,
    /// The most it had at once, as `all` counts.
    pub peak: f64,
}

impl Memory {
    /// That of `process` now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| -> Result<f64> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line
                .and_then(|line| line.split_whitespace().next())
                .with_context(|| format!("no {name}"))?;
            Ok(kib.parse::<f64>()? / 1024.0)
        };
        Ok(Self {
            all: field("VmRSS")?,
            own: field("RssAnon")?,
            peak: field("VmHWM")?,
        })
    }
}
