//! What must be true before anything is loaded: capabilities, kernel version, a BPF file system for the pins.
//!
//! Reads only. Each failed check is one sentence that names the remedy.

use super::error::Error;
use nix::sys::{
    statfs::{BPF_FS_MAGIC, statfs},
    utsname::uname,
};
use std::{fs, path::Path};

/// The oldest kernel we support.
const OLDEST: (u32, u32) = (6, 1);
const OLDEST_NAME: &str = "6.1";

/// Numbers from `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks everything, the cheapest first.
///
/// # Errors
///
/// The first thing that is missing.
pub fn check(pin_dir: &Path) -> Result<(), Error> {
    check_release(&release())?;
    let missing = missing()?;
    if !missing.is_empty() {
        return Err(Error::Capabilities(missing));
    }
    check_bpffs(pin_dir)
}

/// Release of the running kernel; empty if it cannot be read.
#[must_use]
pub fn release() -> String {
    uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Capabilities that this process needs and does not have.
///
/// # Errors
///
/// [`Error::File`] when the kernel does not say.
pub fn missing() -> Result<Vec<&'static str>, Error> {
    Ok(missing_capabilities(effective_capabilities()?))
}

/// Refuses a release older than we support; one that cannot be read counts as new.
///
/// # Errors
///
/// [`Error::KernelTooOld`].
pub fn check_release(release: &str) -> Result<(), Error> {
    match parse_release(release) {
        Some(found) if found < OLDEST => Err(Error::KernelTooOld {
            found: release.to_owned(),
            needed: OLDEST_NAME,
        }),
        _ => Ok(()),
    }
}

/// Whether the running kernel is at least `major.minor`; an unreadable release counts as new.
#[must_use]
pub fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    parse_release(&release()).is_none_or(|found| found >= (major, minor))
}

/// Checks that `pin_dir`, or the nearest folder above it that exists, is on a BPF file system.
///
/// It is never mounted here: in a mount namespace of its own (a container, `ip netns exec`) that would seem to work and
/// lose every pin with the process.
///
/// # Errors
///
/// [`Error::NotBpffs`], or [`Error::File`] when the file system cannot be asked.
pub fn check_bpffs(pin_dir: &Path) -> Result<(), Error> {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statfs(existing).map_err(|errno| Error::file("look at", existing)(errno.into()))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        Ok(())
    } else {
        Err(Error::NotBpffs(pin_dir.to_owned()))
    }
}

fn effective_capabilities() -> Result<u64, Error> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(parse_effective(&status).unwrap_or(0))
}

fn parse_effective(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    // Before Linux 5.8 split it up, CAP_SYS_ADMIN was both of these, and it still is.
    [
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, present)| (!present).then_some(name))
    .collect()
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_release("5.15.0-1-amd64"), Some((5, 15)));
        assert_eq!(parse_release("next"), None);
    }

    #[test]
    fn an_old_kernel_is_refused_with_the_remedy() {
        let refusal = check_release("5.15.0-91-generic").unwrap_err().to_string();
        assert!(
            refusal.contains("5.15.0-91-generic") && refusal.contains("upgrade the kernel to 6.1 or newer"),
            "{refusal}"
        );
        assert!(check_release("6.0.19").is_err());
        for supported in ["6.1.0", "6.18.44-fc", "10.0.1", "next"] {
            assert!(check_release(supported).is_ok(), "{supported}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities(u64::MAX), [""; 0]);
        assert_eq!(missing_capabilities(1 << CAP_NET_ADMIN), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities(1 << CAP_SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
    }

    #[test]
    fn the_status_file_is_read() {
        assert_eq!(
            parse_effective("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
    }

    #[test]
    fn an_ordinary_folder_is_refused() {
        assert!(matches!(
            check_bpffs(Path::new("/tmp/no/such/folder")),
            Err(Error::NotBpffs(_))
        ));
    }
}
