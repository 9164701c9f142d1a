//! A cluster as OpenELB 0.6 leaves it: real API server, a kube-proxy on every node, Services with the addresses, labels and
//! finalizers that OpenELB has written, and somebody who answers for the addresses.

use super::{Mode, speaker::Speaker};
use crate::{
    kube::{ControlPlane, KubeProxy, ProxyMode, WEIR_NAMESPACE},
    lab::{
        Agent, FAMILIES, Family, Lab, Shape,
        address::{self, vip},
        agent, client,
        manifests::{self, HTTP, Service},
        process::Process,
        servers::{self, Web},
        wait,
    },
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{net::SocketAddr, ops::RangeBounds};
use weir_core::election;

/// The label by which OpenELB marks a Service with the Eip of its address.
const LABEL: &str = "eip.openelb.kubesphere.io/v1alpha2";

/// One Service with its address.
#[derive(Clone, Debug)]
pub struct Served {
    /// Name of the Service.
    pub name: String,
    /// Where clients ask.
    pub at: SocketAddr,
}

/// In the order it is to end in.
#[derive(Debug)]
pub struct Stage {
    agents: Vec<Agent>,
    controller: Option<Process>,
    /// OpenELB's part; taken away by whoever takes over.
    pub speakers: Vec<Speaker>,
    _proxies: Vec<KubeProxy>,
    control_plane: ControlPlane,
    _webs: Vec<Web>,
    services: Vec<Served>,
    /// Three nodes with a pod each.
    pub lab: Lab,
}

impl Stage {
    /// Returns when every Service is served.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn new(mode: Mode) -> Result<Self> {
        let lab = Lab::new(Shape {
            pods_per_node: 1,
            ..Shape::default()
        })?;
        let _webs = servers::start_web_everywhere(&lab)?;
        let control_plane = ControlPlane::start_in(&lab)?;
        control_plane.apply_definitions()?;
        control_plane
            .kubectl()
            .run(&format!("create namespace {WEIR_NAMESPACE}"))?;
        let mut stage = Self {
            agents: Vec::new(),
            controller: None,
            speakers: Vec::new(),
            _proxies: Vec::new(),
            control_plane,
            _webs,
            services: Vec::new(),
            lab,
        };
        for family in FAMILIES {
            stage.is_left_by_openelb(family, mode)?;
        }
        for node in &stage.lab.nodes {
            let proxy = KubeProxy::start(&stage.control_plane, &stage.lab, node, ProxyMode::Nftables)?;
            stage._proxies.push(proxy);
        }
        stage.start_speakers(mode)?;
        for served in &stage.services {
            let asked = || stage.lab.client.run(|| client::ask(served.at));
            wait::until("kube-proxy to serve", asked).with_context(|| served.name.clone())?;
        }
        Ok(stage)
    }

    fn start_speakers(&mut self, mode: Mode) -> Result<()> {
        let addresses: Vec<_> = self.services.iter().map(|served| served.at.ip()).collect();
        let speakers: Result<Vec<_>> = match mode {
            Mode::Layer2 => {
                let node = &self.lab.nodes[0];
                addresses.iter().map(|&address| Speaker::proxy(node, address)).collect()
            }
            Mode::Vip => {
                let nodes = self.lab.nodes.iter();
                nodes
                    .map(|node| Speaker::keepalived(&self.lab, node, &addresses))
                    .collect()
            }
        };
        self.speakers = speakers?;
        Ok(())
    }

    /// What is served.
    #[must_use]
    pub fn services(&self) -> &[Served] {
        &self.services
    }

    /// Runs `act`; if it fails, what agents and controller said last goes with the failure.
    ///
    /// # Errors
    /// With that of `act`.
    pub fn hold<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        act(self).map_err(|error| {
            let controller = self.controller.as_ref().map(Process::log).unwrap_or_default();
            error.context(agent::last_words(&self.lab) + &controller)
        })
    }

    /// Makes the Eip of a family, a Service that all pods are behind and one whose packets stay on the node they come to, and
    /// writes into them what OpenELB writes. Every address is one for which OpenELB chooses the first node.
    fn is_left_by_openelb(&mut self, family: Family, mode: Mode) -> Result<()> {
        let kubectl = self.control_plane.kubectl();
        let eip = format!("lan-{family}").to_lowercase();
        let manifest = manifests::eip(&eip, address::vip_network(family));
        kubectl.apply(&manifest.replace("layer2", mode.protocol()))?;
        let nodes = || self.lab.nodes.iter().map(|node| node.name.as_str());
        let first = Some(self.lab.nodes[0].name.as_str());
        let mut addresses = (2..=250)
            .map(|number| vip(family, number))
            .filter(|address| election::owner(nodes(), *address) == first);
        let mut used = json!({});
        for policy in ["Cluster", "Local"] {
            let address = addresses.next().context("no address of the first node")?;
            let name = format!("{policy}-{family}").to_lowercase();
            let service = Service::new(&name)
                .from_eip(&eip, family)
                .with_spec(format!("externalTrafficPolicy: {policy}"));
            kubectl.apply(&service.with(self.lab.pods()))?;
            let of_service = format!("service {name}");
            kubectl.patch(
                &of_service,
                &json!({"metadata": {
                    "labels": {LABEL: &eip}, "finalizers": ["finalizer.lb.kubesphere.io/v1alpha1"],
                }}),
            )?;
            kubectl.patch_status(&of_service, &json!({"loadBalancer": {"ingress": [{"ip": address}]}}))?;
            used[address.to_string()] = json!(format!("default/{name}"));
            self.services.push(Served {
                name,
                at: SocketAddr::new(address, HTTP),
            });
        }
        let of_eip = format!("eip {eip}");
        kubectl.patch(
            &of_eip,
            &json!({"metadata": {"finalizers": ["finalizer.ipam.kubesphere.io/v1alpha1"]}}),
        )?;
        kubectl.patch_status(&of_eip, &json!({"used": used, "usage": 2, "ready": true}))
    }

    /// Starts a controller with its rights.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_controller(&mut self) -> Result<()> {
        let kubeconfig = self.control_plane.give_controller_rights()?;
        self.controller = Some(self.control_plane.start_controller(&kubeconfig, "taking-over", &[])?);
        Ok(())
    }

    /// Starts agents on these nodes, by place.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_agents(&mut self, nodes: impl RangeBounds<usize>) -> Result<()> {
        self.control_plane.give_agent_rights()?;
        for (_, node) in self.lab.nodes.iter().enumerate().filter(|(at, _)| nodes.contains(at)) {
            let rights = self.control_plane.as_agent_of(&node.name)?;
            let agent = Agent::launch_in_cluster(&self.lab, node, rights.kubeconfig())?;
            self.agents.push(agent);
        }
        Ok(())
    }

    /// Starts an agent on the node at this place that may not read what it needs, and kills it when it has said so.
    ///
    /// # Errors
    /// When it does not say so.
    pub fn try_in_vain(&self, at: usize) -> Result<()> {
        let node = &self.lab.nodes[at];
        let without_rights = self.control_plane.kubectl_as("kube-system", "kube-proxy")?;
        let agent = Agent::launch_in_cluster(&self.lab, node, without_rights.kubeconfig())?;
        wait::until("the agent to be refused", || {
            let log = agent.log();
            ensure!(log.contains("forbidden"), "{log}");
            Ok(())
        })?;
        agent.kill()
    }

    /// Returns when each agent has made its plan true.
    ///
    /// # Errors
    /// When one does not.
    pub fn wait_for_agents(&mut self) -> Result<()> {
        let Self { agents, lab, .. } = self;
        agents.iter_mut().try_for_each(|agent| agent.wait_until_ready(lab))
    }

    /// Kills the agent at this place, as a crash would, and returns when another is ready there.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn replace_agent(&mut self, at: usize) -> Result<()> {
        self.agents.remove(at).kill()?;
        let node = &self.lab.nodes[at];
        let rights = self.control_plane.as_agent_of(&node.name)?;
        let agent = Agent::launch_in_cluster(&self.lab, node, rights.kubeconfig())?;
        self.agents.insert(at, agent);
        self.wait_for_agents()
    }

    /// What the agents at this place have said.
    #[must_use]
    pub fn log_of_agent(&self, at: usize) -> String {
        self.agents.get(at).map(Agent::log).unwrap_or_default()
    }

    /// Whether Weir serves: pods see the clients themselves, which kube-proxy hides, and every Service has the address it had.
    ///
    /// # Errors
    /// When it does not, within the usual patience.
    pub fn is_taken_over(&self) -> Result<()> {
        for served in &self.services {
            wait::until("pods to see their clients", || {
                let answer = self.lab.client.run(|| client::ask(served.at))?;
                ensure!(answer.client == answer.local, "{}: {answer:?}", served.name);
                Ok(())
            })?;
            let found = self.control_plane.kubectl().get(&format!("service {}", served.name))?;
            let shown = &found["status"]["loadBalancer"]["ingress"];
            ensure!(
                shown[0]["ip"] == Value::String(served.at.ip().to_string()),
                "{} has {shown} now",
                served.name
            );
        }
        Ok(())
    }
}
