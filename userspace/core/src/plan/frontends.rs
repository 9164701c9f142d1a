//! What is served at each address, and from which nodes that can be done.

use super::{
    BackendKey, Condition, Frontend, FrontendKey, ThisNode,
    endpoints::{Endpoints, Target},
    nodes::Nodes,
    policy::Policies,
    weights::Weights,
};
use crate::{
    annotations,
    ipam::Allocations,
    model::{Cluster, Family, ObjectRef, PortProtocol, Service, ServiceKey, TrafficPolicy, reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// All frontends, with where each address can be served.
#[derive(Default)]
pub(super) struct Frontends<'a> {
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    deliveries: BTreeMap<IpAddr, Delivery<'a>>,
}

/// The nodes an address's traffic may be drawn to.
#[derive(Default)]
pub(super) struct Delivery<'a> {
    /// Some frontend can be served from any node.
    anywhere: bool,
    /// Nodes with an endpoint of a frontend that is served on its own nodes only.
    nodes: BTreeSet<&'a str>,
}

impl Delivery<'_> {
    pub(super) fn possible_at(&self, node: &str) -> bool {
        self.anywhere || self.nodes.contains(node)
    }
}

impl<'a> Frontends<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        this: &ThisNode,
        nodes: &Nodes<'_>,
        allocations: &Allocations<'a>,
        conditions: &mut Vec<Condition>,
    ) -> Self {
        let mut all = Self::default();
        let mut sharing: BTreeMap<IpAddr, Vec<&ServiceKey>> = BTreeMap::new();
        for (key, addresses) in &allocations.by_service {
            let Some(service) = cluster.services.get(*key) else {
                continue;
            };
            let slices = cluster.endpoint_slices.get(*key);
            let weights = Weights::new(key, service, slices, nodes, conditions);
            let mut one = OneService {
                key,
                service,
                endpoints: Endpoints::new(service, slices, nodes, &weights),
                policies: Policies::new(key, service, conditions),
                conditions,
            };
            one.check();
            for address in addresses {
                one.serve_at(*address, this, allocations, &mut all);
                sharing.entry(*address).or_default().push(key);
            }
        }
        for (address, services) in sharing.into_iter().filter(|(_, services)| services.len() > 1) {
            conditions.extend(shared_local(cluster, address, &services));
        }
        all
    }

    /// Where an address can be served; `None` if no frontend of it has a backend.
    pub(super) fn delivery(&self, address: IpAddr) -> Option<&Delivery<'a>> {
        self.deliveries.get(&address)
    }
}

/// One Service on its way to frontends.
struct OneService<'a, 'c> {
    key: &'a ServiceKey,
    service: &'a Service,
    endpoints: Endpoints<'a>,
    policies: Policies,
    conditions: &'c mut Vec<Condition>,
}

