//! What most tests start from: a lab with servers in all pods, an Eip of each family, one Service, and agents.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use tests::lab::{
    Agent, FAMILIES, Family, Lab, Node, Pod, Shape,
    address::{self, vip},
    agent,
    frames::Wire,
    manifests::{self, DNS, HTTP, Service},
    servers::{self, Echo, Web},
    status::Status,
    traffic::Download,
};

/// Last part of the addresses of the Service `web`.
const WEB: u8 = 2;

/// A lab at work.
pub struct Scene {
    /// Running agents, in the order of the nodes; before the lab, so that they end first.
    pub agents: Vec<Agent>,
    /// Web servers, in the order of the pods.
    pub webs: Vec<Web>,
    _echoes: Vec<Echo>,
    /// The network.
    pub lab: Lab,
}

impl Scene {
    /// Runs `act` with all pods behind the Service `web` and an agent on each node.
    pub fn play(shape: Shape, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        Self::without_agents(shape)?.then(|scene| {
            scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
            scene.agents = Agent::start_everywhere(&scene.lab)?;
            act(scene)
        })
    }

    /// Runs `act`; if it fails, what the agents said last goes with the failure.
    pub fn then(mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        act(&mut self).map_err(|error| error.context(agent::last_words(&self.lab)))
    }

    /// Everything but agents, and no Service yet.
    pub fn without_agents(shape: Shape) -> Result<Self> {
        let lab = Lab::new(shape)?;
        let webs = servers::start_web_everywhere(&lab)?;
        let _echoes = lab.pods().map(Echo::start).collect::<Result<_>>()?;
        lab.apply("eips.yaml", &eips())?;
        Ok(Self {
            agents: Vec::new(),
            webs,
            _echoes,
            lab,
        })
    }

    /// The Service `web` over TCP.
    pub fn http(family: Family) -> SocketAddr {
        SocketAddr::new(vip(family, WEB), HTTP)
    }

    /// The Service `web` over UDP.
    pub fn dns(family: Family) -> SocketAddr {
        SocketAddr::new(vip(family, WEB), DNS)
    }

    /// The node that answers for the Service `web`, as a stranger on the LAN finds out.
    pub fn owner(&self, family: Family) -> Result<&Node> {
        let answers = Wire::of_stranger(&self.lab)?.who_has(vip(family, WEB), address::stranger(family))?;
        let [mac] = answers.as_slice() else {
            anyhow::bail!("{} answer for {}: {answers:?}", answers.len(), vip(family, WEB));
        };
        let node = self.lab.nodes.iter().find(|node| node.mac() == *mac);
        node.with_context(|| format!("{mac} is no node's address"))
    }

    /// What the agent of `node` reports.
    pub fn status(&self, node: &Node) -> Result<Status> {
        Status::of(&self.lab, node)
    }

    /// Slow downloads, at least one from each pod that `wanted` says yes to.
    pub fn downloads(&self, family: Family, file: &str, wanted: impl Fn(&Pod) -> bool) -> Result<Vec<Download>> {
        let mut missing: Vec<&Pod> = self.lab.pods().filter(|pod| wanted(pod)).collect();
        let mut downloads = Vec::new();
        for _ in 0..200 {
            if missing.is_empty() {
                return Ok(downloads);
            }
            let download = Download::start(&self.lab.client, Self::http(family), &format!("/files/{file}"))?;
            if missing.iter().any(|pod| pod.name == download.pod) {
                missing.retain(|pod| pod.name != download.pod);
                downloads.push(download);
            }
        }
        anyhow::bail!("200 connections, and none at {missing:?}")
    }
}

/// An Eip of each family.
pub fn eips() -> String {
    FAMILIES
        .map(|family| manifests::eip(&format!("lan-{family}").to_lowercase(), address::vip_network(family)))
        .concat()
}

/// The Service `web`.
pub fn web() -> Service {
    Service::new("web")
        .with_udp()
        .at(FAMILIES.map(|family| vip(family, WEB)))
}

/// Waits for the downloads and compares what came.
pub fn all_whole(downloads: Vec<Download>, length: usize) -> Result<()> {
    for download in downloads {
        let pod = download.pod.clone();
        ensure!(
            download.finish()? == servers::content(length),
            "the file from {pod} was harmed"
        );
    }
    Ok(())
}
