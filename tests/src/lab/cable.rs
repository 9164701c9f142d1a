//! The nodes' cables: `eth0` to the LAN, which a test may pull out and plug in again, and `eth1` to a second LAN, for
//! tests that want one. The second LAN is a bridge `lan-b` inside router; its switch ports are `node-N-b`.

use super::{
    FAMILIES, Lab, Node,
    address::{self, network_length},
    namespace, port_program,
    topology::{add_address, route_to_pods, up},
};
use anyhow::Result;

/// The router's interface on the second LAN.
pub const SECOND_LAN: &str = "lan-b";

/// Takes `eth0` of `node` away, and with it the switch port, as a driver does that is unloaded.
///
/// # Errors
/// When there is none.
pub fn pull(node: &Node) -> Result<()> {
    node.namespace.ip_batch("link del eth0\n")
}

/// Makes `eth0` of `node` as the lab had it, with another index; returns when it is up and has its addresses and routes.
///
/// # Errors
/// When a command fails.
pub fn plug(lab: &Lab, node: &Node) -> Result<()> {
    namespace::ip_batch(&[], &making(lab, node))?;
    let port = &node.name;
    lab.router
        .ip_batch(&(format!("link set {port} master lan\n") + &up(&[port])))?;
    lab.router.output(&format!("ethtool -K {port} tx off"))?;
    port_program::attach(&lab.router, std::iter::once(port.as_str()))?;
    node.namespace.ip_batch(&configuring(lab, node, "eth0"))
}

/// Gives every node an `eth1` on a second LAN, where the router is, too.
///
/// # Errors
/// When a command fails.
pub fn add_second_lan(lab: &Lab) -> Result<()> {
    let (router, mtu) = (lab.router.name(), lab.shape().mtu);
    let mut making =
        format!("link add {SECOND_LAN} netns {router} mtu {mtu} type bridge mcast_snooping 0 stp_state 0\n");
    let mut ports = up(&[SECOND_LAN]);
    for node in &lab.nodes {
        let (name, port) = (node.namespace.name(), second_port(node));
        making +=
            &format!("link add eth1 netns {name} mtu {mtu} type veth peer name {port} netns {router} mtu {mtu}\n");
        ports += &(format!("link set {port} master {SECOND_LAN}\n") + &up(&[&port]));
    }
    namespace::ip_batch(&[], &making)?;
    for family in FAMILIES {
        ports += &add_address(address::second_router(family), network_length(family), SECOND_LAN);
    }
    lab.router.ip_batch(&ports)?;
    for node in &lab.nodes {
        let mut lines = up(&["eth1"]);
        for family in FAMILIES {
            lines += &add_address(address::second(family, node.number), network_length(family), "eth1");
        }
        node.namespace.ip_batch(&lines)?;
        lab.router.output(&format!("ethtool -K {} tx off", second_port(node)))?;
    }
    let names: Vec<String> = lab.nodes.iter().map(second_port).collect();
    port_program::attach(&lab.router, names.iter().map(String::as_str))
}

/// Name of the switch port of the node's `eth1`.
pub fn second_port(node: &Node) -> String {
    format!("{}-b", node.name)
}

/// The command that makes `eth0` and its switch port.
pub(super) fn making(lab: &Lab, node: &Node) -> String {
    let (name, port, mac) = (node.namespace.name(), &node.name, node.mac());
    let (router, mtu) = (lab.router.name(), lab.shape().mtu);
    format!("link add eth0 netns {name} address {mac} mtu {mtu} type veth peer name {port} netns {router} mtu {mtu}\n")
}

/// The commands for the node that give the node's addresses and routes to `device`.
pub(super) fn configuring(lab: &Lab, node: &Node, device: &str) -> String {
    let mut lines = up(&[device]);
    for family in FAMILIES {
        lines += &add_address(node.address(family), network_length(family), device);
        lines += &format!("route add default via {}\n", address::router(family));
        for other in lab.nodes.iter().filter(|other| other.number != node.number) {
            lines += &route_to_pods(family, other);
        }
    }
    lines
}
