//! Events on their way to an API server that does not take them at once, and those of one controller after another (B25).

use crate::controlled::{Cluster, LABEL, eip, pool, service, with_spec};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
};
use tests::{
    kube::WEIR_NAMESPACE,
    lab::{process::Process, wait},
};

/// Where the API server asks whether it may take events of the controller.
const GATE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9444);
const ACCOUNT: &str = "weir-controller";

/// Holds the controller's events in one namespace up in the API server: each connection is one that it would take, and goes on, or is refused
/// with 500, when that is dropped.
struct Gate<'a> {
    cluster: &'a Cluster,
    of: &'a str,
    asked: Receiver<TcpStream>,
    open: Arc<AtomicBool>,
}

impl<'a> Gate<'a> {
    /// What becomes of events that are let go: `Ignore`: they are taken; `Fail`: they are not.
    fn close(cluster: &'a Cluster, policy: &str) -> Result<Self> {
        Self::close_for(cluster, "default", policy)
    }

    /// The same for the events in another namespace.
    fn close_for(cluster: &'a Cluster, of: &'a str, policy: &str) -> Result<Self> {
        let namespace = cluster.control_plane.namespace();
        let listener = namespace.run(|| Ok(TcpListener::bind(GATE)?))?;
        let (tell, asked) = mpsc::channel();
        let open = Arc::new(AtomicBool::new(false));
        let ended = open.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) || tell.send(connection).is_err() {
                    break;
                }
            }
        });
        let ours = format!("request.userInfo.username == 'system:serviceaccount:{WEIR_NAMESPACE}:{ACCOUNT}'");
        cluster.kubectl().apply(&format!(
            "{}\n",
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "gate"},
                "webhooks": [{
                    "name": "gate.weir.dev",
                    "clientConfig": {"url": format!("https://{GATE}")},
                    "rules": [{
                        "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
                        "resources": ["events"],
                    }],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": of}},
                    "matchConditions": [{"name": "ours", "expression": ours}],
                    "failurePolicy": policy, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": 30,
                }],
            })
        ))?;
        let gate = Self {
            cluster,
            of,
            asked,
            open,
        };
        gate.is_closed()?;
        Ok(gate)
    }

    /// Waits until the API server knows of it.
    fn is_closed(&self) -> Result<()> {
        let account = self.cluster.control_plane.kubectl_as(WEIR_NAMESPACE, ACCOUNT)?;
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "tried", "namespace": self.of}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "action": "try", "reason": "Tried", "type": "Normal", "note": "tried",
            "reportingController": "test", "reportingInstance": "test",
            "regarding": {"kind": "Service", "namespace": self.of, "name": "tried", "apiVersion": "v1"},
        });
        let closed = AtomicBool::new(false);
        thread::scope(|scope| {
            let trying = scope.spawn(|| {
                wait::until("an event to be asked for", || {
                    let tried = account.run_with("create --dry-run=server", &event.to_string());
                    ensure!(closed.load(Ordering::SeqCst), "{tried:?}");
                    Ok(())
                })
            });
            let asked = self.next()?;
            closed.store(true, Ordering::SeqCst);
            drop(asked);
            trying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The next event that the API server is about to take.
    fn next(&self) -> Result<TcpStream> {
        self.asked.recv_timeout(wait::patience()).context("no event has come")
    }

    /// Lets everything go that comes from now on.
    fn open(self) -> Result<()> {
        self.cluster
            .kubectl()
            .run("delete validatingwebhookconfiguration gate")
            .map(drop)
    }
}

impl Drop for Gate<'_> {
    /// Leaves the address to the next one.
    fn drop(&mut self) {
        self.open.store(true, Ordering::SeqCst);
        let namespace = self.cluster.control_plane.namespace();
        // It looks when somebody comes.
        let _ = namespace.run(|| Ok(TcpStream::connect(GATE)?));
    }
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
    let gate = Gate::close(&cluster, "Fail")?;
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
    let gate = Gate::close(&cluster, "Ignore")?;
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
    let gate = Gate::close_for(&cluster, "held", "Fail")?;
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
    let gate = Gate::close(&cluster, "Ignore")?;
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
    let gate = Gate::close(&cluster, "Ignore")?;
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
