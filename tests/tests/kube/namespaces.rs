//! Weir in another namespace than its own, such as the one that OpenELB was in.

use crate::{cluster::Cluster, deploy, status::condition};
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use tests::{
    kube::WEIR_NAMESPACE,
    lab::{Agent, Family, address::vip, agent, manifests::Service, process::Process, wait},
};

const OPENELB: &str = "openelb-system";
/// The controller gives out the lowest address.
const LOWEST: u8 = 0;

/// Gives what the chart has there, and starts a controller with the rights of that.
fn start_controller(cluster: &Cluster) -> Result<Process> {
    let control_plane = &cluster.control_plane;
    let kubectl = control_plane.kubectl();
    kubectl.run(&format!("create namespace {OPENELB}"))?;
    let rendered = control_plane.helm()?.render(OPENELB, &[])?;
    kubectl.run_with("apply --server-side --force-conflicts", &rendered.list())?;
    let rights = control_plane.kubectl_as(OPENELB, "weir-controller")?;
    let program = agent::binary();
    let mut command = control_plane.namespace().command(&program.to_string_lossy());
    command.args(["controller", "--identity", "there"]);
    command
        .env("KUBECONFIG", rights.kubeconfig())
        .env("OPENELB_NAMESPACE", OPENELB);
    Process::start(command, "controller", &cluster.lab.directory().join("there.log"))
}

/// Waits for objects of this kind in that namespace; whether there are none where Weir is by itself.
fn are_there_alone(cluster: &Cluster, kind: &str) -> Result<()> {
    let kubectl = cluster.control_plane.kubectl();
    // The webhooks' certificate comes when it comes.
    wait::until(kind, || {
        let here = kubectl.run(&format!("get {kind} -n {OPENELB} -o name"))?;
        ensure!(!here.is_empty(), "there is none");
        Ok(())
    })?;
    let elsewhere = kubectl.run(&format!("get {kind} -n {WEIR_NAMESPACE} -o name"))?;
    ensure!(elsewhere.is_empty(), "{kind}: {elsewhere}");
    Ok(())
}

/// [G03] The variable of OpenELB's manifests says where the controller keeps its Lease and its certificate; by the rights that the
/// chart gives there, it has no others.
#[test]
fn g03_a_controller_keeps_what_is_its_own_where_openelb_namespace_says() -> Result<()> {
    Cluster::play(|cluster| {
        let controller = start_controller(cluster)?;
        let kubectl = cluster.control_plane.kubectl();
        let web = Service::new("web").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        let given: IpAddr = deploy::address_of(cluster, "web").with_context(|| controller.log())?;
        ensure!(given == vip(Family::V4, LOWEST), "{given}");
        let lease = kubectl.get(&format!("lease weir-controller -n {OPENELB}"))?;
        ensure!(lease["spec"]["holderIdentity"] == "there", "{lease}");
        ["leases", "secrets"]
            .iter()
            .try_for_each(|kind| are_there_alone(cluster, kind))
            .with_context(|| controller.log())
    })
}

/// [G03] The same of agents, with the tokens and the rights of their pods there: they serve, what they say of themselves is admitted,
/// and the controller knows by their Leases which of them are there.
#[test]
fn g03_agents_serve_and_are_heard_of_where_openelb_namespace_says() -> Result<()> {
    Cluster::play(|cluster| {
        let _controller = start_controller(cluster)?;
        for node in &cluster.lab.nodes {
            let rights = cluster.control_plane.kubectl_on(OPENELB, "weir-agent", &node.name)?;
            let arguments = ["--lease-seconds", "6"];
            let agent = Agent::launch_from(OPENELB, &cluster.lab, node, rights.kubeconfig(), &arguments)?;
            cluster.agents.push(agent);
        }
        cluster.wait_for_agents()?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let web = Service::new("web").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
        let says = |message: &str| {
            wait::until("what nodes say", || {
                let eip = kubectl.get("eip lan-ipv4")?;
                let ready = condition(&eip, "Ready").cloned().unwrap_or_default();
                ensure!(ready["status"] == "True" && ready["message"] == message, "{ready}");
                let address = vip(Family::V4, LOWEST).to_string();
                let mut nodes = eip["status"]["nodes"].as_object().into_iter().flatten();
                let announcer = nodes.find(|(_, said)| said["announces"][0] == address);
                ensure!(announcer.is_some(), "nobody announces {address}: {}", eip["status"]);
                Ok(())
            })
        };
        says("2 nodes serve it.")?;
        for node in &cluster.lab.nodes {
            let lease = kubectl.get(&format!("lease weir-agent-{} -n {OPENELB}", node.name))?;
            ensure!(lease["spec"]["holderIdentity"] == node.name, "{lease}");
        }
        are_there_alone(cluster, "leases")?;
        // One that is gone is missed, also by the other agent: nobody says any more that its node takes what is sent there.
        let owner = kubectl.get("eip lan-ipv4")?;
        let address = vip(Family::V4, LOWEST).to_string();
        let announces = |at: &usize| owner["status"]["nodes"][&cluster.lab.nodes[*at].name]["announces"][0] == address;
        let other = (0..cluster.lab.nodes.len())
            .find(|at| !announces(at))
            .context("both announce it")?;
        cluster.agents.remove(other).kill()?;
        says("One node serves it.")?;
        let left: Vec<&str> = cluster.lab.nodes[1 - other]
            .pods
            .iter()
            .map(|pod| pod.name.as_str())
            .collect();
        cluster.answered_by(Family::V4, LOWEST, &left)
    })
}
