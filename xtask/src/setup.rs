//! `cargo xtask setup`: finds what the other verbs need, or installs it, and says so.
//!
//! It prefers what is there, installs only as root with apt, and otherwise says exactly what to install and fails.
//! When nothing is missing it takes a fraction of a second, so every other verb runs it first.

mod bpffs;
mod go;
mod linker;
mod packages;
mod toolchain;

pub(crate) use go::{Go, find_or_install as go};
pub(crate) use packages::{cross_compiler, images};
pub(crate) use toolchain::Toolchain;

use crate::process::say;
use anyhow::{Result, bail};
use std::{path::PathBuf, time::Instant};

/// How much of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Only what builds the kernel half.
    Build,
    /// That, the tools of the lab, and a mounted bpf file system.
    Everything,
    /// That, and what boots other kernels.
    Kernels,
}

/// What builds the kernel half.
#[derive(Debug)]
pub(crate) struct Tools {
    /// A compiler with its library's source.
    pub(crate) toolchain: Toolchain,
    /// `bpf-linker`.
    pub(crate) linker: PathBuf,
}

/// Finds or installs the lab's tools alone.
pub(crate) fn lab() -> Result<()> {
    packages::lab().map(drop)
}

/// Finds or installs everything within `scope`. When something cannot be installed, the error tells all that is missing.
pub(crate) fn run(scope: Scope) -> Result<Tools> {
    let start = Instant::now();
    let mut steps = Vec::new();
    if scope != Scope::Build {
        steps.extend([packages::lab(), bpffs::mount()]);
    }
    if scope == Scope::Kernels {
        steps.push(packages::kernels());
    }
    let tools = toolchain::find_or_install().and_then(|(toolchain, installed)| {
        let (linker, built) = linker::find_or_install(&toolchain)?;
        Ok((Tools { toolchain, linker }, installed || built))
    });
    let (tools, changed) = match tools {
        Ok((tools, changed)) => (Some(tools), Ok(changed)),
        Err(error) => (None, Err(error)),
    };
    steps.push(changed);

    let mut changed = false;
    let mut missing = Vec::new();
    for step in steps {
        match step {
            Ok(done) => changed |= done,
            Err(error) => missing.push(format!("{error:#}")),
        }
    }
    let Some(tools) = tools.filter(|_| missing.is_empty()) else {
        bail!("{}", missing.join("\n"))
    };
    let took = start.elapsed();
    if changed {
        say(format!("set up in {:.1} s", took.as_secs_f64()));
    } else {
        let Tools { toolchain, linker } = &tools;
        say(format!(
            "nothing is missing ({} ms): {}, {}",
            took.as_millis(),
            toolchain.describe(),
            linker.display()
        ));
    }
    Ok(tools)
}
