//! Every address given out, with the node that answers for it.

use super::{Condition, ThisNode, Vip, frontends::Delivery, nodes::Nodes};
use crate::{
    ascending::Ascending,
    election,
    ipam::Pools,
    model::{Mode, ObjectRef, reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The VIPs of the last plan, and where each could be served; an address without a delivery has no backend.
#[derive(Debug, Default)]
pub(super) struct Vips {
    elected: BTreeMap<IpAddr, (Option<Arc<Delivery>>, Arc<Vip>)>,
}

impl Vips {
    /// Elects an owner for each of `eips` (the Eip of each address); again only where the delivery is another than in
    /// the last call, which was for the same node and the same eligible ones.
    pub(super) fn elect(
        &mut self,
        this: &ThisNode,
        nodes: &Nodes,
        pools: &Pools<'_>,
        eips: &BTreeMap<IpAddr, String>,
        deliveries: &BTreeMap<IpAddr, Arc<Delivery>>,
        conditions: &mut Vec<Condition>,
    ) -> BTreeMap<IpAddr, Arc<Vip>> {
        let last = std::mem::take(&mut self.elected);
        let (mut last, mut deliveries) = (Ascending::new(last.iter()), Ascending::new(deliveries.iter()));
        let mut elected = Vec::with_capacity(eips.len());
        let mut unowned: BTreeMap<&str, (IpAddr, usize)> = BTreeMap::new();
        let mut unannounced: BTreeSet<&str> = BTreeSet::new();
        for (address, eip) in eips {
            let delivery = deliveries.get(address);
            let Some(pool) = pools.named(eip) else { continue };
            // Until VRRP is spoken, `vip` is served the way `layer2` is: one owner that answers ARP and NDP.
            let elects = pool.eip.mode != Mode::Bgp;
            let delivery = delivery.filter(|_| elects);
            let interface = pool.eip.interface.as_ref().filter(|_| elects);
            let as_before = |(before, vip): &&(Option<Arc<Delivery>>, Arc<Vip>)| {
                before.as_ref() == delivery
                    && vip.eip == pool.name
                    && vip.mode == pool.eip.mode
                    && vip.interface.as_ref() == interface
            };
            let vip = last.get(address).filter(as_before).map(|(_, vip)| vip.clone());
            let vip = vip.unwrap_or_else(|| {
                let possible = |delivery: &Arc<Delivery>| {
                    let eligible = nodes.eligible.iter().map(AsRef::as_ref);
                    election::owner(eligible.filter(|node| delivery.possible_at(node)), *address)
                };
                let owner = delivery.and_then(possible);
                Arc::new(Vip {
                    eip: pool.name.into(),
                    mode: pool.eip.mode,
                    interface: interface.cloned(),
                    owned: owner == Some(this.name.as_str()),
                    owner: owner.map(str::to_owned),
                })
            });
            if delivery.is_some() && vip.owner.is_none() {
                unowned.entry(pool.name).or_insert((*address, 0)).1 += 1;
            }
            if !elects {
                unannounced.insert(pool.name);
            }
            elected.push((*address, (delivery.cloned(), vip)));
        }
        conditions.extend(unannounced.into_iter().map(not_announced));
        conditions.extend(unowned.into_iter().map(no_eligible_node));
        self.elected = elected.into_iter().collect();
        let vips = self.elected.iter();
        vips.map(|(address, (_, vip))| (*address, vip.clone())).collect()
    }

    /// Forgets who owns what.
    pub(super) fn forget(&mut self) {
        self.elected.clear();
    }
}

fn not_announced(eip: &str) -> Condition {
    let message = "its addresses are served but not announced, as BGP is not spoken. Route them to the nodes by other \
                   means, or set the protocol to layer2 (bgp is what an absent protocol means)."
        .into();
    let object = ObjectRef::cluster_scoped("Eip", eip);
    Condition::new(object, "spec.protocol", reason::NOT_ANNOUNCED, message)
}

fn no_eligible_node((eip, (first, count)): (&str, (IpAddr, usize))) -> Condition {
    let message = format!(
        "no node can answer for {count} of its addresses ({first} is the first): each node is not ready, is excluded by the \
         label node.kubernetes.io/exclude-from-external-load-balancers, or has no endpoint of a Service with \
         externalTrafficPolicy: Local. Bring such a node back."
    );
    let object = ObjectRef::cluster_scoped("Eip", eip);
    Condition::new(object, "", reason::NO_ELIGIBLE_NODE, message)
}
