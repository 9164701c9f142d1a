//! What connection tracking translates, as the kernel tells it.

use anyhow::{Context, Result, ensure};
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};
use tests::lab::{
    FAMILIES, Family, Lab, Namespace, Node, Shape, address, client,
    nat::Nat,
    servers::{ECHO_PORT, Echo, WEB_PORT, Web},
    wait,
};
use weir::source::conntrack::{self, TranslatedFlow};
use weir_core::model::Protocol;

/// Other than the ports of the pods.
const PORT: u16 = 80;

/// Beside the translated flows there are, in both families, a connection to the node itself and a UDP flow straight to
/// the pod, which the node tracks as well.
#[test]
fn flows_to_a_translated_destination_are_known_until_they_end() -> Result<()> {
    let lab = Lab::new(Shape {
        nodes: 1,
        pods_per_node: 1,
        ..Shape::default()
    })?;
    let node = &lab.nodes[0];
    let pod = &node.pods[0];
    let (_web, _echo) = (Web::start(&lab, pod)?, Echo::start(pod)?);
    ensure!(
        translated(&node.namespace)?.is_empty(),
        "something is translated without rules"
    );
    let _rules: Vec<Nat> = FAMILIES
        .map(|family| serve(node, family))
        .into_iter()
        .collect::<Result<_>>()?;
    let _listener = node.namespace.run(|| Ok(TcpListener::bind(("::", PORT))?))?;

    let (mut tcp, mut udp, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for family in FAMILIES {
        let service = SocketAddr::new(vip(family), PORT);
        let to_node = SocketAddr::new(node.address(family), PORT);
        let to_pod = SocketAddr::new(pod.address(family), ECHO_PORT);
        lab.client.run(|| {
            tcp.push(client::connect(service)?);
            udp.push(client::udp_socket(service)?);
            others.push((client::connect(to_node)?, client::udp_socket(to_pod)?));
            Ok(())
        })?;
    }
    for connection in &mut tcp {
        client::ask_on(connection)?;
    }
    let tcp_flows = flows(tcp.iter().map(ends_of_tcp), Protocol::Tcp)?;
    let udp_flows = flows(udp.iter().map(ends_of_udp), Protocol::Udp)?;
    let ask = || {
        udp.iter()
            .chain(others.iter().map(|(_, udp)| udp))
            .try_for_each(|udp| client::ask_udp_again(udp).map(drop))
    };

    ask()?;
    let all: HashSet<_> = tcp_flows.union(&udp_flows).copied().collect();
    expect(node, &all)?;
    ensure!(all.len() == 4, "{all:?}");
    let tracked = tracked(node)?;
    ensure!(
        tracked >= all.len() + 2 * others.len(),
        "only {tracked} are tracked at all"
    );
    ensure!(translated(&lab.client)?.is_empty(), "the client translates");

    drop(tcp);
    wait::until("the end of the TCP connections", || {
        // Idle ones are forgotten.
        ask()?;
        expect(node, &udp_flows)
    })
}

fn translated(namespace: &Namespace) -> Result<HashSet<TranslatedFlow>> {
    namespace.run(|| Ok(conntrack::translated()?))
}

fn expect(node: &Node, flows: &HashSet<TranslatedFlow>) -> Result<()> {
    let translated = translated(&node.namespace)?;
    ensure!(translated == *flows, "{translated:?} instead of {flows:?}");
    Ok(())
}

/// How many connections the node tracks, whatever becomes of them.
fn tracked(node: &Node) -> Result<usize> {
    let count = node
        .namespace
        .output("cat /proc/sys/net/netfilter/nf_conntrack_count")?;
    count.trim().parse().context("not a number")
}

fn vip(family: Family) -> IpAddr {
    address::vip(family, 9)
}

/// The VIP by TCP to the pod's web server, by UDP to its echo.
fn serve(node: &Node, family: Family) -> Result<Nat> {
    let (pod, vip) = (&node.pods[0], vip(family));
    let nat = Nat::start(node, vip, PORT, &[pod], WEB_PORT)?;
    let table = if vip.is_ipv4() { "ip" } else { "ip6" };
    let target = SocketAddr::new(pod.address(family), ECHO_PORT);
    let rule = format!("nft add rule {table} lab incoming {table} daddr {vip} udp dport {PORT} dnat to {target}");
    node.namespace.output(&rule)?;
    Ok(nat)
}

type Ends = std::io::Result<(SocketAddr, SocketAddr)>;

fn ends_of_tcp(socket: &TcpStream) -> Ends {
    Ok((socket.local_addr()?, socket.peer_addr()?))
}

fn ends_of_udp(socket: &UdpSocket) -> Ends {
    Ok((socket.local_addr()?, socket.peer_addr()?))
}

/// The flows of a client's sockets, as the client sees them.
fn flows(ends: impl Iterator<Item = Ends>, protocol: Protocol) -> Result<HashSet<TranslatedFlow>> {
    ends.map(|ends| {
        let (client, destination) = ends?;
        Ok(TranslatedFlow {
            client,
            destination,
            protocol,
        })
    })
    .collect()
}
