//! Debian's kernels: the newest of a series, fetched once and kept under `target/kernels`.
//!
//! apt does the fetching, with lists of its own beside the kernels, so that the machine's stay as they are. A series is
//! named, never a version: old versions leave the mirrors.

use super::modules;
use crate::{
    process::{check, output, say},
    workspace,
};
use anyhow::{Context, Result, bail};
use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// For virtual machines: a third of the size, and all that the tests want.
const FLAVOUR: &str = "cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Suite, and whether it is on the security mirror.
const SUITES: [(&str, bool); 2] = [("bookworm-security", true), ("trixie-backports", false)];

/// A kernel that is here.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As asked for: `6.1`.
    pub(super) series: String,
    /// As the kernel calls itself.
    pub(super) version: String,
    /// Holds `vmlinuz` and `lib/modules/VERSION`.
    pub(super) folder: PathBuf,
}

/// The kernel of a series: what is here, or the newest of the mirrors.
pub(super) fn kernel(series: &str, refresh: bool) -> Result<Kernel> {
    if ARCH != "x86_64" {
        bail!("the test binaries are for {ARCH}, and only kernels for x86-64 are known here");
    }
    let folder = store().join(series);
    let named = folder.join("version");
    if refresh || !named.exists() {
        fetch(series, &folder).with_context(|| format!("fetching the newest {series}"))?;
    }
    let version = fs::read_to_string(&named).with_context(|| format!("cannot read {}", named.display()))?;
    Ok(Kernel {
        series: series.to_owned(),
        version,
        folder,
    })
}

fn store() -> PathBuf {
    workspace::target().join("kernels")
}

fn fetch(series: &str, folder: &Path) -> Result<()> {
    let apt = Apt::ready()?;
    let names = apt.cache(&["pkgnames", &format!("linux-image-{series}.")])?;
    let image = newest(names.lines(), series).with_context(|| {
        let suites = SUITES.map(|(suite, _)| suite).join(" and ");
        format!("{suites} have no kernel {series} of the flavour {FLAVOUR}")
    })?;
    say(format!("fetching {image}"));
    let draft = folder.with_extension("draft");
    remove(&draft)?;
    fs::create_dir_all(&draft)?;
    let packages = parts(apt, image);
    check(apt.get().args(["download", "-qq"]).args(&packages).current_dir(&draft))?;
    let unpacked = draft.join("unpacked");
    for entry in fs::read_dir(&draft)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            check(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&unpacked))?;
            fs::remove_file(&file)?;
        }
    }
    let version = modules::keep(&unpacked, &draft)?;
    remove(&unpacked)?;
    fs::write(draft.join("version"), version)?;
    remove(folder)?;
    fs::rename(&draft, folder).with_context(|| format!("cannot put {} in place", folder.display()))
}

/// From 6.19 on a kernel is several packages.
fn parts(apt: &Apt, image: &str) -> Vec<String> {
    let version = image.trim_start_matches("linux-image-");
    let others = ["base", "binary", "modules"].map(|part| format!("linux-{part}-{version}"));
    let there = others.into_iter().filter(|package| {
        apt.cache(&["show", package])
            .is_ok_and(|about| !about.trim().is_empty())
    });
    [image.to_owned()].into_iter().chain(there).collect()
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// The package of the newest version of `series`: `linux-image-6.1.0-56-cloud-amd64`, `linux-image-7.3.4+deb13-cloud-amd64`.
/// Release candidates, unsigned, debugging and real-time kernels have other letters in their names.
fn newest<'a>(names: impl Iterator<Item = &'a str>, series: &str) -> Option<&'a str> {
    let (prefix, suffix) = (format!("linux-image-{series}."), format!("-{FLAVOUR}"));
    let versions = names.filter_map(|name| {
        let version = name.strip_prefix(&prefix)?.strip_suffix(&suffix)?;
        let plain = version.replacen("+deb", "+", 1);
        let known = plain
            .chars()
            .all(|letter| letter.is_ascii_digit() || ".+-".contains(letter));
        let numbers = plain
            .split(['.', '+', '-'])
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>();
        Some((numbers.ok().filter(|_| known)?, name))
    });
    versions.max().map(|(_, name)| name)
}

/// apt with lists and sources of its own.
#[derive(Debug)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Lists are read once in a run.
    fn ready() -> Result<&'static Self> {
        static READY: OnceLock<Apt> = OnceLock::new();
        if let Some(apt) = READY.get() {
            return Ok(apt);
        }
        let apt = Self::set_up(&store().join("apt"))?;
        Ok(READY.get_or_init(|| apt))
    }

    fn set_up(folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let mirrors = mirrors(&apt_configuration());
        let mut sources = String::new();
        for (suite, security) in SUITES {
            let mirror = mirrors.iter().find(|mirror| mirror.contains("security") == security);
            let mirror = mirror.with_context(|| {
                let kind = if security { "security mirror" } else { "mirror" };
                format!("apt is set up with no Debian {kind}, where {suite} would be")
            })?;
            sources += &format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        }
        let list = folder.join("sources.list");
        fs::write(&list, sources)?;
        let options = [
            format!("Dir::Etc::SourceList={}", list.display()),
            "Dir::Etc::SourceParts=/dev/null".into(),
            format!("Dir::State::Lists={}", folder.join("lists").display()),
            format!("Dir::Cache={}", folder.join("cache").display()),
            // Else a user who may not read our folder would fetch.
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".into(), option]).collect();
        let apt = Self { options };
        check(apt.get().args(["update", "-qq"])).context("cannot read the mirrors' lists")?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options).stdout(std::io::stderr());
        command
    }

    fn cache(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("apt-cache");
        output(command.args(&self.options).args(arguments)).context("apt-cache fails")
    }
}

/// What the machine's apt is set up with, in either of its formats.
fn apt_configuration() -> String {
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = parts.map(|entry| entry.path()).chain(["/etc/apt/sources.list".into()]);
    files.filter_map(|file| fs::read_to_string(file).ok()).collect()
}

fn mirrors(configuration: &str) -> Vec<String> {
    let lines = configuration.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    let uris = words.filter(|word| word.starts_with("http") && word.contains("://") && word.contains("debian"));
    uris.map(|uri| uri.trim_end_matches('/').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_of_a_series_is_taken() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-7.3.0-rc2-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13.1-cloud-amd64",
        ];
        let newest = |series| newest(names.into_iter(), series);
        assert_eq!(newest("6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12"), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest("7.3"), Some("linux-image-7.3.4+deb13.1-cloud-amd64"));
        assert_eq!(newest("5.15"), None);
    }

    #[test]
    fn mirrors_are_found_in_both_formats() {
        let old = "# deb http://old.invalid/debian x main\ndeb [a=b] https://one.invalid/debian bookworm main\n";
        let new = "Types: deb\nURIs: http://two.invalid/debian-security/\nSuites: bookworm-security\n";
        assert_eq!(
            mirrors(&format!("{old}{new}")),
            ["https://one.invalid/debian", "http://two.invalid/debian-security"]
        );
    }
}
