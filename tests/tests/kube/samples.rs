//! What OpenELB's documents tell people to apply, applied as it is (`tests/samples`), does what they say.

use crate::{
    cluster::Cluster as Lab,
    controlled::{Cluster, service},
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeSet, fs, path::Path};
use tests::lab::{client, manifests, wait};

fn sample(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// [A01 A05 A09 B04 B16 B26 C01] The guide to Layer 2 mode, up to its last step: the client reaches both pods.
#[test]
fn b04_the_guide_to_layer2_mode_leads_to_both_pods() -> Result<()> {
    Lab::play(|cluster| {
        let kubeconfig = cluster.control_plane.give_controller_rights()?;
        let _controller = cluster
            .control_plane
            .start_controller(&kubeconfig, "one", &["--no-webhook"])?;
        cluster.start_agents()?;
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.apply(&sample("layer2.yaml")?)?;
        // Pods have no kubelet here, so what their controller would write is written.
        let endpoints = manifests::Service::new("layer2-svc").endpoints(cluster.lab.pods());
        kubectl.apply(&endpoints)?;
        let address = "192.168.0.91";
        cluster
            .lab
            .router
            .ip_batch(&format!("route add {address}/32 dev lan\n"))?;
        let pods: BTreeSet<&str> = cluster.pods().into_iter().collect();
        wait::until("both pods", || {
            let to = format!("{address}:80").parse()?;
            let seen = cluster
                .lab
                .client
                .run(|| (0..40).map(|_| Ok(client::ask(to)?.pod)).collect());
            let seen: Result<BTreeSet<String>> = seen;
            let seen = seen?;
            ensure!(seen.iter().map(String::as_str).eq(pods.iter().copied()), "{seen:?}");
            Ok(())
        })?;
        let shown = kubectl.run("get service layer2-svc -o jsonpath={.status.loadBalancer.ingress[*].ip}")?;
        ensure!(shown == address, "{shown}");
        let eip = kubectl.get("eip layer2-eip")?;
        ensure!(
            eip["status"]["used"][address] == "default/layer2-svc",
            "{}",
            eip["status"]
        );
        Ok(())
    })
}

/// [A03 A05 A09 A17 B03 B07 B08 B09 B27] The other guides.
#[test]
fn b07_what_the_other_guides_say_is_so() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let _controller = cluster.start_with("one", &["--no-webhook"])?;

    kubectl.apply(&sample("bgp.yaml")?)?;
    cluster.shows("bgp-svc", Some("172.22.0.2"))?;
    let refused = kubectl.apply(&sample("vip.yaml")?).err();
    let refused = refused.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("spec.interface"), "{refused}");

    // Without a pool that is named, bound or the default, a Service waits, and is told what to add.
    kubectl.apply(&sample("repository.yaml")?)?;
    for service in ["mylbapp-svc-layer2", "mylbapp-svc"] {
        cluster.has_event(service, "Warning", "ConstructRequest", "is-default-eip")?;
        cluster.shows(service, None)?;
    }
    // A pool bound to their namespace gives them addresses, and those that come after the next.
    kubectl.apply(&sample("pool.yaml")?)?;
    cluster.has_event("mylbapp-svc", "Normal", "AssignIP", "192.168.0.9")?;
    cluster.has_event("mylbapp-svc-layer2", "Normal", "AssignIP", "192.168.0.9")?;
    kubectl.apply(&service("test-svc", &[]))?;
    cluster.shows("test-svc", Some("192.168.0.93"))?;
    kubectl.run("delete eip eip-sample-pool")?;
    cluster.shows("mylbapp-svc", None)?;

    kubectl.apply(&sample("assignment.yaml")?)?;
    let shows = |namespace: &str, address: Option<&str>| {
        wait::until("an address of the right Eip", || {
            let found = kubectl.get(&format!("service web -n {namespace}"))?;
            let shown = found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            ensure!(shown == address, "{namespace}: {shown:?}, not {address:?}");
            Ok(())
        })
    };
    for (namespace, address) in [
        ("namespace-1", "10.20.2.0"),
        ("namespace-2", "10.20.1.0"),
        // The first three of the default Eip have gone to those of namespace default that waited.
        ("namespace-3", "10.20.0.3"),
    ] {
        kubectl.run_with(&format!("apply -n {namespace}"), &service("web", &[]))?;
        shows(namespace, Some(address))?;
    }
    kubectl.run("delete eip default-eip")?;
    shows("namespace-3", None)?;
    shows("namespace-2", Some("10.20.1.0"))
}
