//! The ways a packet can take through a node, each in a lab of its own.

use super::{
    conntrack,
    generator::{Flows, Generator, Round},
    rules,
};
use crate::{
    bench::services::{self, PORT},
    lab::{Agent, Family, Lab, Node, Shape, address},
    packets::frames::{Ip, Link, Udp},
};
use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path as Folder,
};

/// What a node does with the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The end is at the node itself: what the lab costs.
    Drop,
    /// Sent back by an XDP program that does nothing else.
    Transmit,
    /// Sent to a pod by an XDP program that does nothing else.
    Redirect,
    /// Weir: to a backend on another node, through the tunnel.
    Weir,
    /// Routed to a pod by the kernel.
    Forward,
    /// DNAT and SNAT by iptables-legacy.
    Iptables,
    /// DNAT and SNAT by nftables.
    Nftables,
}

/// The last four bytes are chosen by the flow's number, but for the first of them.
const CLIENT: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);
const CLIENT_PORT: u16 = 0xc000;
const PODS: u8 = 3;

/// A path ready to be used.
#[derive(Debug)]
pub struct Stage {
    path: Path,
    generator: Generator,
    _agent: Option<Agent>,
    frame: Vec<u8>,
    /// The router's ends of the cables to the node and to the reference, by number.
    node: u32,
    reference: u32,
    lab: Lab,
}

impl Path {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "XDP_DROP",
            Self::Transmit => "XDP_TX",
            Self::Redirect => "XDP_REDIRECT",
            Self::Weir => "Weir, tunnel",
            Self::Forward => "kernel forwarding",
            Self::Iptables => "iptables-legacy DNAT+SNAT",
            Self::Nftables => "nftables DNAT+SNAT",
        }
    }

    /// Whether the kernel makes packets of the frames, which takes some ten times as long.
    #[must_use]
    pub fn is_kernels(self) -> bool {
        matches!(self, Self::Forward | Self::Iptables | Self::Nftables)
    }
}

impl Stage {
    /// Sets the path up with so many Services, the last of which gets the packets.
    ///
    /// # Errors
    /// When something is refused.
    pub fn new(path: Path, services: u32, objects: &Folder) -> Result<Self> {
        let lab = Lab::new(Shape {
            nodes: 2,
            pods_per_node: PODS,
            ..Shape::default()
        })?;
        let [node, other] = lab.nodes.as_slice() else {
            anyhow::bail!("the lab has no two nodes");
        };
        // Before anything swallows packets: the agent has to find the other node.
        let agent = match path {
            Path::Weir => Some(start_agent(&lab, node, other, services)?),
            _ => None,
        };
        let mut generator = Generator::load(objects)?;
        lab.router.output(&format!("ip link set dev {} xdp off", node.name))?;
        for port in [node.name.as_str(), "stranger"] {
            generator.attach("end_xdp", &lab.router, port)?;
        }
        generator.attach("reflect", &lab.stranger, "eth0")?;
        let pods: Vec<IpAddr> = node.pods.iter().map(|pod| pod.address(Family::V4)).collect();
        match path {
            Path::Drop => generator.attach("end_xdp", &node.namespace, "eth0")?,
            Path::Transmit => generator.attach("reflect", &node.namespace, "eth0")?,
            Path::Redirect => {
                generator.attach("redirect", &node.namespace, "eth0")?;
                generator.attach("end_xdp", &node.pods[0].namespace, "eth0")?;
                generator.redirect_to(node.namespace.run(|| Ok(if_nametoindex("pod-1")?))?)?;
            }
            Path::Weir => {}
            Path::Forward => {}
            Path::Iptables => rules::iptables(&node.namespace, services, &pods)?,
            Path::Nftables => rules::nftables(&node.namespace, services, &pods)?,
        }
        if path.is_kernels() {
            // Frames from XDP are taken by a device without a program only if it does GRO.
            node.namespace.output("ethtool -K eth0 gro on")?;
            for pod in &node.pods {
                generator.end_packets(&pod.namespace, "eth0")?;
            }
        }
        let destination = match path {
            Path::Forward => pods[0],
            _ => services::vip(services.saturating_sub(1)).into(),
        };
        let port = |name: &str| lab.router.run(|| Ok(if_nametoindex(name)?));
        Ok(Self {
            path,
            frame: frame(destination, address::node_mac_bytes(node.number)),
            node: port(&node.name)?,
            reference: port("stranger")?,
            generator,
            _agent: agent,
            lab,
        })
    }

    /// Sends `packets` packets through the path.
    ///
    /// # Errors
    /// When none arrives.
    pub fn round(&mut self, flows: Flows, packets: u32) -> Result<Round> {
        let round = self
            .generator
            .round(&self.lab.router, self.node, &self.frame, flows, packets);
        let round = round.with_context(|| self.path.name())?;
        if matches!(self.path, Path::Iptables | Path::Nftables) && flows == Flows::New {
            conntrack::forget(&self.lab.nodes[0].namespace)?;
        }
        Ok(round)
    }

    /// Sends `packets` packets through the plain `XDP_TX` that stands beside every path.
    ///
    /// # Errors
    /// When none arrives.
    pub fn reference(&mut self, flows: Flows, packets: u32) -> Result<Round> {
        self.generator
            .round(&self.lab.router, self.reference, &self.frame, flows, packets)
    }
}

fn start_agent(lab: &Lab, node: &Node, other: &Node, services: u32) -> Result<Agent> {
    let endpoints: Vec<_> = other
        .pods
        .iter()
        .map(|pod| (pod.address(Family::V4), other.name.as_str()))
        .collect();
    let yaml =
        (0..services).map(|number| services::service(number, "UDP") + &services::slice(number, "UDP", &endpoints));
    lab.apply_to(
        node,
        "services.yaml",
        &(services::EIP.to_owned() + &yaml.collect::<String>()),
    )?;
    Agent::start(lab, node)
}

/// 60 bytes, UDP without a checksum, so that a flow's own ports need no new one.
fn frame(destination: IpAddr, node: [u8; 6]) -> Vec<u8> {
    let datagram = Udp::new(CLIENT_PORT, PORT, &[0; 18]).unchecked();
    let frame =
        Link::between(address::STRANGER_MAC, node).carry(&Ip::between(CLIENT.into(), destination).carry(&datagram));
    debug_assert_eq!(frame.len(), 60);
    frame
}
