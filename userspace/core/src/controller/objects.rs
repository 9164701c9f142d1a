//! The objects as the API server has them: beyond what they ask for ([`Cluster`]), their versions and what has been written
//! into them.

use crate::{
    model::{Automatic, Cluster, Service, ServiceKey},
    standing::Standing,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Label of a Service: the Eip its address is of.
pub const EIP_LABEL: &str = "eip.openelb.kubesphere.io/v1alpha2";
/// Finalizer of a Service that has an address.
pub const SERVICE_FINALIZER: &str = "finalizer.lb.kubesphere.io/v1alpha1";
/// Finalizers by which OpenELB, and Porter before it, take down the node proxy of a Service that is being deleted.
pub const NODE_PROXY_FINALIZERS: [&str; 3] = [
    "node-proxy.openelb.kubesphere.io/finalizer",
    "node-proxy.porter.kubesphere.io/finalizer",
    "lbs.porter.kubesphere.io/finalizer",
];
/// Type of the condition of a Service that says whether it is served. A Service that always was has none.
pub const SERVED: &str = "lb.weir.dev/Served";
/// Type of the condition of an Eip that says whether any node does for it what it should.
pub const READY: &str = "Ready";
/// Finalizer of an Eip.
pub const EIP_FINALIZER: &str = "finalizer.ipam.kubesphere.io/v1alpha1";

/// A snapshot of everything that gets written, or that writing depends on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What the objects ask for.
    pub(super) cluster: Cluster,
    /// Services; the same as in `cluster`.
    pub(super) services: BTreeMap<ServiceKey, ServiceObject>,
    /// Eips; the same as in `cluster`.
    pub(super) eips: BTreeMap<String, EipObject>,
    /// Nodes whose agents are silent.
    pub(super) silent: BTreeSet<String>,
}

/// What is written into a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceObject {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Value of [`EIP_LABEL`].
    pub label: Option<String>,
    /// Whether it has [`SERVICE_FINALIZER`].
    pub finalizer: bool,
    /// Whether it has any of [`NODE_PROXY_FINALIZERS`].
    pub node_proxy: bool,
    /// Whether `status.loadBalancer.ingress` has anything that is not just an address: host names, ports.
    pub foreign_ingress: bool,
    /// The condition [`SERVED`] of its status.
    pub served: Option<StatusCondition>,
}

/// A condition in an object's status, of a type that is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusCondition {
    /// Whether `status` is `True`; else it is `False`.
    pub holds: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// What is wrong and what to do about it, if it does not hold.
    pub message: String,
}

/// What is written into an Eip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EipObject {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Whether it has [`EIP_FINALIZER`].
    pub finalizer: bool,
    /// Finalizers of others.
    pub other_finalizers: Vec<String>,
    /// `status`, as far as it is the book and what follows from it.
    pub status: EipStatus,
    /// `status.ready` and the condition [`READY`].
    pub ready: (bool, Option<StatusCondition>),
    /// `status.nodes`: how it stands on each node.
    pub nodes: BTreeMap<String, Standing>,
}

/// The fields of an Eip's status that are the book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EipStatus {
    /// Whether every address is in use.
    pub occupied: bool,
    /// Number of addresses in use.
    pub usage: i64,
    /// Number of addresses, `i64::MAX` if there are more.
    pub pool_size: i64,
    /// Services (`namespace/name`, joined by `;`) by address, as written.
    pub used: BTreeMap<String, String>,
    /// The first address.
    pub first_ip: String,
    /// The last address.
    pub last_ip: String,
    /// Whether it is IPv4.
    pub v4: bool,
}

impl EipStatus {
    /// Who is in the book for each address. What is no address or names no Service is left out.
    pub fn entries(&self) -> impl Iterator<Item = (IpAddr, ServiceKey)> {
        self.used.iter().flat_map(|(address, keys)| {
            let address: Option<IpAddr> = address.parse().ok();
            let keys = keys.split(';').filter_map(|key| key.trim().parse().ok());
            keys.filter_map(move |key| Some((address?, key)))
        })
    }
}

