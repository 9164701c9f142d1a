//! The parts of a report, from a plan and what of it is programmed.

use super::{BackendReport, BackendState, FrontendReport, NodeReport, VipReport};
use crate::source::netlink::Network;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use weir_core::{
    model::ServiceKey,
    plan::{BackendKey, Plan, Vip},
    tables::Programmed,
};

pub(super) fn nodes(plan: &Plan, programmed: &Programmed, network: &Network) -> Vec<NodeReport> {
    let report = |(name, address): (&String, &IpAddr)| NodeReport {
        name: name.clone(),
        address: *address,
        id: programmed.node_id(*address),
        reachable: network.links.next_hops.contains_key(address),
    };
    plan.nodes.iter().map(report).collect()
}

pub(super) fn vips(plan: &Plan) -> Vec<VipReport> {
    let mut services: BTreeMap<IpAddr, Vec<ServiceKey>> = BTreeMap::new();
    for (service, addresses) in &*plan.allocations {
        for address in addresses {
            services.entry(*address).or_default().push(service.clone());
        }
    }
    let report = |(address, vip): (&IpAddr, &Arc<Vip>)| VipReport {
        address: *address,
        eip: vip.eip.clone(),
        mode: vip.mode,
        interface: vip.interface.clone(),
        owner: vip.owner.clone(),
        owned: vip.owned,
        services: services.remove(address).unwrap_or_default(),
    };
    plan.vips.iter().map(report).collect()
}

pub(super) fn frontends(plan: &Plan, programmed: &Programmed, network: &Network) -> Vec<FrontendReport> {
    let backend = |key: &BackendKey, weight: u32| {
        let reachable = key.local
            || plan
                .nodes
                .get(&*key.node)
                .is_some_and(|address| network.links.next_hops.contains_key(address));
        BackendReport {
            address: key.address,
            port: key.port,
            node: key.node.clone(),
            local: key.local,
            weight,
            state: match weight {
                _ if !reachable => BackendState::Unreachable,
                0 => BackendState::Draining,
                _ => BackendState::Serving,
            },
            id: programmed.backend_id(key),
        }
    };
    plan.frontends
        .iter()
        .map(|(key, frontend)| FrontendReport {
            address: key.address,
            port: key.port,
            protocol: key.protocol,
            service: frontend.service.clone(),
            port_name: frontend.port_name.clone(),
            policy: frontend.policy.clone(),
            id: programmed.frontend_id(key),
            backends: frontend
                .backends
                .iter()
                .map(|(key, weight)| backend(key, *weight))
                .chain(frontend.draining.keys().map(|key| backend(key, 0)))
                .collect(),
        })
        .collect()
}
