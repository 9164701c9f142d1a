//! kube-proxy on a node of the lab.

use super::{ControlPlane, programs::program};
use crate::lab::{Family, Lab, Namespace, Node, address, client, process::Process};
use anyhow::{Context, Result};
use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

/// Where it says whether it has programmed what it knows.
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// Binds kube-proxy's account to the rights Kubernetes has for it.
const ACCOUNT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: kube-proxy, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kube-proxy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:node-proxier'}
subjects: [{kind: ServiceAccount, name: kube-proxy, namespace: kube-system}]
";

/// With what it programs Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

/// A running kube-proxy; dropping it kills it, and its rules stay with the node, as on a real one.
#[derive(Debug)]
pub struct KubeProxy {
    process: Process,
}

impl KubeProxy {
    /// Starts it in the namespace of `node`, which the API server has to know, and returns when it is healthy.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(control_plane: &ControlPlane, lab: &Lab, node: &Node, mode: ProxyMode) -> Result<Self> {
        let folder = lab.directory().join(&node.name);
        Self::start_in(control_plane, &node.namespace, &node.name, &folder, mode)
    }

    /// The same in another namespace, for processes there, as that of `node`; its log is in `folder`.
    ///
    /// # Errors
    /// As [`KubeProxy::start`].
    pub fn start_in(
        control_plane: &ControlPlane,
        namespace: &Namespace,
        node: &str,
        folder: &Path,
        mode: ProxyMode,
    ) -> Result<Self> {
        control_plane.kubectl().apply(ACCOUNT)?;
        let kubectl = control_plane.kubectl_as("kube-system", "kube-proxy")?;
        let mut command = namespace.command(&program("kube-proxy")?.to_string_lossy());
        command
            .arg(format!("--kubeconfig={}", kubectl.kubeconfig().display()))
            .arg(format!("--proxy-mode={mode}"))
            .arg(format!("--hostname-override={node}"))
            .arg(format!("--cluster-cidr={}", pod_networks()))
            // The size of the machine's table is not a namespace's to change.
            .arg("--conntrack-max-per-core=0");
        let log = folder.join("kube-proxy.log");
        let mut process = Process::start(command, "kube-proxy", &log)?;
        process
            .wait_until("kube-proxy", || namespace.run(|| client::get(HEALTH, "/healthz")))
            .with_context(|| format!("on {node}"))?;
        Ok(Self { process })
    }

    /// Ends it; its rules stay.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }
}

/// What holds the pods of every node, of each family.
fn pod_networks() -> String {
    format!("{},{}", address::all_pods(Family::V4), address::all_pods(Family::V6))
}
