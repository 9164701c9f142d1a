//! `bpf-linker`: links bitcode, so its LLVM must be as new as the compiler's or newer.

use super::toolchain::{self, Toolchain};
use crate::{
    process::{find, output, say},
    workspace,
};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const VERSION: &str = "0.13.0";

/// Ours if it was installed before, else one in `PATH` that fits, else it is built. The flag says whether it was.
pub(super) fn find_or_install(toolchain: &Toolchain) -> Result<(PathBuf, bool)> {
    let root = workspace::tools(toolchain.llvm);
    let ours = root.join("bin/bpf-linker");
    if ours.is_file() {
        return Ok((ours, false));
    }
    if let Some(found) = find("bpf-linker").filter(|path| fits(path, toolchain.llvm)) {
        return Ok((found, false));
    }
    install(toolchain, &root).with_context(|| {
        format!(
            "bpf-linker {VERSION} or newer is missing: install it with `cargo binstall bpf-linker`, or LLVM {0}'s development \
             files and `LLVM_PREFIX={1} cargo install --locked --no-default-features --features llvm-{0} bpf-linker`",
            toolchain.llvm,
            toolchain::llvm_prefix(toolchain.llvm).display()
        )
    })?;
    if !ours.is_file() {
        bail!("cargo installed bpf-linker, but {} is not there", ours.display());
    }
    say(format!("installed {}", ours.display()));
    Ok((ours, true))
}

fn install(toolchain: &Toolchain, root: &Path) -> Result<()> {
    toolchain::llvm_development(toolchain.llvm)?;
    toolchain::cargo_install_linker(VERSION, toolchain.llvm, root)
}

/// Whether a linker found in `PATH` can read this compiler's bitcode. One without a shared LLVM is a release binary, which
/// carries the newest.
fn fits(path: &Path, llvm: u32) -> bool {
    let Some(version) = output(Command::new(path).arg("--version")) else {
        return false;
    };
    let libraries = output(Command::new("ldd").arg(path)).unwrap_or_default();
    at_least(&version) && shared_llvm(&libraries).is_none_or(|linked| linked >= llvm)
}

fn at_least(version_line: &str) -> bool {
    let numbers = |text: &str| {
        text.trim()
            .split('.')
            .map_while(|part| part.parse::<u32>().ok())
            .collect::<Vec<_>>()
    };
    version_line
        .split_whitespace()
        .last()
        .is_some_and(|version| numbers(version) >= numbers(VERSION))
}

/// The major version in `libLLVM.so.22.1` or `libLLVM-22.so`.
fn shared_llvm(libraries: &str) -> Option<u32> {
    let (_, name) = libraries.split_once("libLLVM")?;
    let digits: String = name
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(at_least("bpf-linker 0.13.0\n") && at_least("bpf-linker 0.20.1\n"));
        assert!(!at_least("bpf-linker 0.9.15\n") && !at_least(""));
    }

    #[test]
    fn shared_llvm_is_read_from_ldd() {
        assert_eq!(
            shared_llvm("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)"),
            Some(22)
        );
        assert_eq!(shared_llvm("\tlibLLVM-19.so => /usr/lib/libLLVM-19.so"), Some(19));
        assert_eq!(shared_llvm("\tlibc.so.6 => /lib/libc.so.6"), None);
    }
}
