//! Planning again without doing again what cannot have changed.
//!
//! A plan has three dear parts: who gets which address, what each Service serves, and who owns each VIP. Each is kept with
//! what it follows from, and made anew when that differs. What it follows from is compared by value; what a source hands
//! over again as it was ([`SharedMap`](crate::SharedMap), [`Arc`](std::sync::Arc)) is compared by a look at a pointer. So a
//! plan is the same with a memo as without one, whatever was planned before: nothing is ever taken for unchanged that is not
//! equal.

use super::{
    Plan, ThisNode,
    allotment::Allotment,
    frontends::{shared_local, silent},
    nodes::Nodes,
    serving::{Serving, Stale},
    vips::{Election, Vips},
};
use crate::{ipam::Pools, model::Cluster};

/// The parts of the last plan, with what each follows from. Empty at first.
#[derive(Debug, Default)]
pub struct Memo {
    this: Option<ThisNode>,
    nodes: Nodes,
    allotment: Option<Allotment>,
    serving: Serving,
    vips: Vips,
}

impl Memo {
    /// What `this` node is to do for `cluster`: always what [`super::plan`] gives.
    pub fn plan(&mut self, cluster: &Cluster, this: &ThisNode) -> Plan {
        if self.this.as_ref() != Some(this) {
            *self = Self {
                this: Some(this.clone()),
                ..Self::default()
            };
        }
        let mut conditions = cluster.faults.clone();
        let nodes = Nodes::new(cluster, this, &mut conditions);
        let pools = Pools::new(&cluster.eips, &mut conditions);
        let last = self.allotment.take();
        let (allotment, anew) = allot(last, cluster, &pools);
        let stale = Stale {
            allotment: anew,
            nodes: self.nodes.tunnel_addresses != nodes.tunnel_addresses,
            silent: self.nodes.silent.symmetric_difference(&nodes.silent).collect(),
        };
        let delivered = self.serving.update(cluster, &allotment, (&nodes, this), &stale);
        let election = Election {
            this,
            nodes: &nodes,
            pools: &pools,
            eips: &allotment.eips,
        };
        if anew || self.nodes.eligible != nodes.eligible {
            let same_nodes = self.nodes.eligible == nodes.eligible;
            self.vips.elect_all(&election, self.serving.deliveries(), |address| {
                same_nodes && !delivered.contains(address)
            });
        } else {
            self.vips.elect(&election, self.serving.deliveries(), &delivered);
        }

        conditions.extend_from_slice(&allotment.conditions);
        for (address, sharing) in &allotment.sharing {
            conditions.extend(shared_local(cluster, *address, sharing));
        }
        let health_checks = self.serving.health_checks(&mut conditions);
        conditions.extend(self.serving.conditions().cloned());
        conditions.extend(self.serving.silent().into_iter().map(|node| silent(node)));
        conditions.extend(self.vips.conditions());
        conditions.sort();
        conditions.dedup();
        let plan = Plan {
            tunnel_address: nodes.tunnel_address(&this.name),
            vips: self.vips.all().clone(),
            interfaces: election.interfaces(),
            frontends: self.serving.frontends().clone(),
            health_checks,
            nodes: nodes.others(&this.name),
            remembered: allotment.remembered.clone(),
            allocations: allotment.addresses.clone(),
            conditions,
        };
        self.nodes = nodes;
        self.allotment = Some(allotment);
        plan
    }
}

/// Who has which address; and whether that had to be found out again.
fn allot(last: Option<Allotment>, cluster: &Cluster, pools: &Pools<'_>) -> (Allotment, bool) {
    match last {
        Some(last) if last.is_of(cluster) => (last, false),
        last => {
            let mut allotment = Allotment::new(cluster, pools);
            // The same once more, so that comparing it stays cheap.
            if let Some(last) = last.filter(|last| last.addresses == allotment.addresses) {
                allotment.addresses = last.addresses;
            }
            (allotment, true)
        }
    }
}
