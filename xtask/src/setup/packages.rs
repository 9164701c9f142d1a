//! Programs that come from the distribution's packages, and installing them with apt.

use crate::process::{check, find, is_root, say};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

/// Programs of the lab and of the verbs, and Debian's packages that hold them.
const PROGRAMS: [(&str, &str); 13] = [
    ("bpftool", "bpftool"),
    ("ip", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("iptables-legacy", "iptables"),
    ("iperf3", "iperf3"),
    ("nginx", "nginx-light"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("ps", "procps"),
    ("keepalived", "keepalived"),
    ("curl", "curl"),
    ("cc", "gcc"),
];

/// Programs that fetch, prepare and boot other kernels.
const EMULATION: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("setpriv", "util-linux"),
];

/// Programs of the image's tests.
const IMAGES: [(&str, &str); 3] = [
    ("skopeo", "skopeo"),
    ("crun", "crun"),
    ("qemu-aarch64-static", "qemu-user-static"),
];

/// Installs the packages of the lab's programs that are missing; false when none is.
pub(super) fn lab() -> Result<bool> {
    install_missing(&PROGRAMS)
}

/// As [`lab`], for `cargo xtask kernels`.
pub(super) fn kernels() -> Result<bool> {
    install_missing(&EMULATION)
}

/// As [`lab`], for the tests of the image: what reads images, runs containers, and is another machine's processor.
pub(crate) fn images() -> Result<bool> {
    install_missing(&IMAGES)
}

/// The C compiler, linker and static C library for another machine, by the names that kernel and Debian have for it.
pub(crate) fn cross_compiler(machine: &str, architecture: &str) -> Result<bool> {
    let library = format!("/usr/{machine}-linux-gnu/lib/libc.a");
    if find(&format!("{machine}-linux-gnu-gcc")).is_some() && Path::new(&library).is_file() {
        return Ok(false);
    }
    install(&[
        &format!("gcc-{}-linux-gnu", machine.replace('_', "-")),
        &format!("libc6-dev-{architecture}-cross"),
    ])?;
    Ok(true)
}

fn install_missing(programs: &[(&str, &str)]) -> Result<bool> {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    if !can_install() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
        bail!(
            "these programs are missing: {}\ninstall them, on Debian with\n  apt-get install {}",
            programs.join(" "),
            packages.join(" ")
        );
    }
    install(&packages)?;
    Ok(true)
}

/// Whether [`install`] has a chance.
pub(super) fn can_install() -> bool {
    is_root() && find("apt-get").is_some()
}

/// Installs Debian packages without questions and without starting any service they bring.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !can_install() {
        bail!("missing packages; as root on Debian: {command}");
    }
    say(format!("installing {}", packages.join(" ")));
    let _guard = NoServices::new()?;
    refresh_lists()?;
    check(
        apt()
            .args(["install", "-qq", "--yes", "--no-install-recommends"])
            .args(packages)
            .stdout(std::io::stderr()),
    )
}

/// Once in a run of ours.
fn refresh_lists() -> Result<()> {
    static REFRESHED: AtomicBool = AtomicBool::new(false);
    if !REFRESHED.swap(true, Ordering::Relaxed) {
        check(apt().args(["update", "-qq"]).stdout(std::io::stderr())).context("cannot refresh the package lists")?;
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives, package scripts may not start services: the lab runs its own nginx, and a machine's port 80 is not ours
/// to take. It is Debian's own way (`invoke-rc.d` asks this file), and an administrator's file is left alone.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str =
    "#!/bin/sh\n# Written by Weir's cargo xtask setup while it installs packages; safe to remove.\nexit 101\n";

impl NoServices {
    fn new() -> Result<Self> {
        let left_over = fs::read_to_string(POLICY).is_ok_and(|text| text == POLICY_TEXT);
        let ours = left_over || !Path::new(POLICY).exists();
        if ours {
            use std::os::unix::fs::PermissionsExt;
            fs::write(POLICY, POLICY_TEXT).with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            say(format!(
                "remove {POLICY} by hand, or packages cannot start services: {error}"
            ));
        }
    }
}
