//! Metrics as a monitoring system in the cluster finds them: by the chart's ServiceMonitors, and by OpenELB's names.

use crate::{
    cluster::Cluster,
    deploy::{self, NAMESPACE},
    names::NameServer,
    workloads::{port_called, selects},
};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr};
use tests::{
    kube::{Container, Image, Manifests},
    lab::{Family, Namespace, client, manifests, wait},
};

/// The port of a workload's pods that a ServiceMonitor leads to, by way of a Service, as Prometheus' operator goes.
fn monitored_port(rendered: &Manifests, kind: &str, name: &str) -> Result<u16> {
    let monitor = &rendered.object("ServiceMonitor", name)?["spec"];
    let mut services = rendered.objects().filter(|object| {
        object["kind"] == "Service" && selects(&monitor["selector"]["matchLabels"], &object["metadata"]["labels"])
    });
    let service = &services.next().context("no Service for the ServiceMonitor")?["spec"];
    ensure!(services.next().is_none(), "several Services for {monitor}");
    let workload = rendered.object(kind, name)?;
    ensure!(
        selects(
            &service["selector"],
            &workload["spec"]["template"]["metadata"]["labels"]
        ),
        "{service} is of no pods"
    );
    let mut ports = service["ports"].as_array().into_iter().flatten();
    let port = ports.find(|port| port["name"] == monitor["endpoints"][0]["port"]);
    port_called(workload, &port.context("no such port of the Service")?["targetPort"])
}

/// The sum of the samples that begin so.
fn sum(text: &str, start: &str) -> Result<u64> {
    let values = text.lines().filter_map(|line| line.strip_prefix(start));
    let values: Vec<u64> = values.filter_map(|rest| rest.trim_start().parse().ok()).collect();
    ensure!(!values.is_empty(), "no {start} in\n{text}");
    Ok(values.iter().sum())
}

fn scrape(host: &Namespace, port: u16) -> Result<String> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Ok(String::from_utf8(host.run(|| client::get(at, "/metrics"))?)?)
}

/// [G05] Of a chart with `openelbMetrics` and `monitorEnable`: what is served where its ServiceMonitors lead is what the Eip's
/// status says, and what the programs have counted.
#[test]
fn g05_openelbs_metrics_are_served_where_the_service_monitors_lead() -> Result<()> {
    Cluster::play(|cluster| {
        let set = "--set=openelbMetrics=true,agent.monitorEnable=true,controller.monitorEnable=true";
        let with_operator = "--api-versions=monitoring.coreos.com/v1/ServiceMonitor";
        let helm = cluster.control_plane.helm()?;
        let rendered = helm.render(NAMESPACE, &[set, with_operator])?;
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.apply(crate::chart::SERVICE_MONITORS)?;
        kubectl.run_with("apply --server-side --force-conflicts", &rendered.list())?;

        let image = Image::unpack(deploy::NATIVE, &cluster.lab.directory().join("image"))?;
        let server = deploy::api_server_address(cluster)?;
        let names = NameServer::start(cluster.control_plane.namespace(), deploy::API_SERVER, server.parse()?)?;
        let around = deploy::beside_the_api(&image, cluster, &names)?;
        let _leader = deploy::start_controller(&rendered, &around)?;
        let container = Container::of(rendered.object("DaemonSet", "weir-agent")?, "containers")?;
        let mut agents = Vec::new();
        for node in &cluster.lab.nodes {
            agents.push(deploy::start_agent(&container, &image, cluster, node)?);
        }
        let web = manifests::Service::new("web").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        let address = SocketAddr::new(deploy::address_of(cluster, "web")?, manifests::HTTP);
        wait::until("an answer", || cluster.lab.client.run(|| client::ask(address)))?;

        let port = monitored_port(&rendered, "DaemonSet", "weir-agent")?;
        let mut answers = 0;
        for node in &cluster.lab.nodes {
            let text = scrape(&node.namespace, port)?;
            let counted = |reason| sum(&text, &format!("weir_packets_total{{reason=\"{reason}\"}}"));
            let sent = sum(&text, "responses_sent")?;
            // The neighbours of a quiet lab ask seldom, but they may between two readings of one scrape.
            ensure!(
                sent >= counted("arp_reply")? + counted("neighbor_advertisement")?,
                "{text}"
            );
            ensure!(sent == sum(&text, "requests_received")?, "{text}");
            answers += sent;
        }
        ensure!(answers > 0, "nobody has answered for {address}");

        let port = monitored_port(&rendered, "Deployment", "weir-controller")?;
        wait::until("the controller's metrics", || {
            let text = scrape(cluster.control_plane.namespace(), port)?;
            let status = &kubectl.get("eip lan-ipv4")?["status"];
            for (name, value) in [
                ("addresses_total", status["poolSize"].as_u64()),
                ("addresses_in_use_total", status["usage"].as_u64()),
                ("services_allocated_total", Some(1)),
            ] {
                let told = sum(&text, &format!("{name}{{eipName=\"lan-ipv4\"}}"))?;
                ensure!(Some(told) == value, "{name} is {told}, in {status}");
            }
            ensure!(status["usage"] == 1, "{status}");
            Ok(())
        })
    })
}
