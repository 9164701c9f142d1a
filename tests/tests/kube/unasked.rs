//! What the webhook would have refused, where the API server asks nobody: it is told in statuses and by events, as long as it is so.

use crate::{
    cluster::Cluster,
    controlled::{DEFAULT, eip, service},
    status::{condition, is_served},
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    kube::Kubectl,
    lab::{Family, address::vip, manifests::Service, wait},
};

/// The controller gives out the lowest address.
const LOWEST: u8 = 0;

/// Waits until an Eip's condition has this status and reason and each of these words, and gives its message.
fn is_ready(kubectl: &Kubectl, eip: &str, status: &str, reason: &str, words: &[&str]) -> Result<String> {
    wait::until("the condition of an Eip", || {
        let found = kubectl.get(&format!("eip {eip}"))?;
        let ready = condition(&found, "Ready").cloned().unwrap_or_default();
        let message = ready["message"].as_str().unwrap_or_default();
        ensure!(
            ready["status"] == status && ready["reason"] == reason && words.iter().all(|words| message.contains(words)),
            "{ready}"
        );
        ensure!(found["status"]["ready"] == (status == "True"), "{}", found["status"]);
        Ok(message.to_owned())
    })
}

/// How many Warning events about this object have this reason, and `text` in their messages; waits for the first.
fn is_warned_of(kubectl: &Kubectl, kind: &str, name: &str, reason: &str, text: &str) -> Result<usize> {
    wait::until("a Warning event", || {
        let events = kubectl.get("events -A")?;
        let all = events["items"].as_array().into_iter().flatten();
        let about = |event: &&Value| {
            let object = &event["involvedObject"];
            object["kind"] == kind
                && object["name"] == name
                && event["type"] == "Warning"
                && event["reason"] == reason
                && event["message"].as_str().is_some_and(|message| message.contains(text))
        };
        let number = all.filter(about).count();
        ensure!(number > 0, "no {reason} about {kind} {name} in {events}");
        Ok(number)
    })
}

fn with_controller(act: impl FnOnce(&Cluster, &Kubectl) -> Result<()>) -> Result<()> {
    Cluster::play(|cluster| {
        let kubeconfig = cluster.control_plane.give_controller_rights()?;
        let no_webhook = ["--no-webhook"];
        let _controller = cluster
            .control_plane
            .start_controller(&kubeconfig, "one", &no_webhook)?;
        cluster.start_agents()?;
        let web = Service::new("web").from_eip("lan-ipv4", Family::V4);
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        let answers = || cluster.answered_by(Family::V4, LOWEST, &cluster.pods());
        answers()?;
        act(cluster, &kubectl)?;
        // Whatever was wrong beside it.
        answers()
    })
}

/// [A08] The younger one is refused as a whole, and its Services with it; the older one's are served.
#[test]
fn a08_an_eip_that_overlaps_an_older_one_is_told_so_until_they_are_apart() -> Result<()> {
    with_controller(|cluster, kubectl| {
        let younger = |address: &str| {
            let spec = json!({"address": address, "protocol": "layer2", "interface": "eth0", "resizable": true});
            eip("younger", &spec, &json!({}))
        };
        kubectl.apply(&younger("10.10.1.200-10.10.2.9"))?;
        let message = is_ready(
            kubectl,
            "younger",
            "False",
            "Overlap",
            &[
                "spec.address: 10.10.1.200-10.10.2.9",
                "Eip lan-ipv4 (10.10.1.0-",
                "Change one of the two",
            ],
        )?;
        is_warned_of(kubectl, "Eip", "younger", "add/update eip", &message)?;
        is_ready(kubectl, "lan-ipv4", "True", "Ready", &[])?;
        let other = Service::new("other").from_eip("younger", Family::V4);
        kubectl.apply(&other.with(cluster.lab.pods()))?;
        let unserved = is_served(cluster, "other", "False", "UnknownEip")?;
        let unserved = unserved["message"].as_str().unwrap_or_default().to_owned();
        ensure!(unserved.contains("younger"), "{unserved}");
        is_warned_of(kubectl, "Service", "other", "AssignIPFailed", &unserved)?;

        kubectl.apply(&younger("10.10.2.0-10.10.2.9"))?;
        let message = is_ready(kubectl, "younger", "True", "Ready", &["2 nodes serve it."])?;
        ensure!(!message.contains("lan-ipv4"), "{message}");
        is_served(cluster, "other", "True", "Served").map(drop)
    })
}

