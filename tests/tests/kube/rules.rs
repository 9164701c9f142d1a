//! What whoever runs Weir may decide otherwise than OpenELB does, by options of `weir controller`.

use crate::controlled::{ADDRESS, Cluster, DEFAULT, LABEL, eip, pool, service};
use anyhow::{Result, ensure};
use serde_json::json;
use std::{thread, time::Duration};

/// A Service of no annotation, with this class or none.
fn plain(name: &str, class: Option<&str>) -> String {
    let mut spec = json!({"type": "LoadBalancer", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    if let Some(class) = class {
        spec["loadBalancerClass"] = json!(class);
    }
    format!(
        "---\n{}\n",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    )
}

/// [B02 B03 B10 A13 A28]
#[test]
fn b02_b03_b10_a13_a28_each_rule_does_what_it_says() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let default = json!({DEFAULT: "true"});
    let bound = json!({"address": "10.30.0.255-10.30.1.1", "namespaces": ["default"], "avoidBuggyIPs": true});
    kubectl.apply(&eip("bound", &bound, &json!({})))?;
    kubectl.apply(&eip("spare", &json!({"address": "10.31.0.0/24"}), &default))?;
    kubectl.apply(&pool("10.10.1.0/24"))?;
    let rules = [
        "--class",
        "edge",
        "--adopt-all",
        "--fall-back-to-default",
        "--hold-eips-in-use",
        "--no-webhook",
    ];
    let _controller = cluster.start_with("one", &rules)?;

    // Three addresses, two of which only who asks for them gets.
    kubectl.apply(&plain("classed", Some("edge")))?;
    cluster.shows("classed", Some("10.30.1.1"))?;
    // The bound one has no more to give by itself.
    kubectl.apply(&plain("classless", None))?;
    cluster.shows("classless", Some("10.31.0.0"))?;
    kubectl.apply(&service("asking", &[(ADDRESS, "10.30.1.0")]))?;
    cluster.shows("asking", Some("10.30.1.0"))?;

    kubectl.apply(&service("held", &[(LABEL, "pool")]))?;
    cluster.shows("held", Some("10.10.1.0"))?;
    // Of another class, it is nobody's business, whatever it shows.
    kubectl.apply(&plain("foreign", Some("openelb")))?;
    kubectl.patch_status(
        "service foreign",
        &json!({"loadBalancer": {"ingress": [{"ip": "10.10.1.9"}]}}),
    )?;
    kubectl.run("delete eip pool --wait=false")?;
    kubectl.apply(&service("late", &[(LABEL, "pool")]))?;
    cluster.has_event("late", "Warning", "AssignIPFailed", "being deleted")?;
    thread::sleep(Duration::from_secs(2));
    cluster.shows("held", Some("10.10.1.0"))?;
    cluster.records(&json!({"10.10.1.0": "default/held"}))?;
    kubectl.run("delete service held")?;
    kubectl.run("wait --for=delete eip pool --timeout=60s")?;
    let foreign = kubectl.get("service foreign")?;
    ensure!(
        foreign["status"] == json!({"loadBalancer": {"ingress": [{"ip": "10.10.1.9", "ipMode": "VIP"}]}})
            && foreign["metadata"].get("finalizers").is_none(),
        "{foreign}"
    );
    Ok(())
}
