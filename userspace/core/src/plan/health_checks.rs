//! What is answered at the ports where load balancers before the cluster ask whether a node has endpoints of a Service
//! (`spec.healthCheckNodePort`, with `externalTrafficPolicy: Local`). kube-proxy answers there; where it does not run, we do.

use super::{
    Condition,
    frontends::{Asked, Served},
};
use crate::model::{ObjectRef, ServiceKey, TrafficPolicy, reason};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a Service says the port.
const FIELD: &str = "spec.healthCheckNodePort";

/// What is to be answered at one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The Service that is asked about.
    pub service: ServiceKey,
    /// Its endpoints on this node that take new flows.
    pub endpoints: usize,
}

/// The port of a Service, and how many endpoints it has here.
pub(super) fn of(asked: Asked<'_>, ready: impl FnOnce() -> usize) -> Option<(u16, usize)> {
    let port = asked.service.health_check_port?;
    (asked.service.traffic_policy == TrafficPolicy::Local).then(|| (port, ready()))
}

/// All of these Services, in the order in which two that have one port get it.
pub(super) fn all<'a>(
    services: impl Iterator<Item = (&'a ServiceKey, &'a Served)>,
    conditions: &mut Vec<Condition>,
) -> BTreeMap<u16, HealthCheck> {
    let mut all: BTreeMap<u16, HealthCheck> = BTreeMap::new();
    for (service, (port, endpoints)) in services.filter_map(|(key, served)| Some((key, served.health_check?))) {
        if let Some(first) = all.get(&port) {
            let message = format!(
                "port {port} is where Service {} is asked about, which comes first by name, so nobody answers for this one. Give \
                 one of the two another port.",
                first.service
            );
            let object = ObjectRef::service(service);
            conditions.push(Condition::new(object, FIELD, reason::HEALTH_CHECK_PORT, message));
            continue;
        }
        let service = service.clone();
        all.insert(port, HealthCheck { service, endpoints });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            Automatic, Cluster, Eip, Endpoint, EndpointPort, EndpointSlice, Node, PortProtocol, Protocol, Service,
            ServicePort,
        },
        plan::{Memo, ThisNode, plan},
    };
    use std::sync::Arc;

    const PORT: u16 = 31_000;

    fn endpoint(address: &str, node: &str) -> Endpoint {
        Endpoint {
            address: address.parse().unwrap(),
            node: Some(node.into()),
            ready: true,
            serving: true,
            terminating: false,
        }
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey {
            namespace: "default".into(),
            name: name.into(),
        }
    }

    fn service() -> Service {
        Service {
            annotations: [("lb.kubesphere.io/v1alpha1".into(), "openelb".into())].into(),
            load_balancer: true,
            traffic_policy: TrafficPolicy::Local,
            health_check_port: Some(PORT),
            ports: ["http", "https"]
                .into_iter()
                .zip([80, 443])
                .map(|(name, port)| ServicePort {
                    name: name.into(),
                    protocol: PortProtocol::Served(Protocol::Tcp),
                    port,
                })
                .collect(),
            ..Service::default()
        }
    }

    /// Two nodes and the Service `web`, which has these endpoints at both of its ports.
    fn cluster(endpoints: Vec<Endpoint>) -> Cluster {
        let node = |last: u8| Node {
            internal_addresses: vec![[192, 168, 0, last].into()],
            excluded: false,
            ready: true,
        };
        let eip = Eip {
            annotations: [("eip.openelb.kubesphere.io/is-default-eip".into(), "true".into())].into(),
            address: "10.1.0.0/24".into(),
            ..Eip::default()
        };
        let slice = EndpointSlice {
            ports: ["http", "https"]
                .map(|name| EndpointPort {
                    name: name.into(),
                    protocol: PortProtocol::Served(Protocol::Tcp),
                    port: 8080,
                })
                .into(),
            endpoints,
            ..EndpointSlice::default()
        };
        let mut cluster = Cluster {
            eips: [("pool".into(), eip)].into(),
            nodes: [("node-a".into(), node(1)), ("node-b".into(), node(2))].into(),
            automatic: Automatic::Lowest,
            ..Cluster::default()
        };
        cluster.services.insert(key("web"), Arc::new(service()));
        cluster
            .endpoint_slices
            .insert(key("web"), [("web-1".to_owned(), Arc::new(slice))].into());
        cluster
    }

    fn this(name: &str) -> ThisNode {
        ThisNode { name: name.into() }
    }

    fn counted(cluster: &Cluster, node: &str) -> Option<usize> {
        let checks = plan(cluster, &this(node)).health_checks;
        let check = checks.get(&PORT)?;
        assert_eq!(check.service, key("web"));
        Some(check.endpoints)
    }

    #[test]
    fn c08_a_node_says_how_many_endpoints_of_its_own_take_new_flows() {
        let unready = Endpoint {
            ready: false,
            serving: false,
            ..endpoint("10.244.1.3", "node-a")
        };
        let leaving = Endpoint {
            ready: false,
            terminating: true,
            ..endpoint("10.244.1.4", "node-a")
        };
        let all = vec![
            endpoint("10.244.1.1", "node-a"),
            endpoint("10.244.1.2", "node-a"),
            unready.clone(),
            leaving.clone(),
            endpoint("10.244.2.1", "node-b"),
        ];
        // Not once for each port.
        assert_eq!(counted(&cluster(all.clone()), "node-a"), Some(2));
        assert_eq!(counted(&cluster(all.clone()), "node-b"), Some(1));
        assert_eq!(
            counted(&cluster(all), "node-z"),
            Some(0),
            "a node without endpoints answers, too"
        );
        // kube-proxy sends new flows to what is leaving if there is nothing else, and says that there is nothing.
        assert_eq!(counted(&cluster(vec![unready, leaving]), "node-a"), Some(0));
        // A pod of two families is one pod.
        let both = vec![endpoint("10.244.1.1", "node-a"), endpoint("fd00:1::1", "node-a")];
        assert_eq!(counted(&cluster(both), "node-a"), Some(1));
    }

    #[test]
    fn c08_only_what_is_served_here_and_on_each_node_by_itself_is_asked_about() {
        let with = |change: fn(&mut Service)| {
            let mut service = service();
            change(&mut service);
            let mut cluster = cluster(vec![endpoint("10.244.1.1", "node-a")]);
            cluster.services.insert(key("web"), Arc::new(service));
            counted(&cluster, "node-a")
        };
        assert_eq!(with(|_| {}), Some(1));
        assert_eq!(with(|service| service.health_check_port = None), None);
        assert_eq!(with(|service| service.traffic_policy = TrafficPolicy::Cluster), None);
        assert_eq!(
            with(|service| service.load_balancer_class = Some("example.com/other".into())),
            None
        );
    }

    #[test]
    fn c08_of_two_services_with_one_port_the_first_is_answered_for_and_the_other_told() {
        let mut cluster = cluster(vec![endpoint("10.244.1.1", "node-a")]);
        cluster.services.insert(key("also"), Arc::new(service()));
        let outcome = plan(&cluster, &this("node-a"));
        let check = HealthCheck {
            service: key("also"),
            endpoints: 0,
        };
        assert_eq!(outcome.health_checks, [(PORT, check)].into());
        let said = outcome
            .conditions
            .iter()
            .find(|it| it.reason == reason::HEALTH_CHECK_PORT);
        let said = said.expect("a condition");
        assert_eq!((&said.object, &*said.field), (&ObjectRef::service(&key("web")), FIELD));
        assert!(said.message.contains("default/also"), "{said}");
    }

    #[test]
    fn c08_answers_follow_the_endpoints_and_go_with_their_service() {
        let mut memo = Memo::default();
        let mut next = |cluster: &Cluster| {
            let outcome = memo.plan(cluster, &this("node-a"));
            assert_eq!(outcome, plan(cluster, &this("node-a")), "as without what was before");
            outcome.health_checks.get(&PORT).map(|check| check.endpoints)
        };
        let mut now = cluster(vec![endpoint("10.244.1.1", "node-a")]);
        assert_eq!(next(&now), Some(1));
        now.endpoint_slices.remove(&key("web"));
        assert_eq!(next(&now), Some(0));
        now.services.remove(&key("web"));
        assert_eq!(next(&now), None);
    }
}
