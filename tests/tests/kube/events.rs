//! Events on their way to an API server that does not take them at once, and those of one controller after another (B25).

use crate::{
    controlled::{Cluster, LABEL, eip, pool, service, with_spec},
    gate::{self, ACCOUNT, Gate},
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tests::lab::{process::Process, wait};

/// Holds the controller's events in one namespace up; those that are let go are taken (`Ignore`) or not (`Fail`).
fn close<'a>(cluster: &'a Cluster, of: &str, policy: &str) -> Result<Gate<'a>> {
    let there = format!("request.namespace == '{of}'");
    Gate::close(cluster, &gate::events(), Some(&there), policy)
}

/// How many events an object has for this reason.
fn count(cluster: &Cluster, object: &str, reason: &str) -> Result<usize> {
    let events = cluster.kubectl().get("events")?;
    let all = events["items"].as_array().into_iter().flatten();
    let about = all.filter(|event| event["involvedObject"]["name"] == object && event["reason"] == reason);
    Ok(about.count())
}

/// Waits for an event of a Service that comes after all others.
fn is_last(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl().apply(&service(name, &[(LABEL, "pool")]))?;
    cluster.has_event(name, "Normal", "AssignIP", "is this Service's")
}

fn begin(cluster: &Cluster) -> Result<Process> {
    cluster.kubectl().apply(&pool("10.10.1.0/24"))?;
    let controller = cluster.start_with("only", &["--no-webhook"])?;
    is_last(cluster, "first")?;
    Ok(controller)
}

/// What the API server has answered to the controller's events.
fn answers(cluster: &Cluster) -> Result<Vec<u64>> {
    let asked = cluster.control_plane.asked()?;
    let events = asked
        .iter()
        .filter(|asked| asked.account == ACCOUNT && asked.resource == "events" && !asked.uri.contains("dryRun"));
    Ok(events.map(|asked| asked.code).collect())
}

/// [B25]
#[test]
fn b25_an_event_that_is_refused_for_now_is_sent_again_and_is_there_once() -> Result<()> {
    let cluster = Cluster::new()?;
    let _controller = begin(&cluster)?;
    let kubectl = cluster.kubectl();
    let gate = close(&cluster, "default", "Fail")?;
    kubectl.apply(&service("refused", &[(LABEL, "pool")]))?;
    drop(gate.next()?);
    let again = gate.next()?;
    ensure!(answers(&cluster)?.contains(&500), "{:?}", answers(&cluster)?);
    ensure!(count(&cluster, "refused", "AssignIP")? == 0);
    gate.open()?;
    drop(again);
    cluster.has_event("refused", "Normal", "AssignIP", "is this Service's")?;
    is_last(&cluster, "last")?;
    ensure!(count(&cluster, "refused", "AssignIP")? == 1);
    Ok(())
}

/// [B25]
#[test]
fn b25_an_event_that_nobody_answers_is_sent_again_and_is_there_once() -> Result<()> {
    let cluster = Cluster::new()?;
    let _controller = begin(&cluster)?;
    let gate = close(&cluster, "default", "Ignore")?;
    cluster.kubectl().apply(&service("web", &[(LABEL, "pool")]))?;
    let held = gate.next()?;
    // Sent again: the API server itself asks once.
    let again = gate.next()?;
    ensure!(count(&cluster, "web", "AssignIP")? == 0);
    gate.open()?;
    drop((held, again));
    cluster.has_event("web", "Normal", "AssignIP", "is this Service's")?;
    is_last(&cluster, "last")?;
    ensure!(count(&cluster, "web", "AssignIP")? == 1);
    Ok(())
}

/// [B25]
#[test]
fn b25_a_namespace_whose_events_nobody_answers_does_not_hold_up_another() -> Result<()> {
    let cluster = Cluster::new()?;
    let _controller = begin(&cluster)?;
    let kubectl = cluster.kubectl();
    kubectl.run("create namespace held")?;
    let gate = close(&cluster, "held", "Fail")?;
    // More than are sent at once.
    let names: Vec<String> = (0..12).map(|number| format!("held-{number}")).collect();
    for name in &names {
        let text = service(name, &[(LABEL, "pool")]);
        let mut held: Value = serde_json::from_str(text.trim_start_matches("---\n"))?;
        held["metadata"]["namespace"] = "held".into();
        kubectl.apply(&held.to_string())?;
    }
    let held = gate.next()?;
    for name in ["a", "b", "c"] {
        is_last(&cluster, name)?;
    }
    let said = || -> Result<BTreeMap<String, usize>> {
        let events = kubectl.get("events --namespace held")?;
        let mut said = BTreeMap::new();
        for event in events["items"].as_array().into_iter().flatten() {
            if event["reason"] == "AssignIP" {
                let about = event["involvedObject"]["name"].as_str().unwrap_or_default();
                *said.entry(about.to_owned()).or_default() += 1;
            }
        }
        Ok(said)
    };
    ensure!(said()?.is_empty(), "{:?}", said()?);
    gate.open()?;
    drop(held);
    let once: BTreeMap<String, usize> = names.into_iter().map(|name| (name, 1)).collect();
    wait::until("all to be said, each once", || {
        let said = said()?;
        ensure!(said == once, "{said:?}");
        Ok(())
    })
}

