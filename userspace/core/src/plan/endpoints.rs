//! The endpoints of one Service, merged from all its EndpointSlices: which get new flows and which only keep theirs.

use super::{Draining, nodes::Nodes, weights::Weights};
use crate::model::{Endpoint, Family, PortProtocol, Protocol, Service, Slices, TrafficPolicy};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// A Service's endpoints by port name, protocol and family.
#[derive(Default)]
pub(super) struct Endpoints<'a> {
    by_port: BTreeMap<(&'a str, Protocol, Family), BySocket<'a>>,
    /// Endpoints that no packet can be sent to, as their node is not known.
    pub unreachable: BTreeSet<IpAddr>,
}

/// The endpoints of one port, by address and port.
type BySocket<'a> = BTreeMap<(IpAddr, u16), Found<'a>>;

struct Found<'a> {
    state: State,
    weight: u32,
    node: &'a Arc<str>,
    /// Whether its node takes packets out of the tunnel, as far as it says so.
    takes_tunnel: bool,
}

impl Found<'_> {
    /// How well it is suited for new flows from other nodes; better is greater. Those of a node that may not take them are the
    /// last resort, so that nothing is lost by an agent that cannot say that it runs.
    fn rank(&self) -> (bool, State) {
        (self.takes_tunnel && self.state > State::Withheld, self.state)
    }
}

/// The best that any slice says of an endpoint; better is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Neither; keeps the flows it has.
    Keeping,
    /// Could take new flows, and is to get none: its weight is 0.
    Withheld,
    /// Terminating and still serving: takes new flows if nobody else can.
    Leaving,
    /// Takes new flows.
    Ready,
}

/// One endpoint of one port.
pub(super) struct Target<'a> {
    pub address: IpAddr,
    pub port: u16,
    pub node: &'a Arc<str>,
    /// Not 0 if it is serving.
    pub weight: u32,
}

/// The endpoints of one frontend, as one node uses them.
#[derive(Default)]
pub(super) struct Targets<'a> {
    /// Nodes to which the frontend's packets may be drawn: of those with endpoints, the ones whose endpoints are best.
    pub nodes: BTreeSet<&'a Arc<str>>,
    /// Whether any of them takes new flows, on whatever node.
    pub available: bool,
    /// Get new flows.
    pub serving: Vec<Target<'a>>,
    /// Keep the flows they have: terminating, or not ready now. A pod that fails a probe still has its connections.
    pub draining: Vec<(Target<'a>, Draining)>,
    /// Nodes of those that could serve, and that may not take packets out of the tunnel.
    pub silent: BTreeSet<&'a Arc<str>>,
}

impl<'a> Endpoints<'a> {
    pub(super) fn new(service: &Service, slices: &'a Slices, nodes: &'a Nodes, weights: &Weights<'_>) -> Self {
        let mut endpoints = Self::default();
        for (name, slice) in slices {
            for endpoint in &slice.endpoints {
                let Some(node) = endpoint.node.as_deref().and_then(|node| nodes.name(node)) else {
                    endpoints.unreachable.insert(endpoint.address);
                    continue;
                };
                let weight = weights.of(name, node);
                let state = state(service, endpoint, weight);
                let takes_tunnel = nodes.takes_tunnel(node);
                for port in &slice.ports {
                    let PortProtocol::Served(protocol) = port.protocol else {
                        continue;
                    };
                    let key = (port.name.as_str(), protocol, Family::of(endpoint.address));
                    let found = endpoints
                        .by_port
                        .entry(key)
                        .or_default()
                        .entry((endpoint.address, port.port))
                        .or_insert(Found {
                            state,
                            weight,
                            node,
                            takes_tunnel,
                        });
                    // A pod on its way from one slice to another is in both for a moment.
                    (found.state, found.weight) = (found.state, found.weight).max((state, weight));
                }
            }
        }
        endpoints
    }

    /// Who serves a Service port in a family, and what is left of that on the node called `this`.
    ///
    /// The rules are kube-proxy's: ready endpoints get new flows; where there are none, those do that terminate and still
    /// serve. With `Cluster` that is asked of all endpoints, with `Local` of each node's own, which are all that it uses.
    /// Ours besides: those of nodes that take nothing out of the tunnel come last.
    pub(super) fn targets(
        &self,
        (port_name, protocol, family): (&str, Protocol, Family),
        policy: TrafficPolicy,
        this: &str,
    ) -> Targets<'a> {
        let mut targets = Targets::default();
        let Some(found) = self.by_port.get(&(port_name, protocol, family)) else {
            return targets;
        };
        let best = found.values().map(|found| found.state).max();
        let best = best.unwrap_or(State::Keeping);
        if best > State::Keeping {
            let nodes = found.values().filter(|found| found.state == best);
            targets.nodes = nodes.map(|found| found.node).collect();
        }
        targets.available = best > State::Withheld;
        let used = |found: &Found<'a>| policy == TrafficPolicy::Cluster || **found.node == *this;
        let best = found.values().filter(|found| used(found)).map(Found::rank).max();
        for ((address, port), found) in found.iter().filter(|(_, found)| used(found)) {
            let target = Target {
                address: *address,
                port: *port,
                node: found.node,
                weight: found.weight,
            };
            if !found.takes_tunnel && found.state > State::Withheld {
                targets.silent.insert(found.node);
            }
            if Some(found.rank()) == best && found.state > State::Withheld {
                targets.serving.push(target);
            } else {
                let draining = match found.state {
                    State::Keeping => Draining::NotServing,
                    State::Withheld | State::Leaving | State::Ready => Draining::Serving,
                };
                targets.draining.push((target, draining));
            }
        }
        targets
    }

    /// How many take new flows on the node called `this`: pods, so in the family that has more.
    pub(super) fn ready_on(&self, this: &str) -> usize {
        let of_family = |family| {
            let ports = self.by_port.iter().filter(|((.., of), _)| *of == family);
            let all = ports.flat_map(|(_, found)| found);
            let ready = all.filter(|(_, found)| found.state == State::Ready && **found.node == *this);
            ready.map(|((address, _), _)| address).collect::<BTreeSet<_>>().len()
        };
        of_family(Family::V4).max(of_family(Family::V6))
    }
}

fn state(service: &Service, endpoint: &Endpoint, weight: u32) -> State {
    let ready = endpoint.ready || service.publish_not_ready;
    let leaving = endpoint.terminating && endpoint.serving;
    match (ready, leaving) {
        (false, false) => State::Keeping,
        _ if weight == 0 => State::Withheld,
        (true, _) => State::Ready,
        (false, true) => State::Leaving,
    }
}
