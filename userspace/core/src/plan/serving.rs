//! What all Services serve, kept from plan to plan: only those are looked at of which something is another.

use super::{
    Condition, Frontend, FrontendKey, HealthCheck, ThisNode,
    allotment::Allotment,
    frontends::{Asked, Delivery, Lost, Served},
    health_checks,
    nodes::Nodes,
};
use crate::{
    SharedMap,
    ascending::Ascending,
    model::{Cluster, Service, ServiceKey, Slices},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    slice,
    sync::Arc,
};

/// Nothing at first.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// Of the cluster that was planned for last.
    services: SharedMap<ServiceKey, Arc<Service>>,
    slices: SharedMap<ServiceKey, Slices>,
    /// Every Service with an address.
    kept: BTreeMap<ServiceKey, Kept>,
    frontends: SharedMap<FrontendKey, Arc<Frontend>>,
    deliveries: Deliveries,
    /// The Services with conditions, or with pods on silent nodes.
    faulty: BTreeSet<ServiceKey>,
    /// The Services with a health check.
    checked: BTreeSet<ServiceKey>,
}

/// Where each address can be served; one that is missing has no frontend with a backend.
pub(super) type Deliveries = BTreeMap<IpAddr, Arc<Delivery>>;

/// What a Service serves, and what that follows from besides the Service and its slices.
#[derive(Debug)]
struct Kept {
    addresses: BTreeSet<IpAddr>,
    lost: Lost,
    served: Served,
}

/// What is another than in the last plan, besides Services and their slices.
#[derive(Clone, Debug)]
pub(super) struct Stale<'a> {
    pub allotment: bool,
    /// Where tunnels end.
    pub nodes: bool,
    /// The nodes that take packets out of the tunnel now and did not, or the other way round.
    pub silent: BTreeSet<&'a Arc<str>>,
}

impl Serving {
    pub(super) const fn frontends(&self) -> &SharedMap<FrontendKey, Arc<Frontend>> {
        &self.frontends
    }

