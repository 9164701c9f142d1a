//! Telling the cluster how Eips stand on this node: a field of its own in each Eip's status, by server-side apply.
//!
//! Beside the agent's own work, which never waits for it: what is to be said is compared with what the API says is said, and
//! the difference is written; late enough that what passes by itself is not told, and the more nodes there are, the seldomer,
//! as every node is told what any of them writes. Nothing is said without a Lease: the controller would take it away.

use super::lease::Lease;
use crate::{causes::error_text, metrics::Alive, source::kube::Records};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};
use weir_core::standing::Standing;
use weir_crds::{Eip, GROUP, NodeStanding, ServiceProblem};

/// How long something has to be so before it is told.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two writes to one Eip: at least, and for each node of the cluster.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(200));
/// How long one node's turn is, when all have something to say.
const TURN: Duration = Duration::from_millis(20);
/// The same after a refusal.
const REFUSED: Duration = Duration::from_secs(60);
/// A request that is not answered by then is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest name of a field manager.
const LONGEST_MANAGER: usize = 128;

/// By name of an Eip.
type ByEip = Arc<BTreeMap<String, Standing>>;

/// What is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    standings: ByEip,
    nodes: u32,
}

/// What is said, and what is to be.
#[derive(Debug)]
pub struct Standings {
    node: String,
    wanted: watch::Sender<Wanted>,
    said: watch::Sender<ByEip>,
    /// The count of changes of Eips up to which `said` goes.
    seen: Option<u64>,
    alive: Arc<Alive>,
    /// Ends the writer when this is dropped.
    _writer: JoinSet<()>,
}

impl Standings {
    /// For `node`, with a Lease in `namespace` that is good for at least so long; needs a runtime.
    #[must_use]
    pub fn start(client: Client, node: &str, namespace: &str, lease: Duration) -> Self {
        let (wanted, wanted_seen) = watch::channel(Wanted::default());
        let (said, said_seen) = watch::channel(ByEip::default());
        let mut tasks = JoinSet::new();
        let alive = Arc::new(Alive::default());
        let writer = Writer {
            lease: Lease::new(&client, namespace, node, lease, alive.clone()),
            api: Api::all(client),
            node: node.to_owned(),
            manager: manager(node),
            since: BTreeMap::new(),
            not_before: BTreeMap::new(),
            turn: (hash(node) % 1000) as u32,
        };
        tasks.spawn(writer.run(wanted_seen, said_seen));
        Self {
            node: node.to_owned(),
            wanted,
            said,
            seen: None,
            alive,
            _writer: tasks,
        }
    }

    /// The agent's loop turns; while it does not, the Lease runs out.
    pub fn beat(&self) {
        self.alive.beat();
    }

    /// What the API says that this node says. An Eip that is not there is not written.
    pub fn are(&mut self, records: &Records) {
        if self.seen.replace(records.eip_changes) == Some(records.eip_changes) {
            return;
        }
        let eips = records.eips.iter();
        let said = eips.map(|(name, eip)| (name.clone(), eip.nodes.get(&self.node).cloned().unwrap_or_default()));
        self.said.send_if_modified(|before| replace(before, said.collect()));
    }

    /// What this node is to say, of so many.
    pub fn should_be(&self, standings: BTreeMap<String, Standing>, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        self.wanted.send_if_modified(|before| {
            let others = std::mem::replace(&mut before.nodes, nodes) != nodes;
            replace(&mut before.standings, standings) || others
        });
    }
}

fn replace(before: &mut ByEip, now: BTreeMap<String, Standing>) -> bool {
    let differs = **before != now;
    if differs {
        *before = Arc::new(now);
    }
    differs
}

struct Writer {
    lease: Lease,
    api: Api<Eip>,
    node: String,
    manager: String,
    /// Since when an Eip says something else than it should.
    since: BTreeMap<String, Instant>,
    /// Before when an Eip is not written again.
    not_before: BTreeMap<String, Instant>,
    /// The node's share of the time in which nodes write one after the other, in thousandths.
    turn: u32,
}