/// [B25]
#[test]
fn b25_a_controller_that_is_stopped_says_what_it_has_done() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut controller = begin(&cluster)?;
    let names = ["a", "b", "c"];
    let gate = close(&cluster, "default", "Ignore")?;
    let services: String = names.map(|name| service(name, &[(LABEL, "pool")])).concat();
    cluster.kubectl().apply(&services)?;
    let held = gate.next()?;
    for name in names {
        wait::until("an address", || {
            let found = cluster.kubectl().get(&format!("service {name}"))?;
            ensure!(found["status"]["loadBalancer"]["ingress"][0]["ip"] != Value::Null);
            Ok(())
        })?;
        ensure!(count(&cluster, name, "AssignIP")? == 0, "{name}");
    }
    controller.terminate()?;
    wait::until("it to begin to stop", || {
        ensure!(controller.log().contains("stopping"));
        Ok(())
    })?;
    drop((held, gate));
    ensure!(controller.wait(wait::patience())?.success(), "{}", controller.log());
    for name in names {
        ensure!(count(&cluster, name, "AssignIP")? == 1, "{name}: {}", controller.log());
    }
    cluster.kubectl().run("delete validatingwebhookconfiguration gate")?;

    // But not for ever.
    let mut controller = cluster.start_with("next", &["--no-webhook"])?;
    is_last(&cluster, "last")?;
    let gate = close(&cluster, "default", "Ignore")?;
    cluster.kubectl().apply(&service("d", &[(LABEL, "pool")]))?;
    let held = gate.next()?;
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    ensure!(
        controller.log().contains("some events are left out"),
        "{}",
        controller.log()
    );
    drop(held);
    Ok(())
}

/// [B25]
#[test]
fn b25_a_warning_is_not_repeated_by_who_leads_next_if_a_status_has_it() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let start = |identity: &str| cluster.start_with(identity, &["--no-webhook"]);
    let mut first = start("first")?;
    kubectl.apply(&pool("10.10.1.0/24"))?;
    is_last(&cluster, "good")?;
    // Its name comes later, too: the API server tells ages by the second, and the name decides within one.
    kubectl.apply(&eip(
        "younger",
        &json!({"address": "10.10.1.0/28", "interface": "eth0"}),
        &json!({}),
    ))?;
    kubectl.apply(&service("web", &[(LABEL, "nowhere")]))?;
    let other = json!({"loadBalancerClass": "example.com/other"});
    kubectl.apply(&with_spec("other", &[], &other)?)?;
    let warnings = [
        ("eip", "younger", "add/update eip"),
        ("service", "web", "AssignIPFailed"),
        ("service", "other", "OtherClass"),
    ];
    for (kind, name, reason) in warnings {
        wait::until("a warning, and the condition", || {
            let object = kubectl.get(&format!("{kind} {name}"))?;
            let conditions = &object["status"]["conditions"];
            let said = count(&cluster, name, reason)?;
            ensure!(
                said == 1,
                "{said} times about {name}: {}\n{}",
                kubectl.get("events")?,
                first.log()
            );
            ensure!(name == "other" || conditions[0]["status"] == "False", "{object}");
            Ok(())
        })?;
    }
    ensure!(first.stop(wait::patience())?.success(), "{}", first.log());
    let _second = start("second")?;
    // Of what is another's nothing is written down.
    wait::until("the second to say it", || {
        ensure!(count(&cluster, "other", "OtherClass")? == 2);
        Ok(())
    })?;
    kubectl.apply(&service("new", &[(LABEL, "nowhere")]))?;
    cluster.has_event("new", "Warning", "AssignIPFailed", "there is no Eip nowhere")?;
    for ((_, name, reason), times) in warnings.into_iter().zip([1, 1, 2]) {
        let said = count(&cluster, name, reason)?;
        ensure!(said == times, "{name} {reason}: {said} times");
    }
    Ok(())
}
