//! Planning again without doing again what cannot have changed.
//!
//! A plan has three dear parts: who gets which address, what each Service serves, and who owns each VIP. Each is kept with
//! what it follows from, and made anew when that differs. What it follows from is compared by value; where a source hands
//! over the same [`Arc`] again, comparing is one look at a pointer. So a plan is the same with a memo as without one,
//! whatever was planned before: nothing is ever taken for unchanged that is not equal.

use super::{
    Plan, ThisNode,
    allotment::Allotment,
    frontends::{Asked, Delivery, Lost, Served, shared_local},
    nodes::Nodes,
    vips::Vips,
};
use crate::{
    ascending::Ascending,
    ipam::Pools,
    model::{Cluster, Service, ServiceKey, Slices},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

/// The parts of the last plan, with what each follows from. Empty at first.
#[derive(Debug, Default)]
pub struct Memo {
    this: Option<ThisNode>,
    nodes: Nodes,
    allotment: Option<Allotment>,
    services: BTreeMap<ServiceKey, Option<Kept>>,
    vips: Vips,
}

/// What a Service serves.
#[derive(Debug)]
struct Kept {
    service: Arc<Service>,
    slices: Slices,
    addresses: BTreeSet<IpAddr>,
    lost: Lost,
    served: Served,
}

impl Kept {
    fn is_of(&self, service: &Arc<Service>, asked: &Asked<'_>) -> bool {
        self.service == *service
            && self.slices == *asked.slices
            && self.addresses == *asked.addresses
            && self.lost == *asked.lost
    }
}

impl Memo {
    /// What `this` node is to do for `cluster`: always what [`super::plan`] gives.
    pub fn plan(&mut self, cluster: &Cluster, this: &ThisNode) -> Plan {
        let mut conditions = cluster.faults.clone();
        self.enter_nodes(Nodes::new(cluster, this, &mut conditions), this);
        let pools = Pools::new(&cluster.eips, &mut conditions);
        self.allot(cluster, &pools);
        self.serve(cluster, this);

        let Self {
            nodes,
            allotment: Some(allotment),
            services,
            vips,
            ..
        } = self
        else {
            unreachable!("addresses were allotted above");
        };
        conditions.extend_from_slice(&allotment.conditions);
        let mut frontends = Vec::with_capacity(services.len());
        let mut deliveries = BTreeMap::new();
        for kept in services.values().flatten() {
            let served = &kept.served;
            frontends.extend(
                served
                    .frontends
                    .iter()
                    .map(|(name, frontend)| (*name, frontend.clone())),
            );
            served.deliveries.iter().for_each(|one| join(&mut deliveries, one));
            conditions.extend_from_slice(&served.conditions);
        }
        for (address, sharing) in &allotment.sharing {
            conditions.extend(shared_local(cluster, *address, sharing));
        }
        let vips = vips.elect(this, nodes, &pools, &allotment.eips, &deliveries, &mut conditions);
        conditions.sort();
        conditions.dedup();
        Plan {
            tunnel_address: nodes.tunnel_address(&this.name),
            vips,
            frontends: frontends.into_iter().collect(),
            nodes: nodes.others(&this.name),
            remembered: allotment.remembered.clone(),
            allocations: allotment.addresses.clone(),
            conditions,
        }
    }

    /// Forgets what follows from nodes that have changed.
    fn enter_nodes(&mut self, nodes: Nodes, this: &ThisNode) {
        if self.this.as_ref() != Some(this) {
            *self = Self {
                this: Some(this.clone()),
                ..Self::default()
            };
        }
        if self.nodes.eligible != nodes.eligible {
            self.vips.forget();
        }
        if self.nodes.tunnel_addresses != nodes.tunnel_addresses {
            self.services.values_mut().for_each(|kept| *kept = None);
        }
        self.nodes = nodes;
    }

    fn allot(&mut self, cluster: &Cluster, pools: &Pools<'_>) {
        if self
            .allotment
            .as_ref()
            .is_some_and(|allotment| allotment.is_of(cluster))
        {
            return;
        }
        let mut allotment = Allotment::new(cluster, pools);
        // The same once more, so that comparing it stays cheap.
        if let Some(last) = self
            .allotment
            .take()
            .filter(|last| last.addresses == allotment.addresses)
        {
            allotment.addresses = last.addresses;
        }
        self.services.retain(|key, _| allotment.addresses.contains_key(key));
        for key in allotment.addresses.keys() {
            if !self.services.contains_key(key) {
                self.services.insert(key.clone(), None);
            }
        }
        self.allotment = Some(allotment);
    }

    /// Brings every Service with an address up to date.
    fn serve(&mut self, cluster: &Cluster, this: &ThisNode) {
        static NO_SLICES: Slices = Slices::new();
        let Some(allotment) = &self.allotment else { return };
        let mut services = Ascending::new(cluster.services.iter());
        let mut slices = Ascending::new(cluster.endpoint_slices.iter());
        // Both have the same keys.
        for ((key, kept), addresses) in self.services.iter_mut().zip(allotment.addresses.values()) {
            let Some(service) = services.get(key) else { continue };
            let asked = Asked {
                key,
                service,
                slices: slices.get(key).unwrap_or(&NO_SLICES),
                addresses,
                lost: allotment.lost(key),
            };
            if kept.as_ref().is_some_and(|kept| kept.is_of(service, &asked)) {
                continue;
            }
            *kept = Some(Kept {
                service: service.clone(),
                slices: asked.slices.clone(),
                addresses: addresses.clone(),
                lost: asked.lost.clone(),
                served: Served::new(asked, &self.nodes, this),
            });
        }
    }
}

/// Adds where one Service can be served at an address to where others can.
fn join(deliveries: &mut BTreeMap<IpAddr, Arc<Delivery>>, (address, delivery): (&IpAddr, &Arc<Delivery>)) {
    match deliveries.entry(*address) {
        Entry::Vacant(entry) => drop(entry.insert(delivery.clone())),
        Entry::Occupied(mut entry) => Arc::make_mut(entry.get_mut()).join(delivery),
    }
}
