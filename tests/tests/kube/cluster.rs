//! A lab that is a cluster: pods that serve, a control plane that knows the nodes, and `weir agent` with its own rights.

use anyhow::{Result, ensure};
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};
use tests::{
    kube::ControlPlane,
    lab::{
        Agent, FAMILIES, Family, Lab, Shape,
        address::{self, vip},
        agent, client,
        manifests::{self, HTTP, Service},
        servers::{self, Web},
        status::Status,
        wait,
    },
};

/// The rights of the agent, as delivered.
pub const RIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rbac-agent.yaml");
/// Where they put its ServiceAccount.
const NAMESPACE: &str = "weir-system";

/// Everything, in the order it is to end in.
pub struct Cluster {
    /// In the order of the nodes; none before they are started.
    pub agents: Vec<Agent>,
    pub control_plane: ControlPlane,
    _webs: Vec<Web>,
    pub lab: Lab,
}

impl Cluster {
    /// Runs `act` in a cluster of two nodes with Eips and no agents; if it fails, what they said last goes with the failure.
    pub fn play(act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let lab = Lab::new(Shape {
            nodes: 2,
            pods_per_node: 1,
            ..Shape::default()
        })?;
        let _webs = servers::start_web_everywhere(&lab)?;
        let control_plane = ControlPlane::start_in(&lab)?;
        let kubectl = control_plane.kubectl();
        control_plane.apply_definitions()?;
        kubectl.apply(
            &FAMILIES
                .map(|family| manifests::eip(&format!("lan-{family}").to_lowercase(), address::vip_network(family)))
                .concat(),
        )?;
        kubectl.run(&format!("create namespace {NAMESPACE}"))?;
        let mut cluster = Self {
            agents: Vec::new(),
            control_plane,
            _webs,
            lab,
        };
        act(&mut cluster).map_err(|error| error.context(agent::last_words(&cluster.lab)))
    }

    /// Gives the agents their rights and starts one on each node.
    pub fn start_agents(&mut self) -> Result<()> {
        self.control_plane.kubectl().run(&format!("apply -f {RIGHTS}"))?;
        self.launch_agents()?;
        self.wait_for_agents()
    }

    /// Starts an agent on each node, with the rights there are.
    pub fn launch_agents(&mut self) -> Result<()> {
        for at in 0..self.lab.nodes.len() {
            let agent = self.launch_agent(at)?;
            self.agents.push(agent);
        }
        Ok(())
    }

    /// Starts an agent on the node at this place.
    pub fn launch_agent(&self, at: usize) -> Result<Agent> {
        let node = &self.lab.nodes[at];
        Agent::launch_in_cluster(&self.lab, node, &self.kubeconfig(&node.name)?)
    }

    /// Returns when each has made its plan true, and those of all nodes know of each other.
    pub fn wait_for_agents(&mut self) -> Result<()> {
        let Self { agents, lab, .. } = self;
        agents.iter_mut().try_for_each(|agent| agent.wait_until_ready(lab))?;
        if agents.len() < lab.nodes.len() {
            return Ok(());
        }
        wait::until("the agents to know of each other", || {
            for node in &lab.nodes {
                let mut conditions = Status::of(lab, node)?.conditions.into_iter();
                let silent = conditions.find(|condition| condition.reason == "NoAgent");
                ensure!(silent.is_none(), "{silent:?}");
            }
            Ok(())
        })
    }

    /// With the token of the agent's pod on `node`.
    pub fn kubeconfig(&self, node: &str) -> Result<PathBuf> {
        let kubectl = self.control_plane.as_agent_of(node)?;
        Ok(kubectl.kubeconfig().to_owned())
    }

    /// Makes these the addresses of a Service, as whoever allocates would.
    pub fn give(&self, service: &str, addresses: &[IpAddr]) -> Result<()> {
        let ingress: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        let mut command = self.control_plane.kubectl().command();
        command.args([
            "patch",
            "service",
            service,
            "--subresource=status",
            "--type=merge",
            "-p",
        ]);
        agent::finished(command.arg(patch.to_string())).map(drop)
    }

    /// The Service of this name in both families, with all pods behind it, and with the addresses that end in `number`.
    pub fn serve(&self, name: &str, number: u8) -> Result<Service> {
        let service = Service::new(name);
        self.control_plane.kubectl().apply(&service.with(self.lab.pods()))?;
        self.give(name, &FAMILIES.map(|family| vip(family, number)))?;
        Ok(service)
    }

    /// Waits until the client has had an answer from each of `pods`, and from none of the others in as many requests as that
    /// takes and some more.
    pub fn answered_by(&self, family: Family, number: u8, pods: &[&str]) -> Result<()> {
        let address = Self::http(family, number);
        wait::until("answers of the right pods", || {
            self.lab.client.run(|| {
                let mut seen = BTreeSet::new();
                for _ in 0..40 {
                    seen.insert(client::ask(address)?.pod);
                }
                ensure!(seen.iter().eq(pods.iter()), "{address}: {seen:?}, not {pods:?}");
                Ok(())
            })
        })
    }

    /// Where such a Service is.
    pub fn http(family: Family, number: u8) -> SocketAddr {
        SocketAddr::new(vip(family, number), HTTP)
    }

    /// Names of all pods, in order.
    pub fn pods(&self) -> Vec<&str> {
        let mut pods: Vec<_> = self.lab.pods().map(|pod| pod.name.as_str()).collect();
        pods.sort_unstable();
        pods
    }

    /// Waits until every agent says that it cannot reach the API server.
    pub fn is_missed(&self) -> Result<()> {
        wait::until("the agents to notice", || {
            for node in &self.lab.nodes {
                let status = Status::of(&self.lab, node)?;
                status.condition("APIServer", self.control_plane.server(), "Unreachable")?;
            }
            Ok(())
        })
    }

    /// Waits until no agent says that anything is wrong with the API server.
    pub fn is_back(&self) -> Result<()> {
        wait::until("the agents to be back", || {
            for node in &self.lab.nodes {
                let conditions = Status::of(&self.lab, node)?.conditions;
                let away = conditions.iter().find(|condition| condition.object.kind == "APIServer");
                ensure!(away.is_none(), "{away:?}");
            }
            Ok(())
        })
    }

    /// How often the agents of each node have written to the maps.
    pub fn writes(&self) -> Vec<usize> {
        (0..self.agents.len())
            .map(|at| self.said(at, "DEBUG programmed "))
            .collect()
    }

    /// The same when they have no more to write: what rows had before goes after it was seen twice that no flow needs it, five seconds
    /// apart.
    pub fn writes_at_rest(&self) -> Result<Vec<usize>> {
        wait::until("agents that have no more to write", || {
            let before = self.writes();
            thread::sleep(Duration::from_secs(11));
            let now = self.writes();
            ensure!(now == before, "{before:?} writes, then {now:?}");
            Ok(now)
        })
    }

    /// How many lines with `text` the agents of the node at this place have logged.
    pub fn said(&self, at: usize, text: &str) -> usize {
        let log = self.agents[at].log();
        log.lines().filter(|line| line.contains(text)).count()
    }
}