/// [A12] It is served like any other, and Services that name none go to the first.
#[test]
fn a12_a_second_default_is_told_so_until_it_is_the_only_one() -> Result<()> {
    with_controller(|cluster, kubectl| {
        kubectl.run(&format!("annotate eip lan-ipv4 {DEFAULT}=true"))?;
        let spec = json!({"address": "10.10.2.0/24", "protocol": "layer2", "interface": "eth0"});
        kubectl.apply(&eip("other", &spec, &json!({DEFAULT: "True"})))?;
        let field = format!("metadata.annotations[{DEFAULT}]: Eip lan-ipv4 is already the default for IPv4");
        let words = ["2 nodes serve it.", &field, "Remove the annotation from one of the two"];
        is_ready(kubectl, "other", "True", "SecondDefault", &words)?;
        is_warned_of(kubectl, "Eip", "other", "SecondDefault", &field)?;
        is_ready(kubectl, "lan-ipv4", "True", "Ready", &[])?;
        let any = |name: &str, host: u8| {
            kubectl.apply(&service(name, &[]))?;
            wait::until("an address", || {
                let found = kubectl.get(&format!("service {name}"))?;
                let shown = &found["status"]["loadBalancer"]["ingress"][0]["ip"];
                ensure!(*shown == json!(vip(Family::V4, host)), "{name} shows {shown}");
                Ok(())
            })
        };
        any("any", LOWEST + 1)?;
        let named = Service::new("named").from_eip("other", Family::V4);
        kubectl.apply(&named.with(cluster.lab.pods()))?;
        wait::until("an address of the second one", || {
            let found = kubectl.get("service named")?;
            let shown = &found["status"]["loadBalancer"]["ingress"][0]["ip"];
            ensure!(*shown == "10.10.2.0", "{found}");
            Ok(())
        })?;

        kubectl.run(&format!("annotate eip other {DEFAULT}-"))?;
        let message = is_ready(kubectl, "other", "True", "Ready", &["2 nodes serve it."])?;
        ensure!(!message.contains("default"), "{message}");
        any("more", LOWEST + 2)
    })
}

/// [A12] It is served like any other, and told so until somebody says which of the two is meant.
#[test]
fn a12_what_is_neither_the_default_nor_not_is_told_so_until_it_is_clear() -> Result<()> {
    with_controller(|_, kubectl| {
        let spec = json!({"address": "10.10.2.0/24", "protocol": "layer2", "interface": "eth0"});
        kubectl.apply(&eip("other", &spec, &json!({DEFAULT: "yes"})))?;
        let field = format!("metadata.annotations[{DEFAULT}]: `yes` is neither true nor false");
        let words = ["2 nodes serve it.", &field, "or remove the annotation"];
        is_ready(kubectl, "other", "True", "UnclearDefault", &words)?;
        is_warned_of(kubectl, "Eip", "other", "UnclearDefault", &field)?;
        kubectl.apply(&service("any", &[]))?;
        is_warned_of(kubectl, "Service", "any", "ConstructRequest", "none is the default")?;

        kubectl.run(&format!("annotate --overwrite eip other {DEFAULT}=True"))?;
        let message = is_ready(kubectl, "other", "True", "Ready", &["2 nodes serve it."])?;
        ensure!(!message.contains("default"), "{message}");
        wait::until("an address of the default", || {
            let found = kubectl.get("service any")?;
            let shown = &found["status"]["loadBalancer"]["ingress"][0]["ip"];
            ensure!(*shown == "10.10.2.0", "{found}");
            Ok(())
        })
    })
}

/// [B09] The condition of a Service that finds nothing left says where it looked, and turns when something is given back, or comes.
#[test]
fn b09_a_service_that_finds_an_eip_full_is_told_so_until_there_is_room() -> Result<()> {
    with_controller(|cluster, kubectl| {
        let spec = json!({"address": "10.10.2.0/31", "protocol": "layer2", "interface": "eth0", "resizable": true});
        kubectl.apply(&eip("tiny", &spec, &json!({})))?;
        // Who is made in one second is told apart by name.
        let names = ["web-1", "web-2", "web-3", "web-4"];
        for name in names {
            let service = Service::new(name).from_eip("tiny", Family::V4);
            kubectl.apply(&service.with(cluster.lab.pods()))?;
        }
        let full = "metadata.annotations[eip.openelb.kubesphere.io/v1alpha2]: every address of Eip tiny is given out. Add an Eip";
        for name in &names[2..] {
            let condition = is_served(cluster, name, "False", "Exhausted")?;
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(message.starts_with(full), "{message}");
            is_warned_of(kubectl, "Service", name, "AssignIPFailed", full)?;
        }
        ensure!(kubectl.get("eip tiny")?["status"]["occupied"] == true);

        kubectl.run("delete service web-1")?;
        let served = is_served(cluster, "web-3", "True", "Served")?;
        ensure!(served["message"] == "10.10.2.0 of Eip tiny is served.", "{served}");
        is_served(cluster, "web-4", "False", "Exhausted")?;
        kubectl.patch("eip tiny", &json!({"spec": {"address": "10.10.2.0/30"}}))?;
        let served = is_served(cluster, "web-4", "True", "Served")?;
        ensure!(served["message"] == "10.10.2.2 of Eip tiny is served.", "{served}");
        for name in &names[2..] {
            // Said once.
            ensure!(
                is_warned_of(kubectl, "Service", name, "AssignIPFailed", full)? == 1,
                "{name}"
            );
        }
        Ok(())
    })
}
