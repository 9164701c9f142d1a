//! The lab of a survival run: every node is a next hop of the VIPs, and all but the last have backends.

use super::{
    connections::{Connections, Wanted},
    members::Members,
    pods::Pods,
};
use crate::lab::{
    Agent, FAMILIES, Lab, Node, Shape,
    address::vip_network,
    manifests::{self, Endpoint},
    status::Status,
    wait,
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, fs};

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Connections held open.
    pub connections: usize,
    /// Requests per second over all of them.
    pub rate: u32,
    /// Nodes; the last has no backends and can die without taking a connection's other end with it.
    pub nodes: u8,
    /// Pods of each node.
    pub pods_per_node: u8,
    /// Services, each with a VIP of both families.
    pub services: u16,
}

/// Agents, pods and connections at work.
#[derive(Debug)]
pub struct Arena {
    /// The client's ends; first, because they end first.
    pub connections: Connections,
    /// Running agents, in the order of the nodes; `None` for one that is dead.
    pub agents: Vec<Option<Agent>>,
    /// The pods' ends.
    pub pods: Pods,
    /// Who is listed.
    pub members: Members,
    /// The network.
    pub lab: Lab,
}

/// What is not listed at the beginning, so that a backend can be added.
const SPARE: usize = 2;

impl Arena {
    /// Builds everything and opens the connections.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn new(scale: Scale) -> Result<Self> {
        let lab = Lab::new(Shape {
            nodes: scale.nodes,
            pods_per_node: scale.pods_per_node,
            ..Shape::default()
        })?;
        lab.router
            .output("sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1")?;
        // A switch floods what is for a host that is gone, and NICs ignore it. Here no NIC would, and each node would forward
        // a copy.
        let no_floods = lab
            .nodes
            .iter()
            .map(|node| format!("link set {} type bridge_slave flood off\n", node.name));
        lab.router.ip_batch(&no_floods.collect::<String>())?;
        let everybody: Vec<&Node> = lab.nodes.iter().collect();
        route_over(&lab, &everybody)?;
        let eips = FAMILIES.map(|family| manifests::eip(&format!("lan-{family}").to_lowercase(), vip_network(family)));
        lab.apply("eips.yaml", &eips.concat())?;
        let (_, serving) = lab.nodes.split_last().context("a run needs nodes")?;
        let backends: Vec<_> = serving.iter().flat_map(|node| node.pods.clone()).collect();
        let members = Members::new(scale.services, backends);
        let listed = members.pods().len() - SPARE;
        members.change(&lab, |pods| {
            pods.extend((0..listed).map(|place| (place, Endpoint::Ready)))
        })?;
        let pods = Pods::start(&lab, scale.services)?;
        let agents = Agent::start_everywhere(&lab)?.into_iter().map(Some).collect();
        let wanted = Wanted {
            targets: members.targets(),
            connections: scale.connections,
            rate: scale.rate,
        };
        Ok(Self {
            connections: Connections::open(&lab.client, wanted)?,
            agents,
            pods,
            members,
            lab,
        })
    }

    /// Waits until the agents that run have programmed what the slices say now.
    ///
    /// # Errors
    /// When they do not.
    pub fn programmed(&self) -> Result<()> {
        let (ready, terminating) = (
            self.members.count(Endpoint::Ready),
            self.members.count(Endpoint::Terminating),
        );
        let running = self
            .lab
            .nodes
            .iter()
            .zip(&self.agents)
            .filter(|(_, agent)| agent.is_some());
        for (node, _) in running {
            wait::until("the slices to be programmed", || {
                let status = Status::of(&self.lab, node)?;
                for target in self.members.targets() {
                    let backends = &status.tcp(target)?.backends;
                    let count = |state: &str| backends.iter().filter(|backend| backend.state == state).count();
                    ensure!(
                        (count("serving"), count("draining")) == (ready, terminating),
                        "{}: {target} has {backends:?}",
                        node.name
                    );
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Packets counted so far on all nodes, by reason.
    ///
    /// # Errors
    /// When a node does not say.
    pub fn reasons(&self) -> Result<BTreeMap<String, u64>> {
        let mut sums = BTreeMap::new();
        for node in &self.lab.nodes {
            for reason in Status::of(&self.lab, node)?.reasons {
                *sums.entry(reason.name).or_default() += reason.packets;
            }
        }
        Ok(sums)
    }
}

/// Makes these nodes the router's next hops for all VIPs, chosen by a hash of the 5-tuple.
///
/// # Errors
/// When the router refuses.
pub fn route_over(lab: &Lab, nodes: &[&Node]) -> Result<()> {
    let mut lines = String::new();
    for family in FAMILIES {
        let hops: String = nodes
            .iter()
            .map(|node| format!(" nexthop via {} dev lan", node.address(family)))
            .collect();
        lines += &format!("route replace {}{hops}\n", vip_network(family));
    }
    lab.router.ip_batch(&lines)
}

/// Starts an agent that other nodes need not be reachable for, and waits until it serves.
///
/// # Errors
/// When it does not.
pub fn start_agent(lab: &Lab, node: &Node, arguments: &[&str]) -> Result<Agent> {
    let agent = Agent::launch(lab, node, &[&["--interface", "eth0"], arguments].concat())?;
    wait::until("the agent to serve", || {
        let status = Status::of(lab, node)?;
        ensure!(
            status.pid == agent.id() && status.agent_alive,
            "it has not reported yet"
        );
        ensure!(
            status.interfaces.iter().all(|interface| interface.xdp_mode.is_some()),
            "it runs no program yet"
        );
        ensure!(
            status.frontends.iter().all(|frontend| frontend.id.is_some()),
            "not all is programmed"
        );
        Ok(())
    })
    .with_context(|| {
        format!(
            "the agent of {} said:\n{}",
            node.name,
            fs::read_to_string(lab.directory().join(&node.name).join("agent.log")).unwrap_or_default()
        )
    })?;
    Ok(agent)
}
