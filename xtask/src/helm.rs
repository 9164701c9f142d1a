//! A real helm, of one version, for the chart's tests and for what is made from the chart. Built with Go, once.

use crate::{
    kube,
    process::{check, say},
    setup,
};
use anyhow::{Context, Result};
use std::{env, fs, path::PathBuf, process::Command};

const MODULE: &str = "helm.sh/helm/v4/cmd/helm";
const VERSION: &str = "v4.3.1";

/// Sees to it that it is there, beside the programs of the control plane, and gives its path.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = kube::folder();
    let program = folder.join("helm");
    let stamp = folder.join("helm-version");
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|built| built == VERSION) {
        return Ok(program);
    }
    let go = setup::go()?;
    say(format!("building helm {VERSION}: some three minutes"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut command = Command::new(&go.program);
    command
        .args(["install", "-trimpath", "-ldflags=-s -w"])
        .arg(format!("{MODULE}@{VERSION}"))
        .env("GOBIN", &folder)
        .env("CGO_ENABLED", "0");
    if env::var_os("GOTOOLCHAIN").is_none() {
        command.env("GOTOOLCHAIN", "auto");
    }
    check(&mut command).context("helm does not build")?;
    fs::write(&stamp, VERSION).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(program)
}
