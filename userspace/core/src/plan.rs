//! What a node is to do: [`plan`] decides it, [`Plan`] is the outcome, plain data that can be compared, printed and stored.
//!
//! Takes a whole [`Cluster`] and who this node is; gives VIPs, frontends with their backends, the other nodes, the
//! allocations to remember and conditions on whatever is wrong. Pure and total: bad input never fails a plan, it becomes
//! a condition on that object while all others are served. Does not know interfaces, next hops, map layouts or time.

mod endpoints;
mod frontends;
mod keys;
mod nodes;
mod policy;
mod sources;
mod weights;

pub use crate::model::{Condition, Mode};
pub use keys::{BackendKey, FrontendKey};
pub use policy::{Limits, Policy};
pub use sources::Sources;

use crate::{
    election, ipam,
    model::{Cluster, Family, ObjectRef, ServiceKey, reason},
};
use frontends::Frontends;
use nodes::Nodes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The node that plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThisNode {
    /// Its name, as in the cluster's node list.
    pub name: String,
}

/// Everything one node is to make true. Same inputs, same plan, on whatever node `this node` is not part of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The address other nodes send tunnel packets to; `None` if this node is not in the cluster's node list.
    pub tunnel_address: Option<IpAddr>,
    /// Addresses given out, with who answers for each.
    pub vips: BTreeMap<IpAddr, Vip>,
    /// What is served at them.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Other nodes: tunnel address by name.
    pub nodes: BTreeMap<String, IpAddr>,
    /// Addresses of each Service.
    pub allocations: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    /// Addresses that Services had and may get back: those of a family in which they have none now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remembered: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    /// What is wrong, object by object, in order.
    pub conditions: Vec<Condition>,
}

impl Plan {
    /// What to hand to the next planning as [`Cluster::previous`], also over a restart, so that addresses stay: those that
    /// are given and those that are remembered.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<ServiceKey, BTreeSet<IpAddr>> {
        let mut memory = self.allocations.clone();
        for (key, addresses) in &self.remembered {
            memory.entry(key.clone()).or_default().extend(addresses);
        }
        memory
    }
}

/// One address we answer for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// Eip it comes from.
    pub eip: String,
    /// How it is announced.
    pub mode: Mode,
    /// Interface the Eip names; its ARP and NDP are answered there. `None` for BGP.
    pub interface: Option<String>,
    /// Node elected to answer ARP and NDP for it; `None` when none is eligible, when no Service on it has a backend, or
    /// when the mode elects nobody.
    pub owner: Option<String>,
    /// Whether `owner` is this node.
    pub owned: bool,
}

/// What is behind a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// The Service it belongs to.
    pub service: ServiceKey,
    /// Name of the Service port, empty when it has none.
    pub port_name: String,
    /// Who may connect, how often, and whether a client stays with its backend.
    #[serde(default, skip_serializing_if = "Policy::is_none")]
    pub policy: Policy,
    /// Backends that get new flows, with their weights (1 unless said otherwise, never 0).
    pub backends: BTreeMap<BackendKey, u32>,
    /// Backends that only keep the flows they have: terminating, not ready, or of weight 0.
    pub draining: BTreeMap<BackendKey, Draining>,
}

/// Why a backend gets no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Draining {
    /// It is terminating, or of weight 0, and still serves.
    Serving,
    /// It does not serve now; its node may be dead.
    NotServing,
}

/// What `this` node is to do for `cluster`.
#[must_use]
pub fn plan(cluster: &Cluster, this: &ThisNode) -> Plan {
    let mut conditions = cluster.faults.clone();
    let nodes = Nodes::new(cluster, this, &mut conditions);
    let pools = ipam::Pools::new(&cluster.eips, &mut conditions);
    let allocations = ipam::allocate(cluster, &pools, &mut conditions);
    let frontends = Frontends::new(cluster, this, &nodes, &allocations, &mut conditions);
    let vips = vips(this, &nodes, &pools, &allocations, &frontends, &mut conditions);
    conditions.sort();
    conditions.dedup();
    Plan {
        tunnel_address: nodes.tunnel_address(&this.name),
        vips,
        frontends: frontends.frontends,
        nodes: nodes.others(&this.name),
        remembered: remembered(cluster, &allocations),
        allocations: allocations
            .by_service
            .into_iter()
            .map(|(key, addresses)| (key.clone(), addresses))
            .collect(),
        conditions,
    }
}

