//! Which Linux this is, for what is so on some kernels only.

use anyhow::{Result, bail};
use std::fs;

/// Whether the running kernel is of series `version`.`level` or newer.
///
/// # Errors
/// When the kernel does not say.
pub fn at_least(version: u32, level: u32) -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let numbers: Vec<u32> = release
        .split(['.', '-', '+'])
        .map_while(|part| part.trim().parse().ok())
        .collect();
    let [found_version, found_level, ..] = numbers[..] else {
        bail!("a kernel called {release}");
    };
    Ok((found_version, found_level) >= (version, level))
}