impl<'a> OneService<'a, '_> {
    fn say(&mut self, field: &str, reason: &str, message: String) {
        self.conditions
            .push(Condition::new(ObjectRef::service(self.key), field, reason, message));
    }

    /// Conditions that are the same at each of its addresses.
    fn check(&mut self) {
        for (index, port) in self.service.ports.iter().enumerate() {
            if let PortProtocol::Other(name) = &port.protocol {
                let message = format!(
                    "{name} is not served in XDP: Weir stands aside and kube-proxy serves port {} on the node that answers. \
                     Nothing needs to be done if kube-proxy runs there.",
                    port.port
                );
                self.say(&format!("spec.ports[{index}].protocol"), reason::STOOD_ASIDE, message);
            }
        }
        if let Some(first) = self.endpoints.unreachable.first() {
            let message = format!(
                "{} of its endpoints cannot be sent to ({first} is the first): their nodeName is missing, or is not a Node \
                 with an InternalIP. Correct the EndpointSlice, or add the Node.",
                self.endpoints.unreachable.len()
            );
            self.say("endpoints[].nodeName", reason::UNREACHABLE_ENDPOINT, message);
        }
    }

    fn serve_at(&mut self, address: IpAddr, this: &ThisNode, allocations: &Allocations<'a>, all: &mut Frontends<'a>) {
        let family = Family::of(address);
        let traffic_policy = self.service.traffic_policy;
        let policy = self.policies.of(family);
        if let Some(field) = self.policies.shut_out(family).map(str::to_owned) {
            let message = format!(
                "no {family} range is in it, so {address} refuses everybody. Add the ranges that may connect to it, or take \
                 {family} out of spec.ipFamilies."
            );
            self.say(&field, reason::NO_SOURCE_ALLOWED, message);
        }
        let mut without: Vec<(usize, u16)> = Vec::new();
        let mut withheld: Vec<u16> = Vec::new();
        let mut served = 0;
        for (index, port) in self.service.ports.iter().enumerate() {
            let PortProtocol::Served(protocol) = port.protocol else {
                continue;
            };
            let key = FrontendKey {
                address,
                port: port.port,
                protocol,
            };
            if all.frontends.get(&key).is_some_and(|first| first.service == *self.key) {
                let message = format!(
                    "port {}/{protocol} is listed twice; the first counts. Remove one.",
                    port.port
                );
                self.say(&format!("spec.ports[{index}].port"), reason::FRONTEND_TAKEN, message);
                continue;
            }
            let claim = allocations.claims.get(&address);
            let holder = claim.and_then(|claim| claim.ports.get(&(port.port, &port.protocol)));
            if let Some(holder) = holder.filter(|holder| **holder != self.key) {
                let message = format!(
                    "{key} belongs to Service {holder}, which comes first by age, then name, so {} does not get it. Change the port of one of \
                     the two, or ask for another address.",
                    self.key
                );
                self.say(&format!("spec.ports[{index}].port"), reason::FRONTEND_TAKEN, message);
                continue;
            }
            let targets = self
                .endpoints
                .targets((&port.name, protocol, family), traffic_policy, &this.name);
            if !targets.nodes.is_empty() {
                served += 1;
                let delivery = all.deliveries.entry(address).or_default();
                match traffic_policy {
                    TrafficPolicy::Local => delivery.nodes.extend(&targets.nodes),
                    TrafficPolicy::Cluster => delivery.anywhere = true,
                }
                if !targets.available {
                    withheld.push(port.port);
                }
            } else {
                without.push((index, port.port));
            }
            let backend = |target: &Target<'_>| BackendKey {
                address: target.address,
                port: target.port,
                protocol,
                node: target.node.into(),
                local: target.node == this.name,
            };
            let weighted = |target: &Target<'_>| (backend(target), target.weight);
            let frontend = Frontend {
                service: self.key.clone(),
                port_name: port.name.clone(),
                policy: policy.clone(),
                backends: targets.serving.iter().map(weighted).collect(),
                draining: targets
                    .draining
                    .iter()
                    .map(|(target, draining)| (backend(target), *draining))
                    .collect(),
            };
            all.frontends.insert(key, frontend);
        }
        for port in withheld {
            let message = format!(
                "every {family} endpoint of port {port} has weight 0, so nobody takes new connections to {address} there, and \
                 those that are there go on. Give one of them another weight."
            );
            self.say(&annotations::field(annotations::WEIGHTS), reason::NO_ENDPOINTS, message);
        }
        if served == 0 {
            let message = format!(
                "no {family} endpoint is ready, so {address} is not announced for it. Check that its selector matches running \
                 pods, and that the EndpointSlices name their ports as the Service does."
            );
            self.say("spec.selector", reason::NO_ENDPOINTS, message);
            return;
        }
        for (index, port) in without {
            let message = format!(
                "no {family} endpoint is ready for port {port}, so nothing is served at {address} there. Check that the pods \
                 listen on it, and that the EndpointSlices name the port as the Service does."
            );
            self.say(&format!("spec.ports[{index}]"), reason::NO_ENDPOINTS, message);
        }
    }
}

/// Sharing draws traffic to the nodes of every Service on the address, so `Local` cannot keep its promise there.
fn shared_local(cluster: &Cluster, address: IpAddr, services: &[&ServiceKey]) -> Vec<Condition> {
    let local = |key: &&&ServiceKey| {
        cluster
            .services
            .get(**key)
            .is_some_and(|service| service.traffic_policy == TrafficPolicy::Local)
    };
    let about = |key: &&ServiceKey| {
        let others: Vec<_> = services
            .iter()
            .filter(|other| *other != key)
            .map(ToString::to_string)
            .collect();
        let message = format!(
            "{address} is shared with Service {}, so its traffic may come to a node without an endpoint of this one, where \
             Local serves nothing. Give it an address of its own, or use externalTrafficPolicy: Cluster.",
            others.join(", ")
        );
        Condition::new(
            ObjectRef::service(key),
            "spec.externalTrafficPolicy",
            reason::SHARED_LOCAL,
            message,
        )
    };
    services.iter().filter(local).map(about).collect()
}
