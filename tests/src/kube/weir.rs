//! Weir on a control plane: the rights it is delivered with, and controllers that have them.

use super::{ControlPlane, Kubectl};
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
        self.give_rights("rbac-controller.yaml")?;
        Ok(self.as_controller()?.kubeconfig().to_owned())
    }

    /// kubectl as the controller.
    ///
    /// # Errors
    /// When it has no rights yet.
    pub fn as_controller(&self) -> Result<Kubectl> {
        self.kubectl_as(NAMESPACE, "weir-controller")
    }

    /// Gives `weir agent` its rights.
    ///
    /// # Errors
    /// As above.
    pub fn give_agent_rights(&self) -> Result<()> {
        self.give_rights("rbac-agent.yaml")
    }

    /// kubectl as the agent of `node`, with the token of its pod.
    ///
    /// # Errors
    /// When agents have no rights yet.
    pub fn as_agent_of(&self, node: &str) -> Result<Kubectl> {
        self.kubectl_on(NAMESPACE, "weir-agent", node)
    }

    fn give_rights(&self, file: &str) -> Result<()> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        self.kubectl().run(&format!("apply -f {folder}/{file}")).map(drop)
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
