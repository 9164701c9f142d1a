//! What a node is to do: [`plan`] decides it, [`Plan`] is the outcome, plain data that can be compared, printed and stored.
//!
//! Takes a whole [`Cluster`] and who this node is; gives VIPs, frontends with their backends, the other nodes, the
//! allocations to remember and conditions on whatever is wrong. Pure and total: bad input never fails a plan, it becomes
//! a condition on that object while all others are served. Does not know interfaces, next hops, map layouts or time.

mod allotment;
mod endpoints;
mod frontends;
mod health_checks;
mod keys;
mod memo;
mod nodes;
mod policy;
mod serving;
mod sources;
mod vips;
mod weights;

pub use crate::model::{Condition, Mode};
pub use health_checks::HealthCheck;
pub use keys::{BackendKey, FrontendKey};
pub use memo::Memo;
pub use policy::{Limits, Policy};
pub use sources::Sources;
pub(crate) use vips::left_to_cni;

use crate::{
    SharedMap,
    model::{Addresses, Cluster, ServiceKey},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// The node that plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThisNode {
    /// Its name, as in the cluster's node list.
    pub name: String,
}

/// Everything one node is to make true. Same inputs, same plan, on whatever node `this node` is not part of the answer.
///
/// What a plan has in common with the one before it may be shared with that, so comparing and keeping plans is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The address other nodes send tunnel packets to; `None` if this node is not in the cluster's node list.
    pub tunnel_address: Option<IpAddr>,
    /// Addresses given out, with who answers for each.
    pub vips: SharedMap<IpAddr, Arc<Vip>>,
    /// The interface that each Eip names, by the Eip's name: there this node answers for what it is elected for, now or later.
    /// Empty when it is not eligible.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interfaces: BTreeMap<String, String>,
    /// What is served at them.
    pub frontends: SharedMap<FrontendKey, Arc<Frontend>>,
    /// What is to be answered to whoever asks whether this node has endpoints of a Service, by port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub health_checks: BTreeMap<u16, HealthCheck>,
    /// Other nodes: tunnel address by name.
    pub nodes: BTreeMap<String, IpAddr>,
    /// Addresses of each Service.
    pub allocations: Arc<Addresses>,
    /// Addresses that Services had and may get back: those of a family in which they have none now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remembered: Addresses,
    /// What is wrong, object by object, in order.
    pub conditions: Vec<Condition>,
}

impl Plan {
    /// What to hand to the next planning as [`Cluster::previous`], also over a restart, so that addresses stay: those that
    /// are given and those that are remembered.
    #[must_use]
    pub fn memory(&self) -> Arc<Addresses> {
        let mut memory = Arc::clone(&self.allocations);
        if !self.remembered.is_empty() {
            let memory = Arc::make_mut(&mut memory);
            for (key, addresses) in &self.remembered {
                memory.entry(key.clone()).or_default().extend(addresses);
            }
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
    /// Interface the Eip names; its ARP and NDP are answered there. `None` when the Eip elects nobody.
    pub interface: Option<String>,
    /// Node elected to answer ARP and NDP for it; `None` when none is eligible, when no Service on it has a backend, or
    /// when the Eip elects nobody: with BGP, and where announcing it is left to the CNI.
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

/// What `this` node is to do for `cluster`. [`Memo::plan`] gives the same, and sooner when little has changed.
#[must_use]
pub fn plan(cluster: &Cluster, this: &ThisNode) -> Plan {
    Memo::default().plan(cluster, this)
}
