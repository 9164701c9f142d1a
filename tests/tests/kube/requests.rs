//! What Services ask for, and what becomes of it, as far as one object after the other shows it.

use crate::controlled::{Cluster, LABEL, pool, service};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::lab::wait;

const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";

/// A Service like [`service`], with other fields of `spec` over its own.
fn with_spec(name: &str, annotations: &[(&str, &str)], fields: &Value) -> Result<String> {
    let text = service(name, annotations);
    let mut object: Value = serde_json::from_str(text.trim_start_matches("---\n"))?;
    for (field, value) in fields.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    Ok(format!("---\n{object}\n"))
}

fn addresses(object: &Value) -> Vec<&str> {
    let ingress = object["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten();
    ingress.filter_map(|one| one["ip"].as_str()).collect()
}

/// [B05 B12 B13 B15 B17 B18 B19 B21 B23]
#[test]
fn b12_b13_b15_b19_b21_b23_requests_are_met_changed_and_remembered() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/29"))?;
    kubectl.apply(&pool("fd10:10:1::/64").replace("\"pool\"", "\"six\""))?;
    let _controller = cluster.start_with("one", &["--no-webhook"])?;
    let port = |number: u16| json!({"ports": [{"name": "p", "port": number, "protocol": "TCP"}]});

    // Shared by who asks for it, as long as ports are apart.
    kubectl.apply(&service("web", &[(ADDRESS, "10.10.1.3")]))?;
    cluster.shows("web", Some("10.10.1.3"))?;
    kubectl.apply(&with_spec("mail", &[(ADDRESS, "10.10.1.3")], &port(25))?)?;
    cluster.shows("mail", Some("10.10.1.3"))?;
    cluster.records(&json!({"10.10.1.3": "default/web;default/mail"}))?;
    kubectl.apply(&service("clash", &[(ADDRESS, "10.10.1.3")]))?;
    cluster.has_event("clash", "Warning", "AssignIPFailed", "already has port 80/TCP")?;
    cluster.shows("clash", None)?;

    // Both families, of two Eips, in the order of the Service's own.
    let both = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    kubectl.apply(&with_spec("dual", &[(LABEL, "pool,six")], &both)?)?;
    wait::until("two addresses", || {
        let dual = kubectl.get("service dual")?;
        ensure!(addresses(&dual) == ["fd10:10:1::", "10.10.1.0"], "{}", dual["status"]);
        Ok(())
    })?;
    let six = kubectl.get("eip six")?;
    ensure!(
        six["status"]["used"]["fd10:10:1::"] == "default/dual",
        "{}",
        six["status"]
    );

    // Another address asked for, by the field then; the annotation wins over it.
    kubectl.run(&format!("annotate --overwrite service mail {ADDRESS}=10.10.1.5"))?;
    cluster.shows("mail", Some("10.10.1.5"))?;
    kubectl.patch("service mail", &json!({"spec": {"loadBalancerIP": "10.10.1.6"}}))?;
    kubectl.run(&format!("annotate service mail {ADDRESS}-"))?;
    cluster.shows("mail", Some("10.10.1.6"))?;

    // A disabled Eip gives nothing new and takes nothing back, nor does one whose status is lost.
    kubectl.patch("eip pool", &json!({"spec": {"disable": true}}))?;
    kubectl.apply(&service("late", &[(LABEL, "pool")]))?;
    cluster.has_event("late", "Warning", "AssignIPFailed", "spec.disable")?;
    kubectl.patch_status(
        "eip pool",
        &json!({"used": null, "usage": 0, "occupied": false, "firstIP": "", "poolSize": 0}),
    )?;
    cluster.records(&json!({
        "10.10.1.0": "default/dual", "10.10.1.3": "default/web", "10.10.1.6": "default/mail",
    }))?;
    for (name, address) in [("web", "10.10.1.3"), ("mail", "10.10.1.6")] {
        cluster.shows(name, Some(address))?;
    }
    kubectl.patch("eip pool", &json!({"spec": {"disable": false}}))?;
    cluster.shows("late", Some("10.10.1.1"))?;

    // Given back in every way: no annotation at all, another type, deletion.
    kubectl.patch("service web", &json!({"metadata": {"annotations": null}}))?;
    kubectl.patch("service mail", &json!({"spec": {"type": "ClusterIP"}}))?;
    kubectl.run("delete service dual late")?;
    // Who waited for what is free now gets it.
    cluster.shows("clash", Some("10.10.1.3"))?;
    cluster.records(&json!({"10.10.1.3": "default/clash"}))?;
    for name in ["web", "mail"] {
        let object = kubectl.get(&format!("service {name}"))?;
        let metadata = &object["metadata"];
        ensure!(addresses(&object).is_empty(), "{}", object["status"]);
        ensure!(
            metadata.get("finalizers").is_none() && metadata["labels"].get(LABEL).is_none(),
            "{metadata}"
        );
    }
    Ok(())
}
