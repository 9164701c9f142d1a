//! Makes the namespaces, devices, addresses and routes of a lab, in a handful of batches.
//!
//! What is unusual, and why:
//! - The client does not leave checksums to its device, nor do the switch ports: what reaches a node must look as it
//!   would coming from a cable, because XDP sees the bytes.
//! - The switch ports run an XDP program: see [`super::port_program`].
//! - No duplicate address detection, no multicast snooping: both only cost start-up time here.

use super::{
    Family, Lab, Namespace, Node, Pod,
    address::{self, FAMILIES, host_length, network_length},
    cable, namespace, port_program,
};
use anyhow::{Context, Result};
use std::{fmt::Write as _, fs, net::IpAddr};

/// Builds everything of `lab`.
///
/// # Errors
/// When a command fails.
pub fn build(lab: &Lab) -> Result<()> {
    make_namespaces(lab)?;
    make_links(lab)?;
    lab.client.ip_batch(&client_commands())?;
    lab.stranger.ip_batch(&up(&["eth0"]))?;
    lab.router.ip_batch(&router_commands(lab))?;
    for node in &lab.nodes {
        node.namespace.ip_batch(&node_commands(lab, node))?;
        for pod in &node.pods {
            pod.namespace.ip_batch(&pod_commands(pod))?;
        }
    }
    set_features(lab)
}

fn make_namespaces(lab: &Lab) -> Result<()> {
    let mut lines = String::new();
    for namespace in namespaces(lab) {
        writeln!(lines, "netns add {}", namespace.name())?;
    }
    namespace::ip_batch(&[], &lines)?;
    namespaces(lab).try_for_each(|namespace| {
        let routers = lab.nodes.iter().map(|node| &node.namespace).chain([&lab.router]);
        let routes = routers.map(Namespace::name).any(|router| router == namespace.name());
        namespace.run(|| set_kernel_options(routes))
    })
}

fn namespaces(lab: &Lab) -> impl Iterator<Item = &Namespace> {
    let nodes = lab.nodes.iter().map(|node| &node.namespace);
    [&lab.client, &lab.router, &lab.stranger]
        .into_iter()
        .chain(nodes)
        .chain(lab.pods().map(|pod| &pod.namespace))
}

