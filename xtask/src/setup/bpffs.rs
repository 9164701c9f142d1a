//! The bpf file system, where the agent pins its maps.

use crate::process::{check, is_root, say};
use anyhow::{Context, Result, bail};
use std::{fs, process::Command};

const PLACE: &str = "/sys/fs/bpf";

/// Mounts it if it is not; false when it was.
pub(super) fn mount() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if mounts.lines().any(is_bpffs) {
        return Ok(false);
    }
    if !is_root() {
        bail!("the bpf file system is not mounted; as root: mount -t bpf bpf {PLACE}");
    }
    check(Command::new("mount").args(["-t", "bpf", "bpf", PLACE]))?;
    say(format!("mounted the bpf file system at {PLACE}"));
    Ok(true)
}

/// Whether a line of `/proc/mounts` is a bpf file system at its usual place.
fn is_bpffs(line: &str) -> bool {
    let mut fields = line.split(' ').skip(1);
    fields.next() == Some(PLACE) && fields.next() == Some("bpf")
}
