//! `cargo xtask demo`: builds what the demo needs and becomes it.

use crate::{
    build_ebpf, kube,
    process::{cargo, check, require_root},
    setup::{self, Scope},
    workspace,
};
use anyhow::{Context, Result};
use clap::Parser;
use std::{os::unix::process::CommandExt, process::Command};

/// Arguments of the verb; all go to the demo.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Given to the demo; try `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The verb. The data path is in the kernel, so the unoptimised build, which is there sooner, shows the same speed.
pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("cargo xtask demo")?;
    build_ebpf::build(&setup::run(Scope::Everything)?)?;
    if args.arguments.iter().any(|argument| argument == "--kube") {
        kube::build()?;
    }
    check(cargo().args(["build", "--package", "weir", "--package", "tests", "--bins"]))?;
    let demo = workspace::binary("demo");
    let error = Command::new(&demo)
        .args(&args.arguments)
        .current_dir(workspace::root())
        .exec();
    Err(error).with_context(|| format!("cannot start {}", demo.display()))
}
