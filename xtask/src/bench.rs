//! `cargo xtask bench`: builds the benches and becomes them.

use crate::{
    build_ebpf, kube,
    process::{cargo, check, require_root},
    setup::{self, Scope},
    workspace,
};
use anyhow::{Context, Result};
use clap::Parser;
use std::{os::unix::process::CommandExt, process::Command};

/// Arguments of the verb; all go to the bench.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Given to the bench; try `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Suites that run the agent, which is then built as it is shipped. The others have programs run and timed by the kernel, so
/// the build of the bench that is there sooner measures the same.
const WITH_AGENT: [&str; 5] = ["survival", "lab", "update", "kube", "takeover"];
/// Suites with a Kubernetes API.
const WITH_KUBE: [&str; 2] = ["kube", "takeover"];

/// The verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("cargo xtask bench")?;
    let tools = setup::run(Scope::Everything)?;
    build_ebpf::build(&tools)?;
    let asked = |suite: &str| args.arguments.iter().any(|argument| argument == suite);
    if WITH_KUBE.into_iter().any(asked) {
        kube::build()?;
    }
    let bench = if WITH_AGENT.into_iter().any(asked) {
        // The agent and the pods are looked for beside the bench.
        let packages = ["--release", "--package", "weir", "--package", "tests", "--bins"];
        check(cargo().args(["build", "--quiet"]).args(packages))?;
        workspace::target().join("release/bench")
    } else {
        check(cargo().args(["build", "--quiet", "--package", "tests", "--bin", "bench"]))?;
        workspace::binary("bench")
    };
    let error = Command::new(&bench)
        .args(&args.arguments)
        .current_dir(workspace::root())
        .env("WEIR_EBPF_COMPILER", tools.toolchain.describe())
        .exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}
