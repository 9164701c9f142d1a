//! Whether agents still speak: by a Lease (coordination.k8s.io) of each, that it renews.
//!
//! What an agent has said in the status of an Eip stays there when it is gone, and Kubernetes' own readiness of a node says
//! nothing about it: a node stays Ready when the DaemonSet no longer wants it, or its agent cannot start. Pods would tell for
//! nothing, but only of agents that a DaemonSet has started, and not what a hanging one does. A Lease is what kubelets use for
//! the same; ours is renewed a third as often or less ([`renewal`]), and read by one controller.
//!
//! As with [`crate::lease`], no clock is compared with another's: an agent is silent when *we* have seen nothing new of it for
//! as long as its Lease is good for. An API server that was away is no agent's silence: the count begins anew.

use std::{collections::BTreeMap, time::Duration};

/// The label of agents' Leases, and its value.
pub const AGENT_LEASES: (&str, &str) = ("lb.weir.dev/lease-of", "agent");
/// How long a node that has no Lease is waited for.
const UNTOLD: Duration = Duration::from_secs(90);
/// Of how many renewals of a Lease all but one may be lost.
const RENEWALS: u32 = 3;
/// What each node adds to the time a Lease is good for, so that all agents together renew ten times a second at most.
const OF_A_NODE: Duration = Duration::from_millis(300);

/// How long an agent's Lease is good for in a cluster of so many nodes, and how often it is renewed; `least`: of the former.
#[must_use]
pub fn renewal(least: Duration, nodes: u32) -> (Duration, Duration) {
    let good_for = least.max(OF_A_NODE * nodes);
    (good_for, good_for / RENEWALS)
}

/// The Lease of an agent, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLease {
    /// `metadata.resourceVersion`: another with every renewal.
    pub resource_version: String,
    /// `spec.leaseDurationSeconds`.
    pub good_for: Duration,
}

/// What has been seen of one node's agent.
#[derive(Clone, Debug)]
struct Heard {
    version: Option<String>,
    /// Whether any Eip's status has an entry of it.
    has_entry: bool,
    /// When there was something new.
    at: Duration,
    silent: bool,
}

/// What has been seen of all agents.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    heard: BTreeMap<String, Heard>,
    blind: bool,
}

impl Liveness {
    /// Takes in what there is to see at `now` (on a clock of our own that never goes back): the Leases by node, and every node
    /// of the cluster with whether it has an entry in an Eip's status. An entry that appears is a sign of life, too: it may be
    /// seen before the Lease.
    pub fn look(
        &mut self,
        now: Duration,
        leases: &BTreeMap<String, AgentLease>,
        nodes: impl IntoIterator<Item = (String, bool)>,
    ) {
        let blind = std::mem::take(&mut self.blind);
        let mut former = std::mem::take(&mut self.heard);
        let heard = nodes.into_iter().map(|(node, has_entry)| {
            let lease = leases.get(&node);
            let version = lease.map(|lease| lease.resource_version.clone());
            let before = former.remove(&node).filter(|before| {
                before.version == version && (before.has_entry || !has_entry) && (before.silent || !blind)
            });
            let at = before.map_or(now, |before| before.at);
            let good_for = lease.map_or(UNTOLD, |lease| lease.good_for);
            let heard = Heard {
                version,
                has_entry,
                at,
                silent: now.saturating_sub(at) >= good_for,
            };
            (node, heard)
        });
        self.heard = heard.collect();
    }

    /// The Leases could not be read: whoever is not silent yet may have spoken since.
    pub const fn look_failed(&mut self) {
        self.blind = true;
    }

    /// The nodes whose agents are silent, or that have none, as of the last look.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        let silent = self.heard.iter().filter(|(_, heard)| heard.silent);
        silent.map(|(node, _)| node.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One node, `a`, whose Lease is good for 30 s.
    fn look(liveness: &mut Liveness, seconds: u64, version: Option<&str>, has_entry: bool) -> bool {
        let lease = version.map(|version| AgentLease {
            resource_version: version.into(),
            good_for: at(30),
        });
        let leases = lease.map(|lease| ("a".to_owned(), lease)).into_iter().collect();
        liveness.look(at(seconds), &leases, [("a".to_owned(), has_entry)]);
        liveness.silent().eq(["a"])
    }

    #[test]
    fn who_does_not_renew_for_as_long_as_the_lease_is_good_is_silent_until_it_does() {
        let mut liveness = Liveness::default();
        assert!(!look(&mut liveness, 1000, Some("1"), true));
        assert!(!look(&mut liveness, 1029, Some("1"), true));
        assert!(!look(&mut liveness, 1031, Some("2"), true), "renewed");
        assert!(!look(&mut liveness, 1060, Some("2"), true));
        assert!(look(&mut liveness, 1061, Some("2"), true));
        // That its entry is taken away is none of its doing.
        assert!(look(&mut liveness, 1062, Some("2"), false));
        assert!(!look(&mut liveness, 1063, Some("3"), false));
    }

    #[test]
    fn a_node_without_a_lease_is_waited_for_and_an_entry_that_appears_is_a_sign() {
        let mut liveness = Liveness::default();
        assert!(!look(&mut liveness, 0, None, false));
        assert!(look(&mut liveness, 90, None, false));
        assert!(!look(&mut liveness, 100, None, true));
        assert!(!look(&mut liveness, 189, None, true));
        assert!(look(&mut liveness, 190, None, true));
        // A node that has just come is waited for, however long we have looked.
        let nodes = [("a".to_owned(), true), ("b".to_owned(), false)];
        liveness.look(at(200), &BTreeMap::new(), nodes.clone());
        assert!(liveness.silent().eq(["a"]));
        liveness.look(at(290), &BTreeMap::new(), nodes);
        assert!(liveness.silent().eq(["a", "b"]));
        // Who is no node any more is forgotten.
        liveness.look(at(300), &BTreeMap::new(), []);
        assert_eq!(liveness.silent().count(), 0);
    }

    #[test]
    fn an_outage_is_no_agents_silence() {
        let mut liveness = Liveness::default();
        look(&mut liveness, 0, Some("1"), true);
        liveness.look_failed();
        assert!(!look(&mut liveness, 500, Some("1"), true));
        assert!(look(&mut liveness, 530, Some("1"), true));
        // But whoever was silent before is so after it.
        liveness.look_failed();
        assert!(look(&mut liveness, 1000, Some("1"), true));
    }

    /// Figures of `docs/kubernetes.md`.
    #[test]
    fn all_together_renew_ten_times_a_second_at_most() {
        let least = at(90);
        assert_eq!(renewal(least, 3), (at(90), at(30)));
        assert_eq!(renewal(least, 300), (at(90), at(30)));
        assert_eq!(renewal(least, 500), (at(150), at(50)));
    }
}
