//! Who has which address, as the rest of a plan needs it; kept as long as nothing it follows from changes.

use super::frontends::Lost;
use crate::{
    SharedMap,
    ipam::{self, Allocations, Pools},
    model::{Addresses, Automatic, Cluster, Condition, Eip, Family, Rules, Service, ServiceKey},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The outcome of [`ipam::allocate`].
#[derive(Debug)]
pub(super) struct Allotment {
    basis: Basis,
    /// Addresses of each Service of ours that got any.
    pub addresses: Arc<Addresses>,
    /// What Services had and may get back.
    pub remembered: Addresses,
    /// The Eip of each address.
    pub eips: BTreeMap<IpAddr, String>,
    /// The Services that do not get all their ports.
    lost: BTreeMap<ServiceKey, Lost>,
    /// The Services at each address that has several.
    pub sharing: BTreeMap<IpAddr, Vec<ServiceKey>>,
    pub conditions: Vec<Condition>,
}

/// All of a cluster that addresses follow from.
#[derive(Debug, PartialEq, Eq)]
struct Basis {
    eips: BTreeMap<String, Eip>,
    services: SharedMap<ServiceKey, Arc<Service>>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    previous: Arc<Addresses>,
    automatic: Automatic,
    rules: Rules,
    partial: bool,
    /// Eips that a source could not read.
    unread: Vec<String>,
    node_addresses: Vec<IpAddr>,
}

impl Basis {
    fn of(cluster: &Cluster) -> Self {
        Self {
            eips: cluster.eips.clone(),
            services: cluster.services.clone(),
            namespaces: cluster.namespaces.clone(),
            previous: cluster.previous.clone(),
            automatic: cluster.automatic,
            rules: cluster.rules.clone(),
            partial: cluster.is_partial(),
            unread: cluster.unread_eips().map(str::to_owned).collect(),
            node_addresses: node_addresses(cluster).collect(),
        }
    }

    fn is_of(&self, cluster: &Cluster) -> bool {
        self.services == cluster.services
            && self.previous == cluster.previous
            && self.eips == cluster.eips
            && self.namespaces == cluster.namespaces
            && self.automatic == cluster.automatic
            && self.rules == cluster.rules
            && self.partial == cluster.is_partial()
            && self.unread.iter().map(String::as_str).eq(cluster.unread_eips())
            && self.node_addresses.iter().copied().eq(node_addresses(cluster))
    }
}

fn node_addresses(cluster: &Cluster) -> impl Iterator<Item = IpAddr> {
    let nodes = cluster.nodes.values();
    nodes.flat_map(|node| node.internal_addresses.iter().copied())
}

impl Allotment {
    pub(super) fn new(cluster: &Cluster, pools: &Pools<'_>) -> Self {
        let mut conditions = Vec::new();
        let mut given = ipam::allocate(cluster, pools, &mut conditions);
        given.leave_out_refused(pools);
        let eips = given.claims.iter();
        Self {
            basis: Basis::of(cluster),
            remembered: remembered(cluster, &given),
            eips: eips.map(|(address, claim)| (*address, claim.eip.to_owned())).collect(),
            lost: lost(cluster, &given),
            sharing: sharing(&given),
            addresses: Arc::new(
                given
                    .by_service
                    .into_iter()
                    .map(|(key, addresses)| (key.clone(), addresses))
                    .collect(),
            ),
            conditions,
        }
    }

    /// Whether [`Self::new`] would give the same again.
    pub(super) fn is_of(&self, cluster: &Cluster) -> bool {
        self.basis.is_of(cluster)
    }

    /// The ports that a Service does not get.
    pub(super) fn lost(&self, key: &ServiceKey) -> &Lost {
        static NONE: Lost = Lost::new();
        self.lost.get(key).unwrap_or(&NONE)
    }
}

/// What Services had and have nothing of the kind for now: a mistake in an Eip, once corrected, is to cost no address.
fn remembered(cluster: &Cluster, given: &Allocations<'_>) -> Addresses {
    // A Service that is missing may be in what could not be read.
    let unread = cluster.is_partial();
    let wanting = |key: &ServiceKey| match cluster.services.get(key) {
        Some(service) => service.load_balancer && !service.deleting,
        None => unread,
    };
    let mut remembered = BTreeMap::new();
    for (key, previous) in cluster.previous.iter().filter(|(key, _)| wanting(key)) {
        let given = given.by_service.get(key);
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

fn lost(cluster: &Cluster, given: &Allocations<'_>) -> BTreeMap<ServiceKey, Lost> {
    let mut lost: BTreeMap<ServiceKey, Lost> = BTreeMap::new();
    for (key, addresses) in &given.by_service {
        let ports = cluster.services.get(*key).map_or(&[][..], |service| &service.ports);
        for (address, port) in addresses
            .iter()
            .flat_map(|address| ports.iter().map(move |port| (address, port)))
        {
            let claim = given.claims.get(address);
            let holder = claim.and_then(|claim| claim.ports.get(&(port.port, &port.protocol)));
            if let Some(holder) = holder.filter(|holder| *holder != key) {
                let place = (*address, port.port, port.protocol.clone());
                lost.entry((*key).clone()).or_default().insert(place, (*holder).clone());
            }
        }
    }
    lost
}

fn sharing(given: &Allocations<'_>) -> BTreeMap<IpAddr, Vec<ServiceKey>> {
    let mut sharing: BTreeMap<IpAddr, Vec<&ServiceKey>> = BTreeMap::new();
    for (key, addresses) in &given.by_service {
        for address in addresses {
            sharing.entry(*address).or_default().push(key);
        }
    }
    let several = sharing.into_iter().filter(|(_, services)| services.len() > 1);
    several
        .map(|(address, services)| (address, services.into_iter().cloned().collect()))
        .collect()
}
