//! Where it plays: a lab with a control plane, an agent and a controller, each with its own token and rights.

use super::{super::services::EIP, Requests};
use crate::{
    kube::ControlPlane,
    lab::{Agent, Lab, Node, Shape, agent, process::Process},
};
use anyhow::Result;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const NAMESPACE: &str = "weir-system";

/// In the order it is to end in.
pub(super) struct Stage {
    pub(super) control_plane: ControlPlane,
    pub(super) lab: Lab,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
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
        Ok(Self { control_plane, lab })
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
