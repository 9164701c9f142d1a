//! The static program. Statically linked glibc, not musl: it is the C library, and the allocator, that every test and number of
//! this repository is about, and since 2.34 it reads `/etc/hosts` and asks DNS without loading anything.

use super::{Architecture, PROGRAM, Profile};
use crate::{
    process::{cargo, check, find, output, say},
    setup::{self, Toolchain},
    workspace,
};
use anyhow::{Context, Result, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds it, and copies it to its place under `folder`.
pub(super) fn build(
    architecture: Architecture,
    profile: Profile,
    toolchain: &Toolchain,
    folder: &Path,
) -> Result<PathBuf> {
    let name = architecture.name();
    let native = architecture.machine() == env::consts::ARCH;
    let mut built = workspace::target();
    let mut command = if native {
        let mut command = cargo();
        command.arg("rustc");
        command
    } else {
        built.push(architecture.target());
        foreign(architecture, toolchain)?
    };
    built.extend([profile.folder(), PROGRAM]);
    command.args(["--package", "weir", "--bin", PROGRAM]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    // Of what is linked, only the program itself is compiled otherwise, so that what is built already is of use. Names of
    // functions stay, for backtraces.
    command.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=debuginfo"]);
    say(format!("a static program for {name}"));
    check(command.stdout(std::io::stderr())).with_context(|| format!("the program for {name} does not build"))?;
    ensure_static(&built)?;

    let place = place(architecture, folder);
    fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::copy(&built, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

/// Where it is under `folder`.
pub(super) fn place(architecture: Architecture, folder: &Path) -> PathBuf {
    folder.join(architecture.name()).join(PROGRAM)
}

/// `cargo rustc` for a machine that is not this one. rustup has the library for it, or it is built from source, by the compiler of
/// the kernel half, which has one.
fn foreign(architecture: Architecture, toolchain: &Toolchain) -> Result<Command> {
    let (target, machine) = (architecture.target(), architecture.machine());
    setup::cross_compiler(machine, architecture.name())?;
    let mut ask = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    ask.current_dir(workspace::root())
        .args(["--print", "target-libdir", "--target", &target]);
    let has_library = output(&mut ask).is_some_and(|folder| Path::new(folder.trim()).is_dir());
    let mut command = if has_library {
        let mut command = cargo();
        command.arg("rustc");
        command
    } else {
        let mut command = toolchain.cargo("rustc");
        command.args(["-Z", "build-std=std,panic_unwind"]);
        command.env("CARGO_TARGET_DIR", workspace::target());
        command
    };
    let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    if env::var_os(&linker).is_none() {
        command.env(linker, format!("{machine}-linux-gnu-gcc"));
    }
    command.args(["--target", &target]);
    Ok(command)
}

/// An image has no loader and no libraries.
fn ensure_static(program: &Path) -> Result<()> {
    let readelf = find("readelf").context("readelf is missing; on Debian: apt-get install binutils")?;
    let headers = output(
        Command::new(readelf)
            .args(["--program-headers", "--dynamic"])
            .arg(program),
    );
    let headers = headers.with_context(|| format!("{} is no program", program.display()))?;
    ensure!(
        !headers.contains("INTERP") && !headers.contains("(NEEDED)"),
        "{} wants a loader or libraries:\n{headers}",
        program.display()
    );
    Ok(())
}
