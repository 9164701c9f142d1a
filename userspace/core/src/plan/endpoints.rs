//! The endpoints of one Service, merged from all its EndpointSlices: which get new flows and which only keep theirs.

use super::nodes::Nodes;
use crate::model::{Endpoint, EndpointSlice, Family, PortProtocol, Protocol, Service};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
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
    node: &'a str,
}

/// The best that any slice says of an endpoint; better is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Neither; keeps the flows it has.
    Keeping,
    /// Terminating and still serving: takes new flows if nobody else can.
    Leaving,
    /// Takes new flows.
    Ready,
}

/// One endpoint of one port.
pub(super) struct Target<'a> {
    pub address: IpAddr,
    pub port: u16,
    pub node: &'a str,
}

/// The endpoints of one frontend.
#[derive(Default)]
pub(super) struct Targets<'a> {
    /// Get new flows.
    pub serving: Vec<Target<'a>>,
    /// Keep the flows they have: terminating, or not ready now. A pod that fails a probe still has its connections.
    pub draining: Vec<Target<'a>>,
}

impl<'a> Endpoints<'a> {
    pub(super) fn new(
        service: &Service,
        slices: Option<&'a BTreeMap<String, EndpointSlice>>,
        nodes: &Nodes<'_>,
    ) -> Self {
        let mut endpoints = Self::default();
        for slice in slices.into_iter().flat_map(BTreeMap::values) {
            for endpoint in &slice.endpoints {
                let Some(node) = endpoint
                    .node
                    .as_deref()
                    .filter(|node| nodes.tunnel_address(node).is_some())
                else {
                    endpoints.unreachable.insert(endpoint.address);
                    continue;
                };
                let state = state(service, endpoint);
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
                        .or_insert(Found { state, node });
                    // A pod on its way from one slice to another is in both for a moment.
                    found.state = found.state.max(state);
                }
            }
        }
        endpoints
    }

    /// Who serves a Service port in a family.
    pub(super) fn targets(&self, port_name: &str, protocol: Protocol, family: Family) -> Targets<'a> {
        let mut targets = Targets::default();
        let Some(found) = self.by_port.get(&(port_name, protocol, family)) else {
            return targets;
        };
        let best = found.values().map(|found| found.state).max().unwrap_or(State::Keeping);
        for ((address, port), found) in found {
            let target = Target {
                address: *address,
                port: *port,
                node: found.node,
            };
            if found.state == best && best != State::Keeping {
                targets.serving.push(target);
            } else {
                targets.draining.push(target);
            }
        }
        targets
    }
}

fn state(service: &Service, endpoint: &Endpoint) -> State {
    if endpoint.ready || service.publish_not_ready {
        State::Ready
    } else if endpoint.terminating && endpoint.serving {
        State::Leaving
    } else {
        State::Keeping
    }
}
