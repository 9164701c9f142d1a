//! What one Service serves at its addresses, and from which nodes that can be done.

use super::{
    BackendKey, Condition, Frontend, FrontendKey, ThisNode,
    endpoints::{Endpoints, Target},
    health_checks,
    nodes::Nodes,
    policy::Policies,
    weights::Weights,
};
use crate::{
    annotations,
    model::{Cluster, Family, ObjectRef, PortProtocol, Service, ServiceKey, Slices, TrafficPolicy, reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// What follows from one Service.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    /// Where each of its addresses can be served; an address that is missing has no frontend with a backend.
    pub deliveries: BTreeMap<IpAddr, Arc<Delivery>>,
    pub conditions: Vec<Condition>,
    /// Nodes whose pods get no new connections, as they may not take packets out of the tunnel.
    pub silent: BTreeSet<Arc<str>>,
    /// The port where it is asked whether this node has endpoints of it, and how many it has.
    pub health_check: Option<(u16, usize)>,
}

/// The nodes an address's traffic may be drawn to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Some frontend can be served from any node.
    anywhere: bool,
    /// Nodes with an endpoint of a frontend that is served on its own nodes only.
    nodes: BTreeSet<Arc<str>>,
}

impl Delivery {
    pub(super) fn possible_at(&self, node: &str) -> bool {
        self.anywhere || self.nodes.contains(node)
    }

    /// Adds what another Service at the address has.
    pub(super) fn join(&mut self, other: &Self) {
        self.anywhere |= other.anywhere;
        self.nodes.extend(other.nodes.iter().cloned());
    }
}

/// Ports that a Service does not get at an address, with the Service that has each.
pub(super) type Lost = BTreeMap<(IpAddr, u16, PortProtocol), ServiceKey>;

/// All that a Service is served by.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub key: &'a ServiceKey,
    pub service: &'a Service,
    pub slices: &'a Slices,
    pub addresses: &'a BTreeSet<IpAddr>,
    pub lost: &'a Lost,
}

impl Served {
    pub(super) fn new(asked: Asked<'_>, nodes: &Nodes, this: &ThisNode) -> Self {
        let Asked {
            key, service, slices, ..
        } = asked;
        let mut served = Self::default();
        let weights = Weights::new(key, service, slices, nodes, &mut served.conditions);
        let one = OneService {
            asked,
            endpoints: Endpoints::new(service, slices, nodes, &weights),
            policies: Policies::new(key, service, &mut served.conditions),
        };
        one.check(&mut served);
        served.health_check = health_checks::of(asked, || one.endpoints.ready_on(&this.name));
        for address in asked.addresses {
            one.serve_at(*address, this, &mut served);
        }
        served
    }

    /// Whether one of these nodes has a backend of it.
    pub(super) fn is_on(&self, nodes: &BTreeSet<&Arc<str>>) -> bool {
        let mut backends = self
            .frontends
            .values()
            .flat_map(|frontend| frontend.backends.keys().chain(frontend.draining.keys()));
        backends.any(|backend| nodes.contains(&backend.node))
    }

    fn say(&mut self, key: &ServiceKey, field: &str, reason: &str, message: String) {
        self.conditions
            .push(Condition::new(ObjectRef::service(key), field, reason, message));
    }
}

/// One Service on its way to frontends.
struct OneService<'a> {
    asked: Asked<'a>,
    endpoints: Endpoints<'a>,
    policies: Policies,
}

