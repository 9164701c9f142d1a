//! Of an unpacked kernel, what a guest needs: the image, and the modules of the lab's devices with those they need.

use crate::process::{check, output};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Devices, queueing disciplines and filters of the lab.
const MODULES: [&str; 9] = [
    "veth",
    "bridge",
    "8021q",
    "bonding",
    "dummy",
    "af_packet",
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
];

/// Copies what is needed from `unpacked` to `folder` (`vmlinuz`, `lib/modules/VERSION`) and gives the version.
pub(super) fn keep(unpacked: &Path, folder: &Path) -> Result<String> {
    let modules = modules_of(unpacked)?;
    let version = modules.file_name().and_then(|name| name.to_str());
    let version = version.context("a kernel's version that is not text")?.to_owned();
    let image = [
        unpacked.join("boot").join(format!("vmlinuz-{version}")),
        modules.join("vmlinuz"),
    ];
    let image = image.iter().find(|image| image.is_file());
    let image = image.with_context(|| format!("no vmlinuz in the packages of {version}"))?;
    fs::copy(image, folder.join("vmlinuz"))?;

    // kmod looks only in `lib/modules`, and new packages have `usr/lib/modules`.
    let all = folder.join("all");
    let place = all.join("lib/modules");
    fs::create_dir_all(&place)?;
    fs::rename(&modules, place.join(&version))?;
    check(Command::new("depmod").arg("-b").arg(&all).arg(&version))?;
    for module in needed(&all, &version)? {
        let inside = module.strip_prefix(&all).context("a module from elsewhere")?;
        unpack(&module, &folder.join(inside))?;
    }
    let (from, to) = (place.join(&version), folder.join("lib/modules").join(&version));
    for about in ["modules.builtin", "modules.order"] {
        fs::copy(from.join(about), to.join(about))?;
    }
    check(Command::new("depmod").arg("-b").arg(folder).arg(&version))?;
    fs::remove_dir_all(&all)?;
    Ok(version)
}

fn modules_of(unpacked: &Path) -> Result<PathBuf> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place));
    let versions = places
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .flatten();
    // Another package of the kernel may bring a folder without modules.
    let mut versions = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("kernel").is_dir());
    versions.next().context("the packages hold no modules")
}

/// Files of [`MODULES`] and of what they need; those built into this kernel have none.
fn needed(all: &Path, version: &str) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe
            .arg("-d")
            .arg(all)
            .args(["-S", version, "--show-depends", module]);
        let lines = output(&mut modprobe).with_context(|| format!("kernel {version} has no module {module}"))?;
        let paths = lines.lines().filter_map(|line| line.strip_prefix("insmod "));
        // Options may follow.
        files.extend(
            paths
                .filter_map(|path| path.split_whitespace().next())
                .map(PathBuf::from),
        );
    }
    Ok(files)
}

/// Guests have no decompressor.
fn unpack(module: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::copy(module, to).map(drop)?,
        Some("xz") => {
            let file = File::create(to.with_extension(""))?;
            check(Command::new("xz").arg("-dc").arg(module).stdout(file))?;
        }
        _ => bail!("a module packed in an unknown way: {}", module.display()),
    }
    Ok(())
}
