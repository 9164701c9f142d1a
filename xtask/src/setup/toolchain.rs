//! Choosing the compiler of the kernel half: a rustc whose library source matches it, because `core` is built for BPF.

use super::packages;
use crate::process::{check, output, say, without_outer_build};
use anyhow::{Context, Result, bail};
use std::{path::PathBuf, process::Command};

const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// A compiler that can build for BPF.
#[derive(Debug)]
pub(crate) struct Toolchain {
    origin: Origin,
    /// Like `1.96.0` or `1.97.0-nightly`.
    release: String,
    /// Where the compiler's library and its source are.
    pub(crate) sysroot: PathBuf,
    /// Major version of the compiler's LLVM; bpf-linker's must not be older.
    pub(crate) llvm: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// rustup's nightly with its `rust-src` component.
    Nightly,
    /// A distribution's packages in `/usr`, allowed to use unstable features.
    Distribution,
}

impl Toolchain {
    /// cargo's `verb`, of this toolchain, with a clean environment, in the repository's root.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut command = without_outer_build(self.origin.program("cargo"));
        if self.origin == Origin::Distribution {
            command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC);
        }
        command.current_dir(crate::workspace::root()).arg(verb);
        command
    }

    /// One phrase for people.
    pub(crate) fn describe(&self) -> String {
        let Self {
            origin, release, llvm, ..
        } = self;
        let name = match origin {
            Origin::Nightly => "rustup's nightly",
            Origin::Distribution => DEBIAN_RUSTC,
        };
        format!("{name} {release} with LLVM {llvm}")
    }
}

impl Origin {
    fn program(self, name: &str) -> Command {
        match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", name]);
                command
            }
            Self::Distribution => Command::new(if name == "cargo" { DEBIAN_CARGO } else { DEBIAN_RUSTC }),
        }
    }

    /// The toolchain of this origin, if it is complete.
    fn find(self) -> Option<Toolchain> {
        let verbose = output(&mut without_outer_build(self.rustc("-vV")))?;
        let (release, llvm) = parse_version(&verbose)?;
        let mut sysroot = self.rustc("--print");
        sysroot.arg("sysroot");
        let sysroot = PathBuf::from(output(&mut without_outer_build(sysroot))?.trim());
        let has_source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file();
        let has_cargo = self == Self::Nightly || PathBuf::from(DEBIAN_CARGO).is_file();
        (has_source && has_cargo && new_enough(&release)).then_some(Toolchain {
            origin: self,
            release,
            sysroot,
            llvm,
        })
    }

    fn rustc(self, argument: &str) -> Command {
        let mut command = self.program("rustc");
        command.arg(argument);
        command
    }
}

/// Prefers rustup's nightly, then the distribution's, then installs Debian's. The flag says whether it installed.
pub(super) fn find_or_install() -> Result<(Toolchain, bool)> {
    if let Some(found) = Origin::Nightly.find().or_else(|| Origin::Distribution.find()) {
        return Ok((found, false));
    }
    if !packages::can_install() {
        bail!(
            "no compiler for the kernel half: install a nightly with its library source\n  \
             rustup toolchain install nightly --component rust-src\n\
             or, on Debian,\n  apt-get install {}",
            DEBIAN_PACKAGES.join(" ")
        );
    }
    packages::install(&DEBIAN_PACKAGES)?;
    let found = Origin::Distribution.find().with_context(|| {
        format!(
            "{} are installed, but {DEBIAN_RUSTC} has no library source or is older than {}",
            DEBIAN_PACKAGES.join(" "),
            MINIMUM
        )
    })?;
    Ok((found, true))
}

/// The LLVM development package of `llvm`, installed if it is not; false when it was there.
pub(super) fn llvm_development(llvm: u32) -> Result<bool> {
    // The first belongs to another package than the second.
    if ["bin/llvm-config", "lib/libLLVM.so"]
        .iter()
        .all(|file| llvm_prefix(llvm).join(file).exists())
    {
        return Ok(false);
    }
    packages::install(&[&format!("llvm-{llvm}-dev")])?;
    Ok(true)
}

/// Where Debian keeps LLVM `llvm`.
pub(super) fn llvm_prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

/// The oldest release that every dependency of the kernel half supports.
const MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");

fn new_enough(release: &str) -> bool {
    let number = |part: Option<&str>| part.and_then(|text| text.parse::<u32>().ok());
    let key = |version: &str| {
        let mut parts = version.split(['.', '-']);
        (number(parts.next()), number(parts.next()))
    };
    key(release) >= key(MINIMUM)
}

/// Release and LLVM major version from what `rustc -vV` prints.
fn parse_version(verbose: &str) -> Option<(String, u32)> {
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let release = field("release")?.to_owned();
    let llvm = field("LLVM version")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

/// Installs `bpf-linker` under `root` with the cargo that runs us, linked against Debian's LLVM `llvm`.
pub(super) fn cargo_install_linker(version: &str, llvm: u32, root: &std::path::Path) -> Result<()> {
    say(format!(
        "building bpf-linker {version} for LLVM {llvm}, about a minute, once"
    ));
    check(
        without_outer_build(crate::process::cargo())
            // Without it rustup's `rustc` asks each dependency's own toolchain file which one to be.
            .envs(std::env::var_os("RUSTUP_TOOLCHAIN").map(|toolchain| ("RUSTUP_TOOLCHAIN", toolchain)))
            .env("LLVM_PREFIX", llvm_prefix(llvm))
            .args([
                "install",
                "bpf-linker",
                "--version",
                version,
                "--locked",
                "--quiet",
                "--force",
            ])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
            .arg(root),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_rustc() {
        let verbose = "rustc 1.96.0 (x 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(verbose), Some(("1.96.0".into(), 22)));
        assert_eq!(parse_version("rustc 1.96.0"), None);
    }

    #[test]
    fn old_releases_are_refused() {
        assert!(new_enough("1.96.0") && new_enough("1.97.0-nightly") && new_enough("2.0.0"));
        assert!(!new_enough("1.63.0") && !new_enough(""));
    }
}
