//! `cargo xtask image`: Weir's program, static, for each architecture, and an image of it that takes no container tool to make.
//!
//! Under `target/image/PROFILE`: `ARCHITECTURE/weir`, and the OCI image layout `layout`. The same sources and compilers in the
//! same folder give the same bytes.

#[cfg(test)]
mod dockerfile;
mod layout;
mod program;

use crate::{
    build_ebpf,
    setup::{self, Scope},
    workspace,
};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::path::{Path, PathBuf};

/// All that is in an image, at its root.
const PROGRAM: &str = "weir";

/// Arguments of the verb.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// What it is to run on; may be given several times. By default all.
    #[arg(long = "architecture", value_name = "NAME", value_enum)]
    architectures: Vec<Architecture>,
    /// `dev` takes less time, and gives a larger and slower program.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

/// Machines there are images for, by the names that images give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Architecture {
    Amd64,
    Arm64,
}

/// How much is optimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Release,
    Dev,
}

impl Architecture {
    /// In an image's words.
    const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// In the kernel's words.
    const fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// In Rust's words.
    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.machine())
    }
}

impl Profile {
    /// What cargo calls its folder.
    const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// The verb: builds, and prints where the layout is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let architectures = if args.architectures.is_empty() {
        Architecture::value_variants()
    } else {
        &args.architectures
    };
    println!("{}", build(architectures, args.profile)?.display());
    Ok(())
}

/// For all architectures; gives where the layout is.
pub(crate) fn build_all(profile: Profile) -> Result<PathBuf> {
    build(Architecture::value_variants(), profile)
}

/// Where all of it is, below the folder of what cargo builds.
fn folder(profile: Profile) -> PathBuf {
    Path::new("image").join(profile.folder())
}

fn build(architectures: &[Architecture], profile: Profile) -> Result<PathBuf> {
    let tools = setup::run(Scope::Build)?;
    build_ebpf::build(&tools)?;
    let folder = workspace::target().join(folder(profile));
    let mut programs = Vec::new();
    for &architecture in architectures {
        programs.push((
            architecture,
            program::build(architecture, profile, &tools.toolchain, &folder)?,
        ));
    }
    layout::write(&folder.join("layout"), &programs)
}
