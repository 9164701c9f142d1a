//! `cargo xtask deploy`: writes `deploy/weir.yaml`, for whoever has no helm, anew from the chart.

use crate::{helm, workspace};
use anyhow::{Context, Result, ensure};
use std::{fs, process::Command};

/// Before the manifests.
const HEAD: &str = "# Made by `cargo xtask deploy` from deploy/chart/weir: change that.\n";

/// The verb. A test of kind kube fails while it has not been run.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut command = Command::new(helm::build()?);
    command
        .arg("template")
        .arg("weir")
        .arg(root.join("deploy/chart/weir"))
        .args([
            "--namespace=weir-system",
            "--set=createNamespace=true,crds.install=false",
        ]);
    let output = command.output().context("cannot start helm")?;
    ensure!(
        output.status.success(),
        "helm template: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = root.join("deploy/weir.yaml");
    fs::write(&path, [HEAD.as_bytes(), &output.stdout].concat())
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}
