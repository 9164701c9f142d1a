//! kube-proxy and Weir on the same nodes, for the same Services: each packet is translated by one of them.

use crate::{cluster::Cluster, health_checks};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
};
use tests::{
    kube::{KubeProxy, ProxyMode},
    lab::{
        FAMILIES, Family, Lab, Namespace,
        address::{self, host_length, vip},
        agent, client,
        manifests::{DNS, HTTP, Service},
        servers::Echo,
        status::Status,
        wait,
    },
};

/// Last part of the addresses of the Service with all pods.
const WEB: u8 = 2;
/// The same of the one with externalTrafficPolicy Local.
const NEAR: u8 = 3;
/// Bytes of a datagram that an interface takes and the tunnel does not; the pod's answer is some longer.
const LARGE: usize = 1420;
/// As many clients as it takes for pods of both nodes to be chosen.
const CLIENTS: usize = 24;

/// [C01 C02 C07 C08]
#[test]
fn c07_beside_kube_proxy_with_nftables() -> Result<()> {
    beside(ProxyMode::Nftables)
}

/// [C01 C02 C07 C08]
#[test]
fn c07_beside_kube_proxy_with_iptables() -> Result<()> {
    beside(ProxyMode::Iptables)
}

fn beside(mode: ProxyMode) -> Result<()> {
    Cluster::play(|cluster| {
        let web = Service::new("web").with_udp();
        let near = Service::new("near").with_spec("externalTrafficPolicy: Local");
        let near_pods = &cluster.lab.nodes[0].pods;
        let kubectl = cluster.control_plane.kubectl();
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        kubectl.apply(&near.with(near_pods))?;
        for (name, number) in [("web", WEB), ("near", NEAR)] {
            cluster.give(name, &FAMILIES.map(|family| vip(family, number)))?;
        }
        let _echoes: Vec<Echo> = cluster.lab.pods().map(Echo::start).collect::<Result<_>>()?;
        let proxies: Vec<KubeProxy> = cluster
            .lab
            .nodes
            .iter()
            .map(|node| KubeProxy::start(&cluster.control_plane, &cluster.lab, node, mode))
            .collect::<Result<_>>()?;
        cluster.start_agents()?;
        for node in &cluster.lab.nodes {
            let said = agent::run(&cluster.lab, node, "check", &["--interface", "eth0", "-o", "json"])?;
            let said: Vec<Value> = serde_json::from_str(&said)?;
            let of_proxy: Vec<_> = said
                .iter()
                .filter(|finding| finding["subject"] == "kube-proxy")
                .collect();
            ensure!(
                matches!(&of_proxy[..], [one] if one["level"] == "ok" && one["says"] == format!("mode {mode}")),
                "{of_proxy:?}"
            );
        }

        for family in FAMILIES {
            outside_by_weir(cluster, family).with_context(|| format!("{family} from outside"))?;
            inside_by_kube_proxy(cluster, family).with_context(|| format!("{family} from inside"))?;
        }
        for family in FAMILIES {
            stood_aside_by_kube_proxy(cluster, family)
                .with_context(|| format!("{family} that Weir stands aside from"))?;
        }
        health_check(cluster)?;

        for running in cluster.agents.drain(..) {
            running.stop()?;
        }
        for node in &cluster.lab.nodes {
            agent::detach(&cluster.lab, node)?;
        }
        for family in FAMILIES {
            alone(cluster, family).with_context(|| format!("{family} without Weir"))?;
        }
        proxies.into_iter().try_for_each(KubeProxy::kill)
    })
}

/// Pods see the client's own address, and no kernel knows a connection from the client to the VIP.
fn outside_by_weir(cluster: &Cluster, family: Family) -> Result<()> {
    let Cluster { lab, .. } = cluster;
    cluster.answered_by(family, WEB, &cluster.pods())?;
    let near: Vec<&str> = lab.nodes[0].pods.iter().map(|pod| pod.name.as_str()).collect();
    cluster.answered_by(family, NEAR, &near)?;
    let mut counted = 0;
    for number in [WEB, NEAR] {
        for _ in 0..CLIENTS {
            let answer = lab.client.run(|| client::ask(Cluster::http(family, number)))?;
            ensure!(answer.client == answer.local, "{answer:?}");
        }
        if number == WEB {
            datagrams(cluster, family)?;
        }
        for node in &lab.nodes {
            let known = connections(&node.namespace, vip(family, number))?;
            ensure!(known.is_empty(), "{} translates {known:?}", node.name);
            counted += Status::of(lab, node)?.tcp(Cluster::http(family, number))?.packets;
        }
    }
    // At least a SYN and an ACK each.
    let expected = 2 * 2 * CLIENTS as u64;
    ensure!(
        counted >= expected,
        "Weir has counted {counted} packets, not {expected}"
    );
    Ok(())
}

