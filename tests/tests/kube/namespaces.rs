//! Weir in another namespace than its own, such as the one that OpenELB was in.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use tests::{
    kube::WEIR_NAMESPACE,
    lab::{Family, agent, manifests::Service, process::Process, wait},
};

const OPENELB: &str = "openelb-system";

/// [G03] The variable of OpenELB's manifests says where the controller keeps its Lease and its certificate; by the rights that the
/// chart gives there, it has no others.
#[test]
fn g03_a_controller_keeps_what_is_its_own_where_openelb_namespace_says() -> Result<()> {
    Cluster::play(|cluster| {
        let control_plane = &cluster.control_plane;
        let kubectl = control_plane.kubectl();
        kubectl.run(&format!("create namespace {OPENELB}"))?;
        let rendered = control_plane.helm()?.render(OPENELB, &["--kube-version=1.30"])?;
        kubectl.run_with("apply --server-side --force-conflicts", &rendered.list())?;
        let rights = control_plane.kubectl_as(OPENELB, "weir-controller")?;
        let program = agent::binary();
        let mut command = control_plane.namespace().command(&program.to_string_lossy());
        command.args(["controller", "--identity", "there"]);
        command
            .env("KUBECONFIG", rights.kubeconfig())
            .env("OPENELB_NAMESPACE", OPENELB);
        let controller = Process::start(command, "controller", &cluster.lab.directory().join("there.log"))?;

        let web = Service::new("web").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        let given = || {
            let service = kubectl.get("service web")?;
            let address = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            address.map(drop).context("no address yet")
        };
        wait::until("an address", given).with_context(|| controller.log())?;
        let lease = kubectl.get(&format!("lease weir-controller -n {OPENELB}"))?;
        ensure!(lease["spec"]["holderIdentity"] == "there", "{lease}");
        for kind in ["leases", "secrets"] {
            // The webhooks' certificate comes when it comes.
            wait::until(kind, || {
                let here = kubectl.run(&format!("get {kind} -n {OPENELB} -o name"))?;
                ensure!(!here.is_empty(), "there is none");
                Ok(())
            })
            .with_context(|| controller.log())?;
            let elsewhere = kubectl.run(&format!("get {kind} -n {WEIR_NAMESPACE} -o name"))?;
            ensure!(elsewhere.is_empty(), "{kind}: {elsewhere}");
        }
        Ok(())
    })
}
