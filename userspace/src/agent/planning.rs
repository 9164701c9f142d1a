//! From what the sources say to a plan, and what follows from one at once.

use super::{Agent, replace};
use crate::source::netlink::Wanted;
use std::sync::Arc;
use tokio::time::Instant;
use weir_core::{plan::Plan, tables::LivePod};

impl Agent {
    /// Plans anew; whatever follows from another plan is due then.
    pub(super) fn make_plan(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        if let Some(allocations) = &self.allocations {
            cluster.previous = allocations.addresses().clone();
        }
        let begun = Instant::now();
        let next = self.memo.plan(cluster, &self.this);
        self.telemetry.planned(begun.elapsed());
        // Before anybody is told an address, it is on disk.
        if let Some(allocations) = &mut self.allocations {
            self.restep |= allocations.save(next.memory());
        }
        if self
            .plan
            .as_ref()
            .is_none_or(|last| last.nodes != next.nodes || last.vips != next.vips)
        {
            self.wanted.send_if_modified(|wanted| replace(wanted, wanted_by(&next)));
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

fn wanted_by(plan: &Plan) -> Wanted {
    let reach = plan.vips.values().filter_map(|vip| vip.interface.as_deref());
    Wanted {
        nodes: plan.nodes.values().copied().collect(),
        reach: reach
            .filter_map(|name| Some((name.to_owned(), Wanted::parse_reach(name)?)))
            .collect(),
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
