//! Addresses that somebody else has given out: those in Services' status, as long as an Eip has them.
//!
//! Whether a Service ought to have them is not asked again, or a node would stop serving what the allocator still counts on.

use super::{
    allocate::Allocations,
    pools::Pools,
    request::{is_node_proxy, is_ours},
};
use crate::model::{Cluster, Condition, ObjectRef, Service, ServiceKey, reason};
use std::{collections::BTreeSet, net::IpAddr};

const FIELD: &str = "status.loadBalancer.ingress";

/// Gives every Service of ours the addresses in its status. Of two that have one port of one address, who came there first
/// keeps it.
pub(super) fn given<'a>(cluster: &'a Cluster, pools: &Pools<'a>, conditions: &mut Vec<Condition>) -> Allocations<'a> {
    let node_addresses: BTreeSet<IpAddr> = cluster
        .nodes
        .values()
        .flat_map(|node| node.internal_addresses.iter().copied())
        .collect();
    // What keeps a Service from being ours is for the allocator to say. A node proxy's status has addresses of nodes.
    let ours = |service: &Service| {
        let marked = service.label.is_some() && service.load_balancer && !service.deleting;
        (marked || is_ours(service, &cluster.rules, &mut |_, _, _| {})) && !is_node_proxy(service)
    };
    let services = cluster.services.iter().map(|(key, service)| (key, &**service));
    let services = services.filter(|(_, service)| ours(service));
    let mut shown: Vec<(&ServiceKey, &Service, IpAddr)> = services
        .flat_map(|(key, service)| service.ingress.iter().map(move |it| (key, service, it.to_canonical())))
        .collect();
    shown.sort_by_cached_key(|(key, service, address)| (cluster.came_after(key, *address), service.created, *key));

    let mut allocations = Allocations::default();
    for (key, service, address) in shown {
        let mut refuse = |reason, message| {
            conditions.push(Condition::new(ObjectRef::service(key), FIELD, reason, message));
        };
        let Some(pool) = pools.containing(address) else {
            let message = format!(
                "the Service has {address}, and no Eip that can be used has it, so it is not served. Add an Eip that has it, \
                 or see the conditions of the one that does."
            );
            refuse(reason::OUTSIDE_EIPS, message);
            continue;
        };
        if node_addresses.contains(&address) {
            let message = format!("{address} is a node's own address, so it is not served. Ask for another one.");
            refuse(reason::NODE_ADDRESS, message);
            continue;
        }
        let conflict = allocations
            .claims
            .get(&address)
            .and_then(|claim| claim.conflict(service));
        if let Some((port, protocol, other)) = conflict {
            let message = format!(
                "{address} is shared with Service {other}, which already has port {port}/{protocol} there, so this Service is \
                 not served there. Change the port of one of the two, or ask for another address."
            );
            refuse(reason::PORT_CONFLICT, message);
            continue;
        }
        allocations.give(key, service, address, pool.name, false);
    }
    allocations
}