/// Has to come before any device exists: devices copy the defaults.
fn set_kernel_options(routes: bool) -> Result<()> {
    let mut options = vec![
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ];
    if routes {
        options.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ]);
    }
    for (option, value) in options {
        let file = format!("/proc/sys/net/{option}");
        fs::write(&file, value).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

fn make_links(lab: &Lab) -> Result<()> {
    let mut lines = String::new();
    let mtu = lab.shape().mtu;
    let router = lab.router.name();
    writeln!(
        lines,
        "link add lan netns {router} mtu {mtu} type bridge mcast_snooping 0 stp_state 0"
    )?;
    let client = lab.client.name();
    writeln!(
        lines,
        "link add eth0 netns {client} mtu {mtu} type veth peer name client netns {router} mtu {mtu}"
    )?;
    let (stranger, mac) = (
        lab.stranger.name(),
        address::STRANGER_MAC.map(|byte| format!("{byte:02x}")).join(":"),
    );
    writeln!(
        lines,
        "link add eth0 netns {stranger} address {mac} mtu {mtu} type veth peer name stranger netns {router} mtu {mtu}"
    )?;
    for node in &lab.nodes {
        let name = node.namespace.name();
        lines += &cable::making(lab, node);
        for pod in &node.pods {
            let (pod_name, device) = (pod.namespace.name(), pod_device(pod));
            writeln!(
                lines,
                "link add eth0 netns {pod_name} mtu {mtu} type veth peer name {device} netns {name} mtu {mtu}"
            )?;
        }
    }
    namespace::ip_batch(&[], &lines)
}

/// Adds a host to the LAN of a lab that is up: its namespace, one device, an address of each family, and the router as its way
/// to everywhere else. `port` is the name of its switch port.
///
/// # Errors
/// When a command fails.
pub(crate) fn add_host(lab: &Lab, host: &Namespace, port: &str, address: impl Fn(Family) -> IpAddr) -> Result<()> {
    let (name, router, mtu) = (host.name(), lab.router.name(), lab.shape().mtu);
    namespace::ip_batch(&[], &format!("netns add {name}\n"))?;
    host.run(|| set_kernel_options(false))?;
    let link = format!("link add eth0 netns {name} mtu {mtu} type veth peer name {port} netns {router} mtu {mtu}\n");
    namespace::ip_batch(&[], &link)?;
    lab.router
        .ip_batch(&(format!("link set {port} master lan\n") + &up(&[port])))?;
    let mut lines = up(&["lo", "eth0"]);
    for family in FAMILIES {
        lines += &add_address(address(family), network_length(family), "eth0");
        lines += &format!("route add default via {}\n", address::router(family));
    }
    host.ip_batch(&lines)
}

fn client_commands() -> String {
    let mut lines = up(&["lo", "eth0"]);
    for family in FAMILIES {
        lines += &add_address(address::client(family), network_length(family), "eth0");
        lines += &format!("route add default via {}\n", address::router_outside(family));
    }
    lines
}

fn router_commands(lab: &Lab) -> String {
    let mut lines = String::new();
    for port in lab.nodes.iter().map(|node| node.name.as_str()).chain(["stranger"]) {
        lines += &format!("link set {port} master lan\n");
        lines += &up(&[port]);
    }
    lines += &up(&["lo", "lan", "client"]);
    for family in FAMILIES {
        lines += &add_address(address::router_outside(family), network_length(family), "client");
        lines += &add_address(address::router(family), network_length(family), "lan");
        // On-link: the router asks the LAN who has a VIP.
        lines += &format!("route add {} dev lan\n", address::vip_network(family));
        for node in &lab.nodes {
            lines += &route_to_pods(family, node);
        }
    }
    lines
}

fn node_commands(lab: &Lab, node: &Node) -> String {
    let mut lines = up(&["lo"]) + &cable::configuring(lab, node, "eth0");
    for pod in &node.pods {
        let device = pod_device(pod);
        lines += &up(&[&device]);
        for family in FAMILIES {
            let length = match family {
                Family::V4 => host_length(family),
                Family::V6 => network_length(family),
            };
            lines += &add_address(address::pod_gateway(family, node.number), length, &device);
            lines += &format!(
                "route add {}/{} dev {device}\n",
                pod.address(family),
                host_length(family)
            );
        }
    }
    lines
}

fn pod_commands(pod: &Pod) -> String {
    let mut lines = up(&["lo", "eth0"]);
    for family in FAMILIES {
        lines += &add_address(pod.address(family), host_length(family), "eth0");
        lines += &format!(
            "route add default via {} dev eth0 onlink\n",
            address::pod_gateway(family, pod.node_number)
        );
    }
    lines
}

fn set_features(lab: &Lab) -> Result<()> {
    lab.client.output("ethtool -K eth0 tx off")?;
    port_program::attach(&lab.router, lab.nodes.iter().map(|node| node.name.as_str()))?;
    for node in &lab.nodes {
        lab.router.output(&format!("ethtool -K {} tx off", node.name))?;
        for pod in &node.pods {
            // What the node itself sends to its pods may be left unfinished: nothing looks at it on the way.
            if !lab.shape().pod_offload {
                pod.namespace.output("ethtool -K eth0 tx off")?;
            }
        }
    }
    Ok(())
}

/// Name of the node's end of a pod's link.
fn pod_device(pod: &Pod) -> String {
    format!("pod-{}", pod.number)
}

pub(crate) fn up(devices: &[&str]) -> String {
    devices.iter().map(|device| format!("link set {device} up\n")).collect()
}

pub(crate) fn add_address(address: IpAddr, length: u8, device: &str) -> String {
    let no_detection = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {address}/{length} dev {device}{no_detection}\n")
}

pub(super) fn route_to_pods(family: Family, node: &Node) -> String {
    format!(
        "route add {} via {}\n",
        address::pod_network(family, node.number),
        node.address(family)
    )
}