impl EipStatus {
    /// The addresses that several Services have, in the order in which they came.
    #[must_use]
    pub fn shared(&self) -> BTreeMap<IpAddr, Vec<ServiceKey>> {
        let mut shared: BTreeMap<IpAddr, Vec<ServiceKey>> = BTreeMap::new();
        for (address, key) in self.entries() {
            shared.entry(address).or_default().push(key);
        }
        shared.retain(|_, keys| keys.len() > 1);
        shared
    }
}

impl ServiceObject {
    /// Whether it carries anything that says it has, or had, an address of ours.
    #[must_use]
    pub const fn marked(&self) -> bool {
        self.label.is_some() || self.finalizer
    }
}

impl World {
    /// A snapshot. What `cluster` says about who gives out and who had what is replaced by what the books say; nothing is
    /// given out anew unless `give`.
    #[must_use]
    pub fn new(
        mut cluster: Cluster,
        services: BTreeMap<ServiceKey, ServiceObject>,
        eips: BTreeMap<String, EipObject>,
        give: bool,
    ) -> Self {
        let mut previous: BTreeMap<ServiceKey, BTreeSet<IpAddr>> = BTreeMap::new();
        for (address, key) in eips.values().flat_map(|eip| eip.status.entries()) {
            previous.entry(key).or_default().insert(address);
        }
        cluster.previous = Arc::new(previous);
        for (name, eip) in &mut cluster.eips {
            eip.shared = eips.get(name).map(|eip| eip.status.shared()).unwrap_or_default();
        }
        let world = Self {
            cluster,
            services,
            eips,
            silent: BTreeSet::new(),
        };
        world.giving(give)
    }

    /// The same snapshot, what the agents of these nodes once said being of no worth.
    #[must_use]
    pub fn not_hearing(mut self, silent: BTreeSet<String>) -> Self {
        self.silent = silent;
        self
    }

    /// Every node, and whether it has an entry in an Eip's status.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<String, bool> {
        let entries = self.eips.values().flat_map(|eip| eip.nodes.keys());
        let with_entry: BTreeSet<&String> = entries.collect();
        let nodes = self.cluster.nodes.keys();
        nodes.map(|node| (node.clone(), with_entry.contains(node))).collect()
    }

    /// The same snapshot, by which addresses may be given out or not.
    #[must_use]
    pub fn giving(mut self, give: bool) -> Self {
        self.cluster.automatic = if give { Automatic::Lowest } else { Automatic::Kept };
        self
    }

    /// What is written into an Eip.
    #[must_use]
    pub fn eip(&self, name: &str) -> Option<&EipObject> {
        self.eips.get(name)
    }

    /// Whether an Eip is being deleted.
    #[must_use]
    pub fn is_deleting(&self, eip: &str) -> bool {
        self.cluster.eips.get(eip).is_some_and(|eip| eip.deleting)
    }

    /// What is written into a Service.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&ServiceObject> {
        self.services.get(key)
    }

    /// The finalizers that a Service loses with its mark: ours, and, if it is being deleted, those of OpenELB's node proxy. It has
    /// not all of them.
    #[must_use]
    pub fn unmarked(&self, key: &ServiceKey) -> Vec<&'static str> {
        let service = self.cluster.services.get(key);
        // While it lives, OpenELB may come back to it.
        let deleting = service.is_some_and(|service| service.deleting);
        let of_proxy = NODE_PROXY_FINALIZERS.into_iter().filter(|_| deleting);
        [SERVICE_FINALIZER].into_iter().chain(of_proxy).collect()
    }

    /// Versions of the Eips by name, for telling whether they are still those of the API server.
    pub fn eip_versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.eips
            .iter()
            .map(|(name, eip)| (name.as_str(), eip.resource_version.as_str()))
    }

    /// Every Service with what it asks for and what is written into it.
    pub(super) fn services(&self) -> impl Iterator<Item = (&ServiceKey, &Service, &ServiceObject)> {
        self.services
            .iter()
            .filter_map(|(key, object)| Some((key, &**self.cluster.services.get(key)?, object)))
    }
}
