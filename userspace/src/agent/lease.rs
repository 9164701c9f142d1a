//! The Lease by which an agent lets the controller know that it lives: what it has said in Eips' statuses counts no longer than
//! that. Each agent has one, in the namespace of ours, under a name that follows from the node's.

use super::standings::manager;
use crate::{causes::error_text, metrics::Alive};
use k8s_openapi::{
    api::{coordination::v1::Lease as Object, core::v1::Node},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use weir_core::controller::{AGENT_LEASES, renewal};

/// A request that is not answered by then is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts.
const AGAIN: Duration = Duration::from_secs(5);
/// A loop that has not turned for so long does not live.
const STANDSTILL: Duration = Duration::from_secs(60);

/// One agent's Lease.
pub(super) struct Lease {
    leases: Api<Object>,
    nodes: Api<Node>,
    node: String,
    /// How long it is good for, at least.
    least: Duration,
    alive: Arc<Alive>,
    /// The Node as its owner, so that it goes with it.
    owner: Option<Value>,
    /// Until when it is good.
    until: Option<Instant>,
    renew_at: Instant,
    /// Whether it has been said that it cannot be written.
    warned: bool,
}

impl Lease {
    /// Of `node`, in `namespace`, not written yet; it is renewed as long as `alive`.
    pub(super) fn new(client: &Client, namespace: &str, node: &str, least: Duration, alive: Arc<Alive>) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            nodes: Api::all(client.clone()),
            node: node.to_owned(),
            least,
            alive,
            owner: None,
            until: None,
            renew_at: Instant::now(),
            warned: false,
        }
    }

    /// Whether it is good now.
    pub(super) fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Writes it if that is due, in a cluster of so many nodes; gives when to come again.
    pub(super) async fn renew(&mut self, nodes: u32) -> Instant {
        let now = Instant::now();
        if now < self.renew_at {
            return self.renew_at;
        }
        let (good_for, period) = renewal(self.least, nodes);
        let written = match self.alive.unwell("agent", STANDSTILL) {
            Some(unwell) => Err(unwell),
            None => match timeout(PATIENCE, self.write(good_for)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error_text(&error)),
                Err(_) => Err("no answer".into()),
            },
        };
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.warned) {
                    info!("this agent's Lease is written again");
                }
                self.until = Some(now + good_for);
                self.renew_at = now + period;
            }
            Err(problem) => {
                if !std::mem::replace(&mut self.warned, true) {
                    warn!(
                        problem,
                        "cannot write this agent's Lease, so statuses of Eips will not say how they stand on this node; Services are \
                         served all the same"
                    );
                }
                self.renew_at = Instant::now() + AGAIN.min(period);
            }
        }
        self.renew_at
    }

    async fn write(&mut self, good_for: Duration) -> Result<(), kube::Error> {
        if self.owner.is_none() {
            let this = ListParams::default().fields(&format!("metadata.name={}", self.node));
            let found = self.nodes.list_metadata(&this).await?.items.into_iter().next();
            let uid = found.and_then(|node| node.metadata.uid);
            self.owner = uid.map(|uid| json!({"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": uid}));
        }
        let name = manager(&self.node);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                "labels": {AGENT_LEASES.0: AGENT_LEASES.1},
                "ownerReferences": self.owner.iter().collect::<Vec<_>>(),
            },
            "spec": {
                "holderIdentity": self.node,
                "leaseDurationSeconds": good_for.as_secs(),
                "renewTime": MicroTime(Timestamp::now()),
            },
        });
        let params = PatchParams::apply(&name).force();
        self.leases.patch(&name, &params, &Patch::Apply(lease)).await.map(drop)
    }
}
