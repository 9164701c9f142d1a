//! What Services ask for, and what becomes of it, as far as one object after the other shows it.

use crate::controlled::{ADDRESS, Cluster, LABEL, pool, service, with_spec};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::lab::wait;

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
    // A port of another protocol is another port.
    let udp = json!({"ports": [{"name": "p", "port": 80, "protocol": "UDP"}]});
    kubectl.apply(&with_spec("udp", &[(ADDRESS, "10.10.1.3")], &udp)?)?;
    cluster.records(&json!({"10.10.1.3": "default/web;default/mail;default/udp"}))?;
    cluster.shows("udp", Some("10.10.1.3"))?;
    kubectl.run("delete service udp")?;

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
    cluster.has_caught_up(1)?;
    cluster.shows("mail", Some("10.10.1.5"))?;
    let annotated = [(ADDRESS, "10.10.1.2")];
    kubectl.apply(&with_spec("two", &annotated, &json!({"loadBalancerIP": "10.10.1.4"}))?)?;
    cluster.shows("two", Some("10.10.1.2"))?;
    kubectl.run("delete service two")?;
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
    for (name, address) in [("web", "10.10.1.3"), ("mail", "10.10.1.6")] {
        cluster.has_event(
            name,
            "Normal",
            "ReleaseIP",
            &format!("{address} is no longer this Service's"),
        )?;
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

/// [B01 B06 B14 B21 B26 B27 B28]
#[test]
fn b01_b06_b14_b21_b26_b27_b28_requests_of_every_form() -> Result<()> {
    const BALANCER: &str = "lb.kubesphere.io/v1alpha1";
    const PROTOCOL: &str = "protocol.openelb.kubesphere.io/v1alpha1";
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/28"))?;
    kubectl.patch("eip pool", &json!({"spec": {"namespaces": ["default"]}}))?;
    kubectl.apply(&pool("fd10:10:1::/64").replace("\"pool\"", "\"six\""))?;
    let _controller = cluster.start_with("one", &["--no-webhook"])?;
    let failed = |name: &str, text: &str| {
        cluster.has_event(name, "Warning", "AssignIPFailed", text)?;
        cluster.shows(name, None).map(drop)
    };

    // Not ours: without the annotation, and with one that names nobody we know, which is said but nothing is written.
    let plain = with_spec("plain", &[], &json!({}))?.replace(BALANCER, "example.com/other");
    kubectl.apply(&plain)?;
    kubectl.apply(&service("misspelt", &[(BALANCER, "OpenELB")]))?;
    cluster.has_event("misspelt", "Warning", "OtherBalancer", "the annotation says `OpenELB`")?;
    kubectl.apply(&service("ours", &[]))?;
    cluster.shows("ours", Some("10.10.1.0"))?;
    for name in ["plain", "misspelt"] {
        let object = kubectl.get(&format!("service {name}"))?;
        ensure!(object["status"] == json!({"loadBalancer": {}}), "{object}");
        ensure!(object["metadata"].get("finalizers").is_none(), "{object}");
        ensure!(object["metadata"].get("labels").is_none(), "{object}");
    }
    kubectl.run(&format!("annotate --overwrite service misspelt {BALANCER}=openelb"))?;
    cluster.shows("misspelt", Some("10.10.1.1"))?;

    // What cannot be had.
    kubectl.apply(&service("outside", &[(LABEL, "pool"), (ADDRESS, "10.20.0.1")]))?;
    failed("outside", "10.20.0.1")?;
    let four = json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    kubectl.apply(&with_spec("four", &[(LABEL, "six")], &four)?)?;
    failed("four", "Eip six has no IPv4 addresses")?;
    kubectl.apply(&service(
        "proxy",
        &[("node-proxy.openelb.kubesphere.io/type", "daemonset")],
    ))?;
    cluster.has_event("proxy", "Warning", "NodeProxyUnsupported", "gets nothing")?;
    let proxy = cluster.shows("proxy", None)?;
    ensure!(
        proxy["metadata"]["annotations"].as_object().map(serde_json::Map::len) == Some(3),
        "{proxy}"
    );

    // OpenELB's former name, and the annotation for the protocol.
    let porter = [
        (BALANCER, "porter"),
        ("eip.porter.kubesphere.io/v1alpha2", "pool"),
        ("eip.porter.kubesphere.io/v1alpha1", "10.10.1.9"),
    ];
    kubectl.apply(&service("porter", &porter))?;
    cluster.shows("porter", Some("10.10.1.9"))?;
    kubectl.apply(&service("bgp", &[(LABEL, "pool"), (PROTOCOL, "bgp")]))?;
    cluster.shows("bgp", Some("10.10.1.2"))?;
    cluster.has_event("bgp", "Warning", "ProtocolIgnored", "announced by layer2")?;
    kubectl.apply(&service("layer2", &[(LABEL, "pool"), (PROTOCOL, "layer2")]))?;
    cluster.shows("layer2", Some("10.10.1.3"))?;
    ensure!(cluster.has_no_event("layer2", "ProtocolIgnored")?);

    // Disabled, the Eip keeps whom it has, however they asked, and takes nobody new, however they ask.
    let field = |name: &str, address: &str| with_spec(name, &[], &json!({"loadBalancerIP": address}));
    kubectl.apply(&service("by-address", &[(ADDRESS, "10.10.1.10")]))?;
    kubectl.apply(&field("by-field", "10.10.1.11")?)?;
    let before = [
        ("ours", "10.10.1.0"),
        ("layer2", "10.10.1.3"),
        ("porter", "10.10.1.9"),
        ("by-address", "10.10.1.10"),
        ("by-field", "10.10.1.11"),
    ];
    for (name, address) in before {
        cluster.shows(name, Some(address))?;
    }
    kubectl.patch("eip pool", &json!({"spec": {"disable": true}}))?;
    kubectl.apply(&service("late-by-namespace", &[]))?;
    kubectl.apply(&service("late-by-name", &[(LABEL, "pool")]))?;
    kubectl.apply(&service("late-by-both", &[(LABEL, "pool"), (ADDRESS, "10.10.1.12")]))?;
    kubectl.apply(&service("late-by-address", &[(ADDRESS, "10.10.1.13")]))?;
    kubectl.apply(&field("late-by-field", "10.10.1.14")?)?;
    cluster.has_event("late-by-namespace", "Warning", "ConstructRequest", "no enabled Eip")?;
    cluster.shows("late-by-namespace", None)?;
    for name in ["late-by-name", "late-by-both", "late-by-address", "late-by-field"] {
        failed(name, "spec.disable")?;
    }
    for (name, address) in before {
        cluster.shows(name, Some(address))?;
    }
    kubectl.patch("eip pool", &json!({"spec": {"disable": false}}))?;
    for (name, address) in [
        ("late-by-both", "10.10.1.12"),
        ("late-by-address", "10.10.1.13"),
        ("late-by-field", "10.10.1.14"),
    ] {
        cluster.shows(name, Some(address))?;
    }
    Ok(())
}

/// [B19 B24]
#[test]
fn b19_b24_two_on_one_port_of_a_full_eip_swap_their_addresses() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/31"))?;
    let swap = [("one", "10.10.1.0", "10.10.1.1"), ("two", "10.10.1.1", "10.10.1.0")];
    for (name, before, _) in swap {
        kubectl.apply(&service(name, &[(ADDRESS, before)]))?;
    }
    let mut controller = cluster.start_with("one", &["--no-webhook"])?;
    for (name, before, _) in swap {
        cluster.shows(name, Some(before))?;
    }
    // Both have changed when the next controller looks, or one would be refused what the other still has.
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    for (name, _, after) in swap {
        kubectl.run(&format!("annotate --overwrite service {name} {ADDRESS}={after}"))?;
    }
    let _controller = cluster.start_with("two", &["--no-webhook"])?;
    for (name, _, after) in swap {
        cluster.shows(name, Some(after))?;
    }
    cluster.records(&json!({"10.10.1.0": "default/two", "10.10.1.1": "default/one"}))?;
    // The younger one, or of the same second the later by name.
    cluster.has_event(
        "two",
        "Normal",
        "ReleaseIP",
        "it and default/one ask for each other's addresses",
    )
}
