//! `cargo xtask build-ebpf`: the only place that knows how the kernel half is built.
//!
//! The objects are copied to `target/ebpf/*.o`, and only when their bytes changed, so that user space, which embeds the
//! first, is not rebuilt for nothing.

use crate::{
    elf,
    process::{check, path_with, say},
    setup::{self, Scope, Tools},
    workspace,
};
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

const TARGET: &str = "bpfel-unknown-none";

/// The product's object and that of the benches.
const OBJECTS: [&str; 2] = ["weir", "weir-bench"];

/// The verb: builds, and prints where the product's object is.
pub(crate) fn run() -> Result<()> {
    let object = build(&setup::run(Scope::Build)?)?;
    println!("{}", object.display());
    Ok(())
}

/// Builds, checks and copies all objects; gives the path of the product's.
pub(crate) fn build(tools: &Tools) -> Result<PathBuf> {
    compile(tools)?;
    let built = workspace::ebpf_target().join(TARGET).join("release");
    for name in OBJECTS {
        publish(&built.join(name), &object_path(name))?;
    }
    Ok(object_path(OBJECTS[0]))
}

fn object_path(name: &str) -> PathBuf {
    workspace::ebpf_target().join(name).with_extension("o")
}

fn compile(tools: &Tools) -> Result<()> {
    let linker_folder = tools.linker.parent().context("the linker has no folder")?;
    let mut cargo = tools.toolchain.cargo("build");
    cargo
        .args([
            "--release",
            "--quiet",
            "--package",
            "weir-ebpf",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .env("PATH", path_with(linker_folder)?)
        .env("CARGO_TARGET_DIR", workspace::ebpf_target())
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(&tools.toolchain.sysroot).join("\u{1f}"),
        )
        .stdout(std::io::stderr());
    check(&mut cargo).context("the kernel half does not build")
}

/// Debug information and `--btf` give BTF with source lines; CPU v3 has 32-bit jumps and atomics (Linux 5.12).
///
/// No absolute path of the build machine stays in the object, but this repository's files keep a path that the linker
/// can open from where it runs, or BTF would have no source lines.
fn flags(sysroot: &Path) -> Vec<String> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .unwrap_or_else(|| "/".into());
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags: Vec<String> = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"]
        .iter()
        .map(|&flag| flag.into())
        .collect();
    flags.push(remap(&home.join("registry/src"), "registry"));
    flags.push(remap(&sysroot.join("lib/rustlib/src/rust"), "rust"));
    flags.push(remap(&workspace::root(), "."));
    flags
}

/// Copies an object that is fit to load; leaves an equal one untouched.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let object = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let undefined = elf::undefined_symbols(&object).with_context(|| format!("cannot check {}", from.display()))?;
    if !undefined.is_empty() {
        bail!(
            "{} calls what does not exist in the kernel: {}",
            from.display(),
            undefined.join(", ")
        );
    }
    if fs::read(to).is_ok_and(|old| old == object) {
        return Ok(());
    }
    let draft = to.with_extension(format!("{}.new", std::process::id()));
    fs::write(&draft, &object).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, to).with_context(|| format!("cannot write {}", to.display()))?;
    say(format!("built {} ({} bytes)", to.display(), object.len()));
    Ok(())
}