impl Writer {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, mut said: watch::Receiver<ByEip>) {
        loop {
            let now = wanted.borrow_and_update().clone();
            let is = said.borrow_and_update().clone();
            let mut next = None;
            // An agent that has made nothing true yet has nothing to say.
            if now.nodes > 0 {
                let renewal = self.lease.renew(now.nodes).await;
                let writes = self.write(&now, &is).await;
                next = Some(writes.map_or(renewal, |at| at.min(renewal)));
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                changed = said.changed() => if changed.is_err() { return },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Writes what is due; gives when to come again, if something is not.
    async fn write(&mut self, wanted: &Wanted, said: &BTreeMap<String, Standing>) -> Option<Instant> {
        if !self.lease.holds() {
            return None;
        }
        let now = Instant::now();
        let former = std::mem::take(&mut self.since);
        self.not_before.retain(|_, until| *until > now);
        let mut next: Option<Instant> = None;
        for (eip, standing) in &*wanted.standings {
            if said.get(eip).is_none_or(|said| said == standing) {
                continue;
            }
            let since = former.get(eip).copied().unwrap_or(now);
            // Not all at once, or they would be in each other's way.
            let turn = TURN * wanted.nodes * self.turn / 1000;
            let at = (since + SETTLED + turn).max(self.not_before.get(eip).copied().unwrap_or(now));
            let again = if at <= now {
                let pause = PAUSE.0.max(PAUSE.1 * wanted.nodes);
                let pause = if self.tell(eip, standing).await { pause } else { REFUSED };
                let again = Instant::now() + pause;
                self.not_before.insert(eip.clone(), again);
                again
            } else {
                at
            };
            // Until the API says that it is said.
            self.since.insert(eip.clone(), since);
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        next
    }

    /// Whether it is written.
    async fn tell(&self, eip: &str, standing: &Standing) -> bool {
        debug!(eip, ?standing, "telling how an Eip stands here");
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha2"),
            "kind": "Eip",
            "status": {"nodes": {&self.node: object(standing)}},
        });
        let params = PatchParams::apply(&self.manager).force();
        let patch = Patch::Apply(patch);
        let written = timeout(PATIENCE, self.api.patch_status(eip, &params, &patch)).await;
        let problem = match written {
            Ok(Ok(_)) => return true,
            // Gone, or many write at once: it is seen and tried again.
            Ok(Err(kube::Error::Api(status))) if [404, 409].contains(&status.code) => return true,
            Ok(Err(error)) => error_text(&error),
            Err(_) => "no answer".into(),
        };
        warn!(
            eip,
            problem, "cannot tell in the Eip's status how it stands on this node; it is served all the same"
        );
        false
    }
}

fn object(standing: &Standing) -> NodeStanding {
    let problems = standing.problems.iter().map(|problem| ServiceProblem {
        service: problem.service.to_string(),
        field: problem.field.clone(),
        reason: problem.reason.clone(),
        message: problem.message.clone(),
    });
    NodeStanding {
        ready: standing.ready,
        message: standing.message.clone(),
        takes_tunnel: Some(standing.takes_tunnel),
        announces: standing.announces.iter().map(ToString::to_string).collect(),
        problems: problems.collect(),
    }
}

fn hash(node: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    hasher.finish()
}

/// Whose field a node's is to the API server, and the name of its Lease; no two nodes have one name, or one would take the
/// other's away.
pub(super) fn manager(node: &str) -> String {
    let name = format!("weir-agent-{node}");
    if name.len() <= LONGEST_MANAGER {
        return name;
    }
    let hash = format!("-{:016x}", hash(node));
    let start: String = name.chars().take(LONGEST_MANAGER - hash.len()).collect();
    start + &hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_of_nodes_stay_apart() {
        assert_eq!(manager("node-a"), "weir-agent-node-a");
        let long = "n".repeat(250);
        let (one, other) = (manager(&format!("{long}a")), manager(&format!("{long}b")));
        assert!(one.len() <= LONGEST_MANAGER && one != other);
    }
}
