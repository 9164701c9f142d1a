//! Where it plays: a lab with a control plane, an agent and a controller, each with its own token and rights.

use super::{
    super::services::{EIP, EIP_NAME, vip},
    Requests,
};
use crate::{
    kube::ControlPlane,
    lab::{Agent, Lab, Node, Shape, agent, process::Process},
};
use anyhow::Result;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use weir_core::{controller::AGENT_LEASES, election};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const NAMESPACE: &str = "weir-system";
/// Seconds for which agents that do not run are taken to live: longer than a run.
const LEASE: u32 = 7200;

/// In the order it is to end in.
pub(super) struct Stage {
    pub(super) control_plane: ControlPlane,
    pub(super) lab: Lab,
}

impl Stage {
    /// With room for so many addresses.
    pub(super) fn new(addresses: u32) -> Result<Self> {
        let lab = Lab::new(Shape {
            nodes: 3,
            pods_per_node: 1,
            ..Shape::default()
        })?;
        let control_plane = ControlPlane::start_in(&lab)?;
        control_plane.apply_definitions()?;
        let kubectl = control_plane.kubectl();
        kubectl.apply(EIP)?;
        kubectl.run(&format!("create namespace {NAMESPACE}"))?;
        for rights in ["agent", "controller"] {
            kubectl.run(&format!("apply -f {DEPLOY}/rbac-{rights}.yaml"))?;
        }
        let stage = Self { control_plane, lab };
        for node in &stage.lab.nodes[1..] {
            stage.speaks(&node.name, addresses)?;
        }
        Ok(stage)
    }

    /// Says what the agent of a node would: that it lives, takes packets out of the tunnel, so that pods there get new
    /// connections, and answers for what is its own of the first so many addresses.
    fn speaks(&self, node: &str, addresses: u32) -> Result<()> {
        let kubectl = self.control_plane.kubectl();
        let (label, value) = AGENT_LEASES;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": format!("weir-agent-{node}"), "namespace": NAMESPACE, "labels": {label: value}},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE},
        });
        kubectl.apply(&lease.to_string())?;
        let names = || self.lab.nodes.iter().map(|node| node.name.as_str());
        // As the controller gives them out: from the lowest on, that of the network itself, too.
        let own: Vec<_> = (0..addresses)
            .map(|number| Ipv4Addr::from_bits(vip(0).to_bits() - 1 + number))
            .filter(|address| election::owner(names(), IpAddr::V4(*address)) == Some(node))
            .collect();
        let entry = json!({"nodes": {node: {"ready": true, "takesTunnel": true, "announces": own}}});
        kubectl.patch_status(&format!("eip {EIP_NAME}"), &entry)
    }

    /// The node whose agent is measured.
    pub(super) fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    pub(super) fn start_agent(&self) -> Result<Agent> {
        let agent = self.control_plane.as_agent_of(&self.node().name)?;
        Agent::launch_in_cluster(&self.lab, self.node(), agent.kubeconfig())
    }

    pub(super) fn start_controller(&self) -> Result<Process> {
        let namespace = self.control_plane.namespace();
        let mut command = namespace.command(&agent::binary().to_string_lossy());
        command.args(["controller", "--identity", "bench"]);
        let controller = self.control_plane.kubectl_as(NAMESPACE, "weir-controller")?;
        command.env("KUBECONFIG", controller.kubeconfig());
        let log = self.control_plane.directory().join("controller.log");
        Process::start(command, "weir controller", &log)
    }

    /// What agent and controller have asked the API server for so far.
    pub(super) fn requests(&self) -> Result<Requests> {
        let mut requests = Requests::new();
        for asked in self.control_plane.asked()? {
            let what = format!("{} {} {}", asked.account, asked.verb, asked.resource);
            *requests.entry(what).or_default() += 1;
        }
        Ok(requests)
    }
}
