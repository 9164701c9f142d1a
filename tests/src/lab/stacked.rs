//! Nodes whose place on the LAN is no plain cable: a VLAN device on it, or a bond of two. Not every kernel has such devices.

use super::{Lab, Namespace, Node, cable, namespace, port_program, topology::up};
use anyhow::{Context, Result};

/// The VLAN identifier of [`tag`].
const VLAN: u16 = 7;
/// Where every node is on the LAN after [`tag`].
pub const TAGGED: &str = "eth0.7";
/// Where every node is on the LAN after [`bond`].
pub const BOND: &str = "bond0";

/// Moves the LAN into a VLAN: every node's addresses and routes go to [`TAGGED`], and the switch ports send tags.
///
/// # Errors
/// When a command fails, as on a kernel without 8021q.
pub fn tag(lab: &Lab) -> Result<()> {
    for node in &lab.nodes {
        let port = &node.name;
        // The tag belongs into the frame, as on a cable, before XDP sees it.
        lab.router.output(&format!("ethtool -K {port} txvlan off"))?;
        let (plain, tagged) = (format!("link set {port} nomaster\n"), format!("{port}.{VLAN}"));
        lab.router
            .ip_batch(&(plain + &vlan(port, &tagged) + &format!("link set {tagged} master lan\n") + &up(&[&tagged])))?;
        let lines = emptying() + "link set eth0 up\n" + &vlan("eth0", TAGGED) + &cable::configuring(lab, node, TAGGED);
        node.namespace.ip_batch(&lines)?;
    }
    Ok(())
}

fn vlan(parent: &str, name: &str) -> String {
    format!("link add link {parent} name {name} type vlan id {VLAN}\n")
}

/// Gives every node a second cable to the LAN and bonds the two in active-backup mode: [`BOND`] takes the node's addresses and
/// routes, `eth0` is active first.
///
/// # Errors
/// When a command fails, as on a kernel without bonding.
pub fn bond(lab: &Lab) -> Result<()> {
    let (router, mtu) = (lab.router.name(), lab.shape().mtu);
    for node in &lab.nodes {
        let (name, port) = (node.namespace.name(), cable::second_port(node));
        namespace::ip_batch(
            &[],
            &format!("link add eth1 netns {name} mtu {mtu} type veth peer name {port} netns {router} mtu {mtu}\n"),
        )?;
        lab.router
            .ip_batch(&(format!("link set {port} master lan\n") + &up(&[&port])))?;
        lab.router.output(&format!("ethtool -K {port} tx off"))?;
        let bonding = format!(
            "link add {BOND} mtu {mtu} type bond mode active-backup miimon 20\n\
             link set eth0 master {BOND}\nlink set eth1 master {BOND}\n"
        );
        node.namespace
            .ip_batch(&(emptying() + &bonding + &cable::configuring(lab, node, BOND)))?;
    }
    let ports: Vec<String> = lab.nodes.iter().map(cable::second_port).collect();
    port_program::attach(&lab.router, ports.iter().map(String::as_str))
}

/// The slave that a node's bond uses.
///
/// # Errors
/// When there is no bond.
pub fn active_slave(node: &Node) -> Result<String> {
    let about = node.namespace.output(&format!("ip -d link show {BOND}"))?;
    let mut words = about.split_whitespace().skip_while(|word| *word != "active_slave");
    let slave = words.nth(1).with_context(|| format!("no active slave: {about}"))?;
    Ok(slave.to_owned())
}

/// Has `device` lose packets it sends, at random.
///
/// # Errors
/// When the kernel has no netem.
pub fn lose(namespace: &Namespace, device: &str, percent: u8) -> Result<()> {
    let line = format!("tc qdisc add dev {device} root netem loss {percent}%");
    namespace.output(&line).map(drop)
}

/// Packets that `device` has lost by [`lose`].
///
/// # Errors
/// When `tc` prints something else than it used to.
pub fn lost(namespace: &Namespace, device: &str) -> Result<u64> {
    let about = namespace.output(&format!("tc -s qdisc show dev {device}"))?;
    let mut words = about.split_whitespace().skip_while(|word| *word != "(dropped");
    let count = words.nth(1).map(|word| word.trim_end_matches(','));
    let count = count.with_context(|| format!("no count of drops: {about}"))?;
    Ok(count.parse()?)
}

/// Takes addresses and routes from `eth0` and leaves it down.
fn emptying() -> String {
    "address flush dev eth0\nlink set eth0 down\n".into()
}