/// As many clients as above, by UDP: pods of both nodes answer, and see who asks.
fn datagrams(cluster: &Cluster, family: Family) -> Result<()> {
    let service = SocketAddr::new(vip(family, WEB), DNS);
    let mut seen = BTreeSet::new();
    for _ in 0..CLIENTS {
        let answer = cluster.lab.client.run(|| client::ask_udp(service))?;
        ensure!(answer.client == answer.local, "{answer:?}");
        seen.insert(answer.pod);
    }
    ensure!(seen.iter().eq(cluster.pods()), "only {seen:?} have answered datagrams");
    Ok(())
}

/// A pod and the nodes themselves reach the VIP; their packets do not come in by a NIC.
fn inside_by_kube_proxy(cluster: &Cluster, family: Family) -> Result<()> {
    let lab = &cluster.lab;
    let pod = lab.pods().next().context("no pod")?;
    let nodes = lab.nodes.iter().map(|node| (&node.name, &node.namespace));
    for (name, from) in nodes.chain([(&pod.name, &pod.namespace)]) {
        for number in [WEB, NEAR] {
            wait::until("kube-proxy", || from.run(|| client::ask(Cluster::http(family, number))))
                .with_context(|| format!("{name} asks {}", vip(family, number)))?;
        }
    }
    let known = connections(&lab.nodes[0].namespace, vip(family, WEB))?;
    ensure!(known.contains(&pod.address(family)), "only {known:?} are translated");
    Ok(())
}

/// What Weir leaves to the kernel is served all the same: over IPv4 datagrams that are too big for the tunnel, and may be
/// fragmented, over IPv6 those with more headers than Weir reads.
fn stood_aside_by_kube_proxy(cluster: &Cluster, family: Family) -> Result<()> {
    let lab = &cluster.lab;
    let service = SocketAddr::new(vip(family, WEB), DNS);
    lab.client.run(|| {
        // For sockets made from now on; else they forbid to fragment.
        fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1")?;
        for _ in 0..CLIENTS {
            let socket = client::udp_socket(service)?;
            match family {
                Family::V4 => client::ask_udp_with(&socket, &[b'x'; LARGE])?,
                Family::V6 => {
                    client::add_destination_options(&socket)?;
                    client::ask_udp_again(&socket)?
                }
            };
        }
        Ok(())
    })?;
    let (reason, expected) = match family {
        Family::V4 => ("too_big_for_tunnel", 1),
        Family::V6 => ("extension_headers", CLIENTS as u64),
    };
    let mut aside = 0;
    let mut known = Vec::new();
    for node in &lab.nodes {
        aside += Status::of(lab, node)?.reason(reason)?;
        known.extend(connections(&node.namespace, vip(family, WEB))?);
    }
    ensure!(aside >= expected, "Weir has stood aside from {aside} packets");
    ensure!(
        known.contains(&address::client(family)),
        "only {known:?} are translated"
    );
    Ok(())
}

/// kube-proxy says on each node whether a Service has pods there, as agents do where it does not run.
fn health_check(cluster: &Cluster) -> Result<()> {
    let near = cluster.control_plane.kubectl().get("service near")?;
    let port = near["spec"]["healthCheckNodePort"].as_u64();
    let port = port.context("no health check")?.try_into()?;
    health_checks::are_told(cluster, ("near", port), &[Some(1), Some(0)])
}

/// Without Weir nobody answers for the VIP, so the router is told a way; from there on it is kube-proxy's.
fn alone(cluster: &Cluster, family: Family) -> Result<()> {
    let Cluster { lab, .. } = cluster;
    let way = lab.node("node-1")?.address(family);
    let route = format!("route add {}/{} via {way}\n", vip(family, WEB), host_length(family));
    lab.router.ip_batch(&route)?;
    let address = SocketAddr::new(vip(family, WEB), HTTP);
    let answer = wait::until("an answer", || lab.client.run(|| client::ask(address)))?;
    ensure!(cluster.pods().contains(&answer.pod.as_str()), "{answer:?}");
    let known = connections(&lab.nodes[0].namespace, vip(family, WEB))?;
    ensure!(
        known.contains(&address::client(family)),
        "only {known:?} are translated"
    );
    untouched(lab)
}

/// No program is left on a node, neither XDP nor tcx nor tc.
fn untouched(lab: &Lab) -> Result<()> {
    for node in &lab.nodes {
        ensure!(!agent::has_programs(node)?, "a program is left on {}", node.name);
    }
    Ok(())
}

/// Who has connections to `destination` that conntrack of a namespace knows, by the addresses they were begun with.
fn connections(namespace: &Namespace, destination: IpAddr) -> Result<Vec<IpAddr>> {
    let table = namespace.run(|| Ok(fs::read_to_string("/proc/thread-self/net/nf_conntrack")?))?;
    // The first source and destination of a line are those of the first packet.
    let first = |line: &str, name: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.parse().ok())
    };
    let of_destination = table
        .lines()
        .filter(|line| first(line, "dst=") == Some(destination))
        .filter_map(|line| first(line, "src="));
    Ok(of_destination.collect())
}
