//! Requests of the controller that are held up in the API server, where they are about to be carried out.

use crate::controlled::Cluster;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
};
use tests::{kube::WEIR_NAMESPACE, lab::wait};

/// Where the API server asks whether it may carry them out.
const GATE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9444);
/// The controller's account.
pub const ACCOUNT: &str = "weir-controller";
/// An event that is never made, by which is seen whether the API server asks.
const TRIED: &str = "tried";

/// Holds some of the controller's requests up: each connection is one of them, and when it is dropped, the request goes on, or is
/// refused with 500.
pub struct Gate<'a> {
    cluster: &'a Cluster,
    asked: Receiver<TcpStream>,
    open: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl<'a> Gate<'a> {
    /// For requests that these `rules` of a validating webhook select, and, if there is one, this condition (CEL). What becomes of
    /// those that are let go: `Ignore`: they are carried out; `Fail`: they are not.
    pub fn close(cluster: &'a Cluster, rules: &Value, condition: Option<&str>, policy: &str) -> Result<Self> {
        let namespace = cluster.control_plane.namespace();
        let socket = namespace.run(|| Ok(TcpListener::bind(GATE)?))?;
        let (tell, asked) = mpsc::channel();
        let open = Arc::new(AtomicBool::new(false));
        let ended = open.clone();
        let listener = Some(thread::spawn(move || {
            for connection in socket.incoming().flatten() {
                if ended.load(Ordering::SeqCst) || tell.send(connection).is_err() {
                    break;
                }
            }
        }));
        let ours = format!("request.userInfo.username == 'system:serviceaccount:{WEIR_NAMESPACE}:{ACCOUNT}'");
        let webhook = |name: &str, rules: &Value, condition: &str, policy: &str| {
            json!({
                "name": format!("{name}.weir.dev"),
                "clientConfig": {"url": format!("https://{GATE}")},
                "rules": rules,
                "matchConditions": [
                    {"name": "ours", "expression": ours}, {"name": "selected", "expression": condition},
                ],
                "failurePolicy": policy, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 30,
            })
        };
        let is_tried = format!("request.name == '{TRIED}' || object.metadata.name == '{TRIED}'");
        let selected = format!("!({is_tried}) && ({})", condition.unwrap_or("true"));
        cluster.kubectl().apply(&format!(
            "{}\n",
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "gate"},
                "webhooks": [
                    webhook("gate", rules, &selected, policy),
                    webhook("tried", &events(), &is_tried, "Ignore"),
                ],
            })
        ))?;
        let gate = Self {
            cluster,
            asked,
            open,
            listener,
        };
        gate.is_closed()?;
        Ok(gate)
    }

    /// Waits until the API server knows of it.
    fn is_closed(&self) -> Result<()> {
        let account = self.cluster.control_plane.kubectl_as(WEIR_NAMESPACE, ACCOUNT)?;
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": TRIED, "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "action": "try", "reason": "Tried", "type": "Normal", "note": "tried",
            "reportingController": "test", "reportingInstance": "test",
            "regarding": {"kind": "Service", "namespace": "default", "name": "tried", "apiVersion": "v1"},
        });
        let closed = AtomicBool::new(false);
        thread::scope(|scope| {
            let trying = scope.spawn(|| {
                wait::until("a request to be asked for", || {
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

    /// The next request that the API server is about to carry out.
    pub fn next(&self) -> Result<TcpStream> {
        self.asked.recv_timeout(wait::patience()).context("no request has come")
    }

    /// Lets everything go that comes from now on.
    pub fn open(self) -> Result<()> {
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
        let came = namespace.run(|| Ok(TcpStream::connect(GATE)?));
        if let Some(listener) = self.listener.take().filter(|_| came.is_ok()) {
            let _ = listener.join();
        }
    }
}

/// Rules that select new events.
pub fn events() -> Value {
    json!([{"apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["events"]}])
}
