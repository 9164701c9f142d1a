//! Which Eip Services get that ask for none, and what takes an address away again: nothing but their own request.

use crate::controlled::{ADDRESS, Cluster, DEFAULT, LABEL, Versions, eip, left_alone, service};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::lab::{process::Process, wait};

/// Eips in no order of theirs, with how they are bound and their place in the choice.
fn eips() -> String {
    let named =
        |address: &str, priority: i64| json!({"address": address, "namespaces": ["default"], "priority": priority});
    [
        eip("tie-b", &named("10.7.4.0", 9), &json!({})),
        // However it is written.
        eip("spare", &json!({"address": "10.7.9.0/24"}), &json!({DEFAULT: "TRUE"})),
        eip(
            "far",
            &json!({"address": "10.7.2.0/31", "namespaceSelector": {"team": "web"}, "priority": 5}),
            &json!({}),
        ),
        eip("tie-a", &named("10.7.3.0", 9), &json!({})),
        eip("near", &named("10.7.1.0", 1), &json!({})),
        eip(
            "other",
            &json!({"address": "10.7.8.0/24", "namespaces": ["elsewhere"], "namespaceSelector": {"team": "mail"}, "priority": -5}),
            &json!({}),
        ),
    ]
    .concat()
}

fn create_in(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    cluster
        .kubectl()
        .run_with(&format!("apply -n {namespace}"), &service(name, &[]))
        .map(drop)
}

fn stop(mut controller: Process) -> Result<()> {
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

#[test]
fn b07_b08_b09_b10_b20_b23_a12_the_eip_is_chosen_by_rules_and_once() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.run("label namespace default team=web")?;
    kubectl.run("create namespace unbound")?;
    kubectl.apply(&eips())?;
    let first = cluster.start_with("first", &["--no-webhook"])?;
    chosen(&cluster).context("the choice")?;
    let before = kept(&cluster, first).context("what is given stays")?;
    let _controller = waiting(&cluster).context("who waits")?;
    cluster.show([("late", "10.7.0.0")])?;
    left_alone(&before, &cluster.has_caught_up(9)?)
}

/// [B07 B08 B10 A12]
fn chosen(cluster: &Cluster) -> Result<()> {
    // Full after the first, those of one place by name.
    let places = ["10.7.1.0", "10.7.2.0", "10.7.2.1", "10.7.3.0", "10.7.4.0"];
    let names = ["s0", "s1", "s2", "s3", "s4"];
    cluster
        .kubectl()
        .apply(&names.map(|name| service(name, &[])).concat())?;
    cluster.show(names.into_iter().zip(places))?;
    let far = json!({"10.7.2.0": "default/s1", "10.7.2.1": "default/s2"});
    cluster.has_book("far", &far)?;
    create_in(cluster, "unbound", "web")?;
    cluster.shows("unbound/web", Some("10.7.9.0"))?;
    // There is room in the default one, and it is not for those who have their own.
    cluster.kubectl().apply(&service("late", &[]))?;
    let full = "every address of Eip near, far, tie-a, tie-b is given out";
    cluster.has_event("late", "Warning", "AssignIPFailed", full)?;
    cluster.has_caught_up(1)?;
    cluster.shows("late", None).map(drop)
}

/// [B20 B23 A11] Nothing is written to a Service for what happens to Eips, namespaces and controllers.
fn kept(cluster: &Cluster, first: Process) -> Result<Versions> {
    let kubectl = cluster.kubectl();
    // Who waits is who gets what comes.
    let best = json!({"address": "10.7.0.0/24", "namespaces": ["default", "unbound"], "priority": -9});
    kubectl.apply(&eip("best", &best, &json!({})))?;
    cluster.shows("late", Some("10.7.0.0"))?;
    let before = cluster.has_caught_up(2)?;
    let patch = |name: &str, patch: &Value| kubectl.patch(&format!("eip {name}"), patch);
    patch("tie-b", &json!({"spec": {"priority": -99}}))?;
    patch("near", &json!({"spec": {"disable": true}}))?;
    left_alone(&before, &cluster.has_caught_up(3)?).context("priority and disable")?;
    patch("tie-a", &json!({"spec": {"namespaces": null}}))?;
    kubectl.run("label --overwrite namespace default team=mail")?;
    left_alone(&before, &cluster.has_caught_up(4)?).context("namespaces and their labels")?;
    patch("spare", &json!({"metadata": {"annotations": {DEFAULT: "false"}}}))?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}});
    kubectl.apply(&format!("{node}\n"))?;
    left_alone(&before, &cluster.has_caught_up(5)?).context("no default, and a node")?;
    // Another that leads knows nothing but what is written.
    let second = cluster.start_with("second", &["--no-webhook", "--metrics", "off"])?;
    stop(first)?;
    left_alone(&before, &cluster.has_caught_up(6)?).context("another leader")?;
    stop(second)?;
    // Nor does one that finds an empty book.
    kubectl.patch("eip far", &json!({"metadata": {"finalizers": null}}))?;
    let far = kubectl.get("eip far")?;
    kubectl.run("delete eip far --timeout=60s")?;
    kubectl.apply(&eip("far", &far["spec"], &json!({})))?;
    ensure!(kubectl.get("eip far")?.get("status").is_none());
    let third = cluster.start_with("third", &["--no-webhook"])?;
    cluster.has_book("far", &json!({"10.7.2.0": "default/s1", "10.7.2.1": "default/s2"}))?;
    left_alone(&before, &cluster.has_caught_up(7)?).context("an empty book")?;
    stop(third)?;
    Ok(before)
}

/// [B09] Without an Eip for it a Service waits until there is one, by whatever change.
fn waiting(cluster: &Cluster) -> Result<Process> {
    let kubectl = cluster.kubectl();
    for namespace in ["poor", "unlabelled"] {
        kubectl.run(&format!("create namespace {namespace}"))?;
        create_in(cluster, namespace, "web")?;
    }
    let controller = cluster.start_with("fourth", &["--no-webhook"])?;
    for service in ["poor/web", "unlabelled/web"] {
        cluster.has_event(service, "Warning", "ConstructRequest", "none is the default")?;
        cluster.shows(service, None)?;
    }
    kubectl.run("label namespace unlabelled team=mail")?;
    cluster.shows("unlabelled/web", Some("10.7.8.0"))?;
    cluster.has_caught_up(8)?;
    cluster.shows("poor/web", None)?;
    kubectl.patch("eip spare", &json!({"metadata": {"annotations": {DEFAULT: "True"}}}))?;
    cluster.shows("poor/web", Some("10.7.9.1"))?;
    // A request of its own is what moves a Service.
    kubectl.run(&format!("annotate service web -n poor {LABEL}=other"))?;
    cluster.shows("poor/web", Some("10.7.8.1"))?;
    kubectl.run(&format!("annotate service web -n poor {ADDRESS}=10.7.8.77"))?;
    cluster.shows("poor/web", Some("10.7.8.77"))?;
    cluster.has_book("other", &json!({"10.7.8.0": "unlabelled/web", "10.7.8.77": "poor/web"}))?;
    Ok(controller)
}
