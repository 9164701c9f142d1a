//! Every address given out, with the node that answers for it.

use super::{Condition, ThisNode, Vip, nodes::Nodes, serving::Deliveries};
use crate::{
    SharedMap, election,
    ipam::Pools,
    model::{Eip, ObjectRef, reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The VIPs of the last plan.
#[derive(Debug, Default)]
pub(super) struct Vips {
    all: SharedMap<IpAddr, Arc<Vip>>,
    /// Those that could be served and have no owner, by Eip.
    unowned: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Eips whose addresses nobody is elected for, and what there is to say about it.
    unannounced: BTreeMap<String, Condition>,
}

/// What owners follow from, besides where an address can be served.
pub(super) struct Election<'a> {
    pub this: &'a ThisNode,
    pub nodes: &'a Nodes,
    pub pools: &'a Pools<'a>,
    /// The Eip of each address.
    pub eips: &'a BTreeMap<IpAddr, String>,
}

impl Election<'_> {
    /// Where this node answers for what it is elected for, by Eip; nowhere if it cannot be elected.
    pub(super) fn interfaces(&self) -> BTreeMap<String, String> {
        let is_eligible = self.nodes.eligible.contains(self.this.name.as_str());
        let pools = self
            .pools
            .of_family(None)
            .filter(|pool| is_eligible && pool.eip.elects());
        pools
            .filter_map(|pool| Some((pool.name.to_owned(), pool.eip.interface.clone()?)))
            .collect()
    }
}

impl Vips {
    pub(super) const fn all(&self) -> &SharedMap<IpAddr, Arc<Vip>> {
        &self.all
    }

    /// Finds an owner for every address. Where `is_as_before` says that the nodes, and where the address can be served, are
    /// as in the last plan, the owner stays if the Eip is the same.
    pub(super) fn elect_all(
        &mut self,
        election: &Election<'_>,
        deliveries: &Deliveries,
        is_as_before: impl Fn(&IpAddr) -> bool,
    ) {
        let former = std::mem::take(self);
        let mut all = Vec::with_capacity(election.eips.len());
        for address in election.eips.keys() {
            let before = former.all.get(address).filter(|_| is_as_before(address));
            let vip = self.elect_one(election, deliveries, *address, before);
            // What is equal stays the same one.
            let vip = vip.map(|vip| {
                former
                    .all
                    .get(address)
                    .filter(|before| **before == vip)
                    .cloned()
                    .unwrap_or(vip)
            });
            all.extend(vip.map(|vip| (*address, vip)));
        }
        self.all = all.into_iter().collect();
        if self.all == former.all {
            self.all = former.all;
        }
    }

    /// Finds an owner again for those that can be served elsewhere than before.
    pub(super) fn elect(&mut self, election: &Election<'_>, deliveries: &Deliveries, delivered: &BTreeSet<IpAddr>) {
        for address in delivered {
            for unowned in self.unowned.values_mut() {
                unowned.remove(address);
            }
            let vip = self.elect_one(election, deliveries, *address, None);
            if let Some(vip) = vip.filter(|vip| self.all.get(address) != Some(vip)) {
                self.all.insert(*address, vip);
            }
        }
    }

    /// One VIP, as `before` if that is of the same Eip; `None` if its Eip is none.
    fn elect_one(
        &mut self,
        election: &Election<'_>,
        deliveries: &Deliveries,
        address: IpAddr,
        before: Option<&Arc<Vip>>,
    ) -> Option<Arc<Vip>> {
        let pool = election.pools.named(election.eips.get(&address)?)?;
        let elects = pool.eip.elects();
        let delivery = deliveries.get(&address).filter(|_| elects);
        let interface = pool.eip.interface.as_ref().filter(|_| elects);
        let as_before =
            |vip: &&Arc<Vip>| vip.eip == pool.name && vip.mode == pool.eip.mode && vip.interface.as_ref() == interface;
        let vip = before.filter(as_before).cloned().unwrap_or_else(|| {
            let owner = delivery.and_then(|delivery| {
                let eligible = election.nodes.eligible.iter().map(AsRef::as_ref);
                election::owner(eligible.filter(|node| delivery.possible_at(node)), address)
            });
            Arc::new(Vip {
                eip: pool.name.into(),
                mode: pool.eip.mode,
                interface: interface.cloned(),
                owned: owner == Some(election.this.name.as_str()),
                owner: owner.map(str::to_owned),
            })
        });
        if delivery.is_some() && vip.owner.is_none() {
            self.unowned.entry(pool.name.into()).or_default().insert(address);
        }
        if !elects && !self.unannounced.contains_key(pool.name) {
            let said = left_to_cni(pool.name, pool.eip).unwrap_or_else(|| not_announced(pool.name));
            self.unannounced.insert(pool.name.into(), said);
        }
        Some(vip)
    }

    /// What is wrong with Eips, as far as announcing goes.
    pub(super) fn conditions(&self) -> impl Iterator<Item = Condition> {
        let unowned = self.unowned.iter().filter_map(|(eip, addresses)| {
            let first = addresses.first()?;
            Some(no_eligible_node((eip, (*first, addresses.len()))))
        });
        self.unannounced.values().cloned().chain(unowned)
    }
}

/// That it is somebody else's to announce an Eip, if it is.
pub(crate) fn left_to_cni(name: &str, eip: &Eip) -> Option<Condition> {
    let message = "its addresses are given out and served, and not announced: the label leaves it to somebody else to bring \
                   their traffic to the nodes. Remove the label if the nodes are to announce them.";
    let object = ObjectRef::cluster_scoped("Eip", name);
    let field = "metadata.labels[openelb.kubesphere.io/cni]";
    let said = || Condition::new(object, field, reason::LEFT_TO_CNI, message.into());
    eip.left_to_cni.then(said)
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