impl OneService<'_> {
    /// Conditions that are the same at each of its addresses.
    fn check(&self, served: &mut Served) {
        let Asked { key, service, .. } = self.asked;
        for (index, port) in service.ports.iter().enumerate() {
            if let PortProtocol::Other(name) = &port.protocol {
                let message = format!(
                    "{name} is not served in XDP: Weir stands aside and kube-proxy serves port {} on the node that answers. \
                     Nothing needs to be done if kube-proxy runs there.",
                    port.port
                );
                served.say(
                    key,
                    &format!("spec.ports[{index}].protocol"),
                    reason::STOOD_ASIDE,
                    message,
                );
            }
        }
        if let Some(first) = self.endpoints.unreachable.first() {
            let message = format!(
                "{} of its endpoints cannot be sent to ({first} is the first): their nodeName is missing, or is not a Node \
                 with an InternalIP. Correct the EndpointSlice, or add the Node.",
                self.endpoints.unreachable.len()
            );
            served.say(key, "endpoints[].nodeName", reason::UNREACHABLE_ENDPOINT, message);
        }
    }

    fn serve_at(&self, address: IpAddr, this: &ThisNode, served: &mut Served) {
        let Asked { key, service, lost, .. } = self.asked;
        let family = Family::of(address);
        let traffic_policy = service.traffic_policy;
        let policy = self.policies.of(family);
        if let Some(field) = self.policies.shut_out(family).map(str::to_owned) {
            let message = format!(
                "no {family} range is in it, so {address} refuses everybody. Add the ranges that may connect to it, or take \
                 {family} out of spec.ipFamilies."
            );
            served.say(key, &field, reason::NO_SOURCE_ALLOWED, message);
        }
        let mut without: Vec<(usize, u16)> = Vec::new();
        let mut withheld: Vec<u16> = Vec::new();
        let mut with_backends = 0;
        for (index, port) in service.ports.iter().enumerate() {
            let PortProtocol::Served(protocol) = port.protocol else {
                continue;
            };
            let name = FrontendKey {
                address,
                port: port.port,
                protocol,
            };
            if served.frontends.contains_key(&name) {
                let message = format!(
                    "port {}/{protocol} is listed twice; the first counts. Remove one.",
                    port.port
                );
                served.say(
                    key,
                    &format!("spec.ports[{index}].port"),
                    reason::FRONTEND_TAKEN,
                    message,
                );
                continue;
            }
            if let Some(holder) = lost.get(&(address, port.port, port.protocol.clone())) {
                let message = format!(
                    "{name} belongs to Service {holder}, which comes first by age, then name, so {key} does not get it. Change the port of one of \
                     the two, or ask for another address."
                );
                served.say(
                    key,
                    &format!("spec.ports[{index}].port"),
                    reason::FRONTEND_TAKEN,
                    message,
                );
                continue;
            }
            let targets = self
                .endpoints
                .targets((&port.name, protocol, family), traffic_policy, &this.name);
            served.silent.extend(targets.silent.iter().map(|node| (*node).clone()));
            if !targets.nodes.is_empty() {
                with_backends += 1;
                let delivery = Arc::make_mut(served.deliveries.entry(address).or_default());
                match traffic_policy {
                    TrafficPolicy::Local => delivery.nodes.extend(targets.nodes.iter().map(|name| (*name).clone())),
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
                node: target.node.clone(),
                local: **target.node == *this.name,
            };
            let weighted = |target: &Target<'_>| (backend(target), target.weight);
            let frontend = Frontend {
                service: key.clone(),
                port_name: port.name.clone(),
                policy: policy.clone(),
                backends: targets.serving.iter().map(weighted).collect(),
                draining: targets
                    .draining
                    .iter()
                    .map(|(target, draining)| (backend(target), *draining))
                    .collect(),
            };
            served.frontends.insert(name, Arc::new(frontend));
        }
        for port in withheld {
            let message = format!(
                "every {family} endpoint of port {port} has weight 0, so nobody takes new connections to {address} there, and \
                 those that are there go on. Give one of them another weight."
            );
            served.say(key, &annotations::WEIGHTS.field(), reason::NO_ENDPOINTS, message);
        }
        if with_backends == 0 {
            let message = format!(
                "no {family} endpoint is ready, so {address} is not announced for it. Check that its selector matches running \
                 pods, and that the EndpointSlices name their ports as the Service does."
            );
            served.say(key, "spec.selector", reason::NO_ENDPOINTS, message);
            return;
        }
        for (index, port) in without {
            let message = format!(
                "no {family} endpoint is ready for port {port}, so nothing is served at {address} there. Check that the pods \
                 listen on it, and that the EndpointSlices name the port as the Service does."
            );
            served.say(key, &format!("spec.ports[{index}]"), reason::NO_ENDPOINTS, message);
        }
    }
}

/// About a node that may not take packets out of the tunnel.
pub(super) fn silent(node: &str) -> Condition {
    let message = "no agent says that it takes packets out of the tunnel there, so pods on it get no new connections from other \
                   nodes, unless a Service has no others. Look at the agent's pod on it, and whether the DaemonSet wants one there."
        .into();
    Condition::new(ObjectRef::cluster_scoped("Node", node), "", reason::NO_AGENT, message)
}

/// Sharing draws traffic to the nodes of every Service on the address, so `Local` cannot keep its promise there.
pub(super) fn shared_local(cluster: &Cluster, address: IpAddr, services: &[ServiceKey]) -> Vec<Condition> {
    let local = |key: &&ServiceKey| {
        cluster
            .services
            .get(*key)
            .is_some_and(|service| service.traffic_policy == TrafficPolicy::Local)
    };
    let about = |key: &ServiceKey| {
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
