//! Services that are served, and are edited into something that nobody can make out.

use crate::{
    controlled::{ADDRESS, Cluster, LABEL, eip, pool, service},
    status::condition,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::lab::wait;

const NODE_PROXY: &str = "node-proxy.openelb.kubesphere.io/type";

/// What is merged into a Service, and what is said of it.
fn mistakes() -> [(Value, &'static str); 6] {
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    [
        (annotated(ADDRESS, "10.10.1"), "`10.10.1` is not an IP address."),
        (annotated(ADDRESS, "fd10::7"), "fd10::7 is IPv6,"),
        (annotated(ADDRESS, "10.10.2.1"), "no Eip has 10.10.2.1."),
        (annotated(LABEL, "pol"), "there is no Eip pol."),
        (annotated(NODE_PROXY, "pod"), "`pod` is no kind of it."),
        (
            json!({"spec": {"loadBalancerIP": "ten"}}),
            "spec.loadBalancerIP: `ten` is not",
        ),
    ]
}

/// What of a Service is the controller's, but for what is told in words.
fn given(service: &Value) -> Value {
    let metadata = &service["metadata"];
    json!([
        metadata["labels"],
        metadata["finalizers"],
        service["status"]["loadBalancer"]
    ])
}

/// Waits until the Service `web` is told this, as something that it is served in spite of.
fn is_told(cluster: &Cluster, words: &str) -> Result<()> {
    wait::until("the condition", || {
        let found = cluster.kubectl().get("service web")?;
        let told = condition(&found, "lb.weir.dev/Served").cloned().unwrap_or_default();
        let stands = (&told["status"], &told["reason"]) == (&json!("True"), &json!("AddressKept"));
        let message = told["message"].as_str().unwrap_or_default();
        let kept = message.ends_with(" Until then the Service keeps 10.10.1.7.");
        ensure!(stands && kept && message.contains(words), "{told}");
        Ok(())
    })?;
    cluster.has_event("web", "Warning", "ConstructRequest", words)
}

/// [B19 B20 B28] Also by a controller that begins only then.
#[test]
fn b20_a_mistake_in_what_a_served_service_asks_for_takes_nothing_from_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let two = eip("two", &json!({"address": "10.10.3.0/24"}), &json!({}));
    kubectl.apply(&format!("{}{two}", pool("10.10.1.7")))?;
    let mut controller = cluster.start_with("first", &["--no-webhook"])?;
    kubectl.apply(&service("web", &[(LABEL, "pool")]))?;
    let before = given(&cluster.shows("web", Some("10.10.1.7"))?);
    kubectl.apply(&service("late", &[(LABEL, "pool")]))?;
    cluster.has_event(
        "late",
        "Warning",
        "AssignIPFailed",
        "every address of Eip pool is given out",
    )?;
    let book = kubectl.get("eip pool")?["status"]["used"].clone();
    let has_stayed = || -> Result<()> {
        let now = given(&kubectl.get("service web")?);
        ensure!(now == before, "it was {before}, and is {now}");
        let used = kubectl.get("eip pool")?["status"]["used"].clone();
        ensure!(used == book, "{used}");
        let late = kubectl.get("service late")?;
        ensure!(late["status"]["loadBalancer"] == json!({}), "{late}");
        Ok(())
    };
    for (number, (mistake, words)) in (1..).zip(mistakes()) {
        if number == 3 {
            ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
        }
        kubectl.patch("service web", &mistake)?;
        if number == 3 {
            controller = cluster.start_with("second", &["--no-webhook"])?;
        }
        is_told(&cluster, words).context(words)?;
        cluster.has_caught_up(number)?;
        has_stayed().context(words)?;
        let mended = json!({
            "metadata": {"annotations": {ADDRESS: null, NODE_PROXY: null, LABEL: "pool"}}, "spec": {"loadBalancerIP": null},
        });
        kubectl.patch("service web", &mended)?;
        cluster.has_caught_up(number + 100)?;
        has_stayed().with_context(|| format!("{words} mended"))?;
    }
    ensure!(cluster.has_no_event("web", "ReleaseIP")?, "it was released");

    // What can be made out is followed, and then who has waited has the address.
    kubectl.run(&format!("annotate --overwrite service web {ADDRESS}=ten {LABEL}=two"))?;
    is_told(&cluster, "`ten`")?;
    kubectl.run(&format!("annotate --overwrite service web {ADDRESS}=10.10.3.9"))?;
    cluster.show([("web", "10.10.3.9"), ("late", "10.10.1.7")])
}