/// What Services had and have nothing of the kind for now: a mistake in an Eip, once corrected, is to cost no address.
fn remembered(cluster: &Cluster, allocations: &ipam::Allocations<'_>) -> BTreeMap<ServiceKey, BTreeSet<IpAddr>> {
    // A Service that is missing may be in what could not be read.
    let unread = cluster.is_partial();
    let wanting = |key: &ServiceKey| match cluster.services.get(key) {
        Some(service) => service.load_balancer && !service.deleting,
        None => unread,
    };
    let mut remembered = BTreeMap::new();
    for (key, previous) in cluster.previous.iter().filter(|(key, _)| wanting(key)) {
        let given = allocations.by_service.get(key);
        let has = |family| given.is_some_and(|given| given.iter().any(|address| Family::of(*address) == family));
        let missing: BTreeSet<_> = previous
            .iter()
            .copied()
            .filter(|address| !has(Family::of(*address)))
            .collect();
        if !missing.is_empty() {
            remembered.insert(key.clone(), missing);
        }
    }
    remembered
}

/// Every address given out, with the node that answers for it.
fn vips(
    this: &ThisNode,
    nodes: &Nodes<'_>,
    pools: &ipam::Pools<'_>,
    allocations: &ipam::Allocations<'_>,
    frontends: &Frontends<'_>,
    conditions: &mut Vec<Condition>,
) -> BTreeMap<IpAddr, Vip> {
    let mut vips = BTreeMap::new();
    let mut unowned: BTreeMap<&str, (IpAddr, usize)> = BTreeMap::new();
    let mut unannounced: BTreeSet<&str> = BTreeSet::new();
    for (address, claim) in &allocations.claims {
        let Some(pool) = pools.named(claim.eip) else { continue };
        // Until VRRP is spoken, `vip` is served the way `layer2` is: one owner that answers ARP and NDP.
        let elects = pool.eip.mode != Mode::Bgp;
        let delivery = frontends.delivery(*address).filter(|_| elects);
        let owner = delivery
            .and_then(|delivery| election::owner(nodes.eligible().filter(|node| delivery.possible_at(node)), *address));
        if delivery.is_some() && owner.is_none() {
            unowned.entry(pool.name).or_insert((*address, 0)).1 += 1;
        }
        if !elects {
            unannounced.insert(pool.name);
        }
        let vip = Vip {
            eip: pool.name.into(),
            mode: pool.eip.mode,
            interface: pool.eip.interface.clone().filter(|_| elects),
            owned: owner == Some(this.name.as_str()),
            owner: owner.map(str::to_owned),
        };
        vips.insert(*address, vip);
    }
    for eip in unannounced {
        let message =
            "its addresses are served but not announced, as BGP is not spoken. Route them to the nodes by other \
                       means, or set the protocol to layer2 (bgp is what an absent protocol means)."
                .into();
        let object = ObjectRef::cluster_scoped("Eip", eip);
        conditions.push(Condition::new(object, "spec.protocol", reason::NOT_ANNOUNCED, message));
    }
    for (eip, (first, count)) in unowned {
        let message = format!(
            "no node can answer for {count} of its addresses ({first} is the first): each node is not ready, is excluded by the \
             label node.kubernetes.io/exclude-from-external-load-balancers, or has no endpoint of a Service with \
             externalTrafficPolicy: Local. Bring such a node back."
        );
        conditions.push(Condition::new(
            ObjectRef::cluster_scoped("Eip", eip),
            "",
            reason::NO_ELIGIBLE_NODE,
            message,
        ));
    }
    vips
}
