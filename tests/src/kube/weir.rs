//! Weir on a control plane: the rights it is delivered with, and controllers that have them.

use super::ControlPlane;
use crate::lab::{Namespace, agent, process::Process};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Where Weir's accounts are; whoever gives rights has to make it first.
pub const NAMESPACE: &str = "weir-system";

impl ControlPlane {
    /// Gives `weir controller` its rights; gives the kubeconfig with its token.
    ///
    /// # Errors
    /// When the API server does not take them.
    pub fn give_controller_rights(&self) -> Result<PathBuf> {
        self.give_rights("weir-controller", "rbac-controller.yaml")
    }

    /// The same for `weir agent`.
    ///
    /// # Errors
    /// As above.
    pub fn give_agent_rights(&self) -> Result<PathBuf> {
        self.give_rights("weir-agent", "rbac-agent.yaml")
    }

    fn give_rights(&self, account: &str, file: &str) -> Result<PathBuf> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        self.kubectl().run(&format!("apply -f {folder}/{file}"))?;
        let account = self.kubectl_as(NAMESPACE, account)?;
        Ok(account.kubeconfig().to_owned())
    }

    /// Starts a controller beside the control plane.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn start_controller(&self, kubeconfig: &Path, identity: &str, arguments: &[&str]) -> Result<Process> {
        self.start_controller_in(self.namespace(), kubeconfig, identity, arguments)
    }

    /// Starts a controller in a namespace from which the control plane can be reached.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn start_controller_in(
        &self,
        namespace: &Namespace,
        kubeconfig: &Path,
        identity: &str,
        arguments: &[&str],
    ) -> Result<Process> {
        let program = agent::binary();
        let mut command = namespace.command(&program.to_string_lossy());
        command.args(["controller", "--identity", identity]).args(arguments);
        command.env("KUBECONFIG", kubeconfig);
        let log = self.directory().join(format!("controller-{identity}.log"));
        Process::start(command, "controller", &log)
    }
}
