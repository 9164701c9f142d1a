//! kubectl, as somebody: the admin, or a service account by its token.

use super::programs::program;
use crate::lab::{
    Namespace,
    namespace::{feed, output_of},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs kubectl in the control plane's namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespace: Namespace,
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    pub(super) fn new(namespace: &Namespace, kubeconfig: &Path, cache: &Path) -> Result<Self> {
        Ok(Self {
            namespace: namespace.clone(),
            program: program("kubectl")?,
            kubeconfig: kubeconfig.into(),
            cache: cache.into(),
        })
    }

    /// The kubeconfig it uses; whoever is on the lab's LAN can.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl`, to which arguments may be added.
    pub fn command(&self) -> Command {
        let mut command = self.namespace.command(&self.program.to_string_lossy());
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            // A person's preferences (`kuberc`) do not count here.
            .env("KUBERC", "off");
        command
    }

    /// Runs `kubectl LINE` (split at spaces) and returns what it printed.
    ///
    /// # Errors
    /// When it fails; with what the API server said.
    pub fn run(&self, line: &str) -> Result<String> {
        output_of(self.command().args(line.split_whitespace())).with_context(|| format!("kubectl {line}"))
    }

    /// As [`Kubectl::run`], with manifests as its standard input (`-f -`).
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub fn run_with(&self, line: &str, manifests: &str) -> Result<String> {
        let mut command = self.command();
        command.args(line.split_whitespace()).args(["-f", "-"]);
        feed(&mut command, manifests).with_context(|| format!("kubectl {line} -f -"))
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When one is refused; the others are applied.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.run_with("apply", manifests)
    }

    /// `kubectl get WHAT` as JSON: an object, or a list.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn get(&self, what: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&format!("get {what} -o json"))?)?)
    }

    /// Merges `patch` into the object `what` (RFC 7386); status is left alone.
    ///
    /// # Errors
    /// When the API server refuses what comes of it.
    pub fn patch(&self, what: &str, patch: &Value) -> Result<()> {
        self.merge(what, &[], patch)
    }

    /// Merges `status` into that of the object `what`.
    ///
    /// # Errors
    /// As [`Kubectl::patch`].
    pub fn patch_status(&self, what: &str, status: &Value) -> Result<()> {
        self.merge(what, &["--subresource=status"], &json!({ "status": status }))
    }

    fn merge(&self, what: &str, options: &[&str], patch: &Value) -> Result<()> {
        let mut command = self.command();
        command.arg("patch").args(what.split_whitespace()).args(options);
        output_of(command.arg("--type=merge").arg("-p").arg(patch.to_string()))
            .with_context(|| format!("patch {what} {patch}"))
            .map(drop)
    }
}