    pub(super) const fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.faulty().flat_map(|served| &served.conditions)
    }

    /// The nodes whose pods get no new connections, as they may not take packets out of the tunnel.
    pub(super) fn silent(&self) -> BTreeSet<&Arc<str>> {
        self.faulty().flat_map(|served| &served.silent).collect()
    }

    /// What is to be answered to health checks; where that cannot be, a condition says so.
    pub(super) fn health_checks(&self, conditions: &mut Vec<Condition>) -> BTreeMap<u16, HealthCheck> {
        let checked = self.checked.iter();
        let checked = checked.filter_map(|key| Some((key, &self.kept.get(key)?.served)));
        health_checks::all(checked, conditions)
    }

    fn faulty(&self) -> impl Iterator<Item = &Served> {
        let faulty = self.faulty.iter().filter_map(|key| self.kept.get(key));
        faulty.map(|kept| &kept.served)
    }

    /// Brings everything up to date; gives the addresses that can be served elsewhere than before.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        allotment: &Allotment,
        nodes: (&Nodes, &ThisNode),
        stale: &Stale<'_>,
    ) -> BTreeSet<IpAddr> {
        let services = mem::replace(&mut self.services, cluster.services.clone());
        let slices = mem::replace(&mut self.slices, cluster.endpoint_slices.clone());
        let services = cluster.services.changes_since(&services).map(|(key, ..)| key);
        let slices = cluster.endpoint_slices.changes_since(&slices).map(|(key, ..)| key);
        let mut changed: BTreeSet<&ServiceKey> = services.chain(slices).collect();
        if !stale.silent.is_empty() {
            let kept = allotment.addresses.keys().map(|key| (key, self.kept.get(key)));
            let there = kept.filter(|(_, kept)| kept.is_some_and(|kept| kept.served.is_on(&stale.silent)));
            changed.extend(there.map(|(key, _)| key));
        }
        let due = if stale.allotment || stale.nodes {
            self.due(allotment, &changed, stale.nodes)
        } else {
            changed.retain(|key| allotment.addresses.contains_key(*key));
            changed.into_iter().collect()
        };

        let mut former = if stale.allotment {
            self.leave(allotment)
        } else {
            Vec::new()
        };
        for key in &due {
            former.extend(self.serve(cluster, allotment, key, nodes));
        }
        // First what goes: what one Service has lost another may have now.
        for name in former.iter().flat_map(|served| served.frontends.keys()) {
            self.frontends.remove(name);
        }
        for kept in due.iter().filter_map(|key| self.kept.get(*key)) {
            let frontends = kept.served.frontends.iter();
            self.frontends
                .extend(frontends.map(|(name, frontend)| (*name, frontend.clone())));
        }
        if stale.allotment {
            self.deliver_all()
        } else {
            self.deliver(&due, allotment)
        }
    }

    /// Of all Services with addresses those that have something else than they had.
    fn due<'a>(&self, allotment: &'a Allotment, changed: &BTreeSet<&ServiceKey>, all: bool) -> Vec<&'a ServiceKey> {
        let mut kept = Ascending::new(self.kept.iter());
        let mut as_before = |(key, addresses): &(&ServiceKey, &BTreeSet<IpAddr>)| {
            let same = |kept: &Kept| kept.addresses == **addresses && kept.lost == *allotment.lost(key);
            kept.get(*key).is_some_and(same) && !all && !changed.contains(*key)
        };
        let mut due: Vec<_> = allotment.addresses.iter().collect();
        due.retain(|one| !as_before(one));
        due.into_iter().map(|(key, _)| key).collect()
    }

    /// Forgets the Services that have no address any more; gives what they served.
    fn leave(&mut self, allotment: &Allotment) -> Vec<Served> {
        let left = self
            .kept
            .extract_if(.., |key, _| !allotment.addresses.contains_key(key));
        let left = left.map(|(key, kept)| {
            self.faulty.remove(&key);
            self.checked.remove(&key);
            kept.served
        });
        left.collect()
    }

    /// Finds out what one Service serves; gives what it served before.
    fn serve(
        &mut self,
        cluster: &Cluster,
        allotment: &Allotment,
        key: &ServiceKey,
        (nodes, this): (&Nodes, &ThisNode),
    ) -> Option<Served> {
        static NO_SLICES: Slices = Slices::new();
        let asked = Asked {
            key,
            service: cluster.services.get(key)?,
            slices: cluster.endpoint_slices.get(key).unwrap_or(&NO_SLICES),
            addresses: allotment.addresses.get(key)?,
            lost: allotment.lost(key),
        };
        let next = Kept {
            addresses: asked.addresses.clone(),
            lost: asked.lost.clone(),
            served: Served::new(asked, nodes, this),
        };
        if next.served.conditions.is_empty() && next.served.silent.is_empty() {
            self.faulty.remove(key);
        } else {
            self.faulty.insert(key.clone());
        }
        if next.served.health_check.is_none() {
            self.checked.remove(key);
        } else {
            self.checked.insert(key.clone());
        }
        self.kept.insert(key.clone(), next).map(|kept| kept.served)
    }

    /// Finds out where addresses can be served; gives those where that is another.
    fn deliver_all(&mut self) -> BTreeSet<IpAddr> {
        let mut now = Deliveries::new();
        for (address, delivery) in self.kept.values().flat_map(|kept| &kept.served.deliveries) {
            now.entry(*address)
                .and_modify(|joined| Arc::make_mut(joined).join(delivery))
                .or_insert_with(|| delivery.clone());
        }
        let former = mem::replace(&mut self.deliveries, now);
        let other = |(address, delivery): &(&IpAddr, &Arc<Delivery>)| former.get(address) != Some(delivery);
        let new = self.deliveries.iter().filter(other).map(|(address, _)| *address);
        let gone = former.keys().filter(|address| !self.deliveries.contains_key(address));
        new.chain(gone.copied()).collect()
    }

    /// The same at the addresses of these Services alone, while everybody has the addresses he had.
    fn deliver(&mut self, due: &[&ServiceKey], allotment: &Allotment) -> BTreeSet<IpAddr> {
        let mut other = BTreeSet::new();
        for key in due {
            for address in allotment.addresses.get(*key).into_iter().flatten() {
                let alone = slice::from_ref(*key);
                let sharing = allotment.sharing.get(address).map_or(alone, Vec::as_slice);
                let at = |key| self.kept.get(key)?.served.deliveries.get(address);
                let mut all = sharing.iter().filter_map(at).cloned();
                let now = all.next().map(|mut first| {
                    all.for_each(|one| Arc::make_mut(&mut first).join(&one));
                    first
                });
                if self.deliveries.get(address) != now.as_ref() {
                    other.insert(*address);
                    match now {
                        Some(now) => drop(self.deliveries.insert(*address, now)),
                        None => drop(self.deliveries.remove(address)),
                    }
                }
            }
        }
        other
    }
}
