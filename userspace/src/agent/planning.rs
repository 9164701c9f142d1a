//! From what the sources say to a plan, and what follows from one at once.

use super::{Agent, replace};
use crate::source::netlink::Wanted;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use weir_core::{
    model::Cluster,
    plan::{Plan, ThisNode},
    tables::LivePod,
};

/// After how long, and how much more for each node, a node that tells others something should read it: twice what it waits
/// before it tells it ([`super::standings`]), and some more.
const UNHEARD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(40));

impl Agent {
    /// Plans anew; whatever follows from another plan is due then.
    pub(super) fn make_plan(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        if let Some(allocations) = &self.allocations {
            cluster.previous = allocations.addresses().clone();
        }
        let begun = Instant::now();
        self.unheard = is_unheard(cluster, &self.this, self.patience);
        let tunnels = cluster.tunnels.clone();
        if self.unheard {
            cluster.tunnels = None;
        }
        let next = self.memo.plan(cluster, &self.this);
        cluster.tunnels = tunnels;
        self.telemetry.planned(begun.elapsed());
        // Before anybody is told an address, it is on disk.
        if let Some(allocations) = &mut self.allocations {
            self.restep |= allocations.save(next.memory());
        }
        if self
            .plan
            .as_ref()
            .is_none_or(|last| last.nodes != next.nodes || last.interfaces != next.interfaces)
        {
            let wanted = wanted_by(&next, &self.settings.interfaces);
            self.wanted.send_if_modified(|last| replace(last, wanted));
        }
        self.restep |= self.plan.as_deref() != Some(&next);
        // What goes now must not take along a flow that has begun since the last look.
        match &self.plan {
            None => self.restep |= self.flow_table.look(),
            Some(last) => self.flow_table.assume(let_go(last, &next)),
        }
        self.plan = Some(Arc::new(next));
    }
}

/// Whether this node's own word that it takes packets out of the tunnel is not to be read, so long after its first plan: then
/// nothing follows from what others do not say, as they may not be able to either.
pub(super) fn is_unheard(cluster: &Cluster, this: &ThisNode, first: Option<Instant>) -> bool {
    let heard = cluster.tunnels.as_ref().is_none_or(|told| told.contains(&this.name));
    let nodes = u32::try_from(cluster.nodes.len()).unwrap_or(u32::MAX);
    let patience = UNHEARD.0.saturating_add(UNHEARD.1.saturating_mul(nodes));
    !heard && first.is_some_and(|first| first.elapsed() >= patience)
}

fn wanted_by(plan: &Plan, interfaces: &[String]) -> Wanted {
    Wanted {
        nodes: plan.nodes.values().copied().collect(),
        reach: plan
            .interfaces
            .values()
            .filter_map(|name| Some((name.clone(), Wanted::parse_reach(name)?)))
            .collect(),
        interfaces: interfaces.iter().cloned().collect(),
    }
}

/// The backends of this node that `next` takes from a frontend.
fn let_go<'a>(last: &'a Plan, next: &'a Plan) -> impl Iterator<Item = LivePod> + 'a {
    let changes = next.frontends.changes_since(&last.frontends);
    let changed = changes.filter_map(|(_, last, next)| Some((last?, next)));
    let lost = changed.flat_map(|(last, next)| {
        let all = last
            .backends
            .keys()
            .chain(last.draining.keys())
            .filter(|backend| backend.local);
        all.filter(move |backend| {
            !next.is_some_and(|next| next.backends.contains_key(*backend) || next.draining.contains_key(*backend))
        })
    });
    lost.map(LivePod::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn who_is_not_heard_for_long_draws_no_conclusions() {
        let this = ThisNode { name: "node-1".into() };
        let told = |nodes: &[&str]| Cluster {
            tunnels: Some(Arc::new(
                nodes.iter().map(|node| (*node).to_owned()).collect::<BTreeSet<_>>(),
            )),
            ..Cluster::default()
        };
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        assert!(!is_unheard(&told(&["node-2"]), &this, None), "before the first plan");
        assert!(!is_unheard(&told(&["node-2"]), &this, ago(4)));
        assert!(is_unheard(&told(&["node-2"]), &this, ago(6)));
        assert!(!is_unheard(&told(&["node-1"]), &this, ago(6)));
        assert!(
            !is_unheard(&Cluster::default(), &this, ago(6)),
            "nobody says such a thing"
        );
    }
}
