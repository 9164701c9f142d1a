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
