//! kube-proxy on a node, with which Weir has to live.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use tests::{
    kube::{ControlPlane, KubeProxy, ProxyMode},
    lab::{
        Family, Lab, Shape,
        address::{host_length, vip},
        client,
        manifests::{HTTP, Service},
        servers, wait,
    },
};

#[test]
fn programs_an_ingress_address_by_nftables() -> Result<()> {
    programs_an_ingress_address(ProxyMode::Nftables)
}

#[test]
fn programs_an_ingress_address_by_iptables() -> Result<()> {
    programs_an_ingress_address(ProxyMode::Iptables)
}

/// A client outside reaches pods by the ingress address, which the router sends to one node.
fn programs_an_ingress_address(mode: ProxyMode) -> Result<()> {
    let lab = Lab::new(Shape {
        nodes: 2,
        pods_per_node: 1,
        ..Shape::default()
    })?;
    let _webs = servers::start_web_everywhere(&lab)?;
    let control_plane = ControlPlane::start_in(&lab)?;
    let node = lab.node("node-1")?;
    let proxy = KubeProxy::start(&control_plane, &lab, node, mode)?;

    let service = Service::new("web");
    control_plane.kubectl().apply(&service.with(lab.pods()))?;
    let addresses = [Family::V4, Family::V6].map(|family| (family, vip(family, 2)));
    let ingress: Vec<String> = addresses.iter().map(|(_, vip)| format!("{{ip: \"{vip}\"}}")).collect();
    let status = format!(
        "{}status: {{loadBalancer: {{ingress: [{}]}}}}\n",
        service.yaml().trim_end_matches("---\n"),
        ingress.join(", ")
    );
    control_plane
        .kubectl()
        .run_with("apply --server-side --force-conflicts --subresource=status", &status)?;
    for (family, vip) in addresses {
        let route = format!("route add {vip}/{} via {}\n", host_length(family), node.address(family));
        lab.router.ip_batch(&route)?;
        let pods: Vec<&str> = lab.pods().map(|pod| pod.name.as_str()).collect();
        let answer = wait::until("an answer by the ingress address", || {
            lab.client.run(|| client::ask(SocketAddr::new(vip, HTTP)))
        });
        let answer = answer.with_context(|| {
            control_plane
                .kubectl()
                .run("get service web -o yaml")
                .unwrap_or_default()
        })?;
        ensure!(pods.contains(&answer.pod.as_str()), "{answer:?}");
    }
    proxy.kill()
}
