//! `cargo xtask kube`: a real Kubernetes control plane for the tests: etcd, kube-apiserver, kube-controller-manager, kube-proxy
//! and kubectl.
//!
//! Those in the folder that KUBEBUILDER_ASSETS names are used as they are. For what is not there, one Go program is built that
//! is all of them (`tests/control-plane`), with a link for each; it is built again only when what goes into it has changed.

use crate::{
    process::{cargo, check, require_root, say},
    setup, workspace,
};
use anyhow::{Context, Result};
use clap::Parser;
use std::{
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// What it consists of.
const PROGRAMS: [&str; 5] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kubectl",
];
/// All of them in one.
const PROGRAM: &str = "control-plane";
/// The files it is made of.
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];

/// Arguments of the verb.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Also start one to play with, in a network namespace of its own, until an interrupt. Needs root.
    #[arg(long)]
    start: bool,
}

/// The verb: the folder of the programs is the last line, if it does not start one.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = build()?;
    if !args.start {
        println!("{}", folder.display());
        return Ok(());
    }
    require_root("cargo xtask kube --start")?;
    setup::lab()?;
    check(cargo().args(["build", "--quiet", "--package", "tests", "--bin", "kube"]))?;
    let program = workspace::binary("kube");
    let error = Command::new(&program).current_dir(workspace::root()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// Sees to it that every program is there; gives the folder of those that are not in KUBEBUILDER_ASSETS, or that one if all
/// are there.
pub(crate) fn build() -> Result<PathBuf> {
    if let Some(given) = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) {
        let missing: Vec<_> = PROGRAMS
            .into_iter()
            .filter(|name| !given.join(name).is_file())
            .collect();
        if missing.is_empty() {
            return Ok(given);
        }
        say(format!("{} has no {}", given.display(), missing.join(", ")));
    }
    let go = setup::go()?;
    let sources = workspace::root().join("tests").join(PROGRAM);
    let folder = folder();
    let flags = flags(&fs::read_to_string(sources.join("go.mod")).context("no go.mod of the control plane")?)?;
    let inputs = inputs(&sources, &go, &flags)?;
    let stamp = folder.join("inputs");
    let program = folder.join(PROGRAM);
    if !program.is_file() || fs::read(&stamp).ok().as_deref() != Some(inputs.as_slice()) {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        compile(&go, &sources, &flags, &program)?;
        fs::write(&stamp, &inputs).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    for name in PROGRAMS {
        link(&folder.join(name))?;
    }
    Ok(folder)
}

/// Where what is built goes, and where the tests look.
pub(crate) fn folder() -> PathBuf {
    workspace::target().join(PROGRAM)
}

/// No C compiler, no paths of this machine, and the version that clients are told, which is that of the modules.
fn flags(go_mod: &str) -> Result<[String; 3]> {
    let version = go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .context("go.mod of the control plane does not name k8s.io/kubernetes")?;
    Ok([
        "-trimpath".into(),
        "-buildvcs=false".into(),
        format!("-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={version}"),
    ])
}

/// All that decides what the program is.
fn inputs(sources: &Path, go: &setup::Go, flags: &[String]) -> Result<Vec<u8>> {
    let mut inputs = format!("{}\n{}\n", go.version, flags.join(" ")).into_bytes();
    for name in SOURCES {
        let path = sources.join(name);
        inputs.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(inputs)
}

fn compile(go: &setup::Go, sources: &Path, flags: &[String], program: &Path) -> Result<()> {
    say("building a Kubernetes control plane: some ten minutes the first time, seconds later");
    let start = Instant::now();
    // Beside it and moved, so that nobody starts half a program.
    let draft = program.with_extension(format!("{}.new", std::process::id()));
    let mut command = Command::new(&go.program);
    command.arg("build").args(flags).arg("-o").arg(&draft).arg(".");
    command.current_dir(sources).env("CGO_ENABLED", "0");
    if env::var_os("GOTOOLCHAIN").is_none() {
        // Distributions forbid by default what an older Go needs to build this.
        command.env("GOTOOLCHAIN", "auto");
    }
    check(&mut command).context("the control plane of the tests does not build")?;
    fs::rename(&draft, program).with_context(|| format!("cannot write {}", program.display()))?;
    say(format!(
        "built {} in {:.0} s",
        program.display(),
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn link(path: &Path) -> Result<()> {
    if fs::read_link(path).is_ok_and(|target| target == Path::new(PROGRAM)) {
        return Ok(());
    }
    let _ = fs::remove_file(path);
    symlink(PROGRAM, path).with_context(|| format!("cannot make the link {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_modules() {
        let flags = flags("module x\n\nrequire (\n\tk8s.io/kubernetes v1.37.2\n\tk8s.io/kubectl v0.37.2\n)\n").unwrap();
        assert!(flags[2].ends_with("gitVersion=v1.37.2"), "{flags:?}");
        assert!(super::flags("module x\n").is_err());
    }

    #[test]
    fn every_program_has_a_case_in_the_source() {
        let source = fs::read_to_string(workspace::root().join("tests/control-plane/main.go")).unwrap();
        for name in PROGRAMS {
            assert!(source.contains(&format!("case \"{name}\":")), "{name}");
        }
    }
}
