//! Kubernetes objects to the model's. A value that an API server would have refused is left out with a condition.

use super::{Converted, Identity, Object};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Service, SessionAffinityConfig},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use std::{collections::BTreeMap, net::IpAddr};
use weir_core::controller::{EIP_LABEL, EipStatus};
use weir_core::model::{
    self, Condition, EndpointPort, Family, FamilyPolicy, Mode, ObjectRef, PortProtocol, Protocol, ServiceKey,
    ServicePort, TrafficPolicy, reason,
};
use weir_crds::{BgpConf, BgpPeer, Eip};

/// The label that ties an EndpointSlice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label that keeps a node from announcing.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Kubernetes: for how long a client stays with its backend unless said otherwise.
const AFFINITY_SECONDS: u32 = 10_800;

pub(in crate::source) fn eip(eip: Eip) -> Converted {
    let spec = eip.spec;
    let written = EipStatus {
        used: eip.status.map(|status| status.used).unwrap_or_default(),
        ..EipStatus::default()
    };
    let object = model::Eip {
        created: created(eip.metadata.creation_timestamp.as_ref()),
        deleting: eip.metadata.deletion_timestamp.is_some(),
        annotations: eip.metadata.annotations.clone().unwrap_or_default(),
        address: spec.address,
        mode: match spec.protocol {
            None | Some(weir_crds::Protocol::Bgp) => Mode::Bgp,
            Some(weir_crds::Protocol::Layer2) => Mode::Layer2,
            Some(weir_crds::Protocol::Vip) => Mode::Vip,
        },
        interface: spec.interface,
        left_to_cni: eip
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(model::CNI_LABEL)),
        disabled: spec.disable,
        avoid_buggy_ips: spec.avoid_buggy_ips,
        priority: spec.priority.unwrap_or_default(),
        namespaces: spec.namespaces.into_iter().collect(),
        namespace_selector: spec.namespace_selector,
        shared: written.shared(),
    };
    (cluster_scoped("Eip", eip.metadata), Object::Eip(object), Vec::new())
}

pub(in crate::source) fn service(service: Service) -> Converted {
    let identity = namespaced("Service", &service.metadata);
    let spec = service.spec.unwrap_or_default();
    let mut faults = Faults::new(&identity);
    let status = service
        .status
        .and_then(|status| status.load_balancer)
        .and_then(|balancer| balancer.ingress);
    let object = model::Service {
        created: created(service.metadata.creation_timestamp.as_ref()),
        deleting: service.metadata.deletion_timestamp.is_some(),
        annotations: service.metadata.annotations.unwrap_or_default(),
        label: service.metadata.labels.and_then(|mut labels| labels.remove(EIP_LABEL)),
        load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
        load_balancer_class: spec.load_balancer_class,
        load_balancer_ip: spec.load_balancer_ip.filter(|address| !address.is_empty()),
        families: indexed(spec.ip_families)
            .filter_map(|(index, family)| {
                let choices = [("IPv4", Family::V4), ("IPv6", Family::V6)];
                faults.one_of(&format!("spec.ipFamilies[{index}]"), &family, &choices)
            })
            .collect(),
        family_policy: spec
            .ip_family_policy
            .and_then(|policy| {
                let choices = [
                    ("SingleStack", FamilyPolicy::SingleStack),
                    ("PreferDualStack", FamilyPolicy::PreferDualStack),
                    ("RequireDualStack", FamilyPolicy::RequireDualStack),
                ];
                faults.one_of("spec.ipFamilyPolicy", &policy, &choices)
            })
            .unwrap_or_default(),
        traffic_policy: spec
            .external_traffic_policy
            .and_then(|policy| {
                let choices = [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];
                faults.one_of("spec.externalTrafficPolicy", &policy, &choices)
            })
            .unwrap_or_default(),
        ports: indexed(spec.ports)
            .filter_map(|(index, port)| {
                let number = faults.port(&format!("spec.ports[{index}].port"), port.port);
                let protocol = faults.protocol(&format!("spec.ports[{index}].protocol"), port.protocol);
                Some(ServicePort {
                    name: port.name.unwrap_or_default(),
                    protocol: protocol?,
                    port: number?,
                })
            })
            .collect(),
        health_check_port: spec
            .health_check_node_port
            .filter(|port| *port != 0)
            .and_then(|port| faults.port("spec.healthCheckNodePort", port)),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        affinity_seconds: affinity_seconds(spec.session_affinity, spec.session_affinity_config, &mut faults),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        ingress: status
            .into_iter()
            .flatten()
            .filter_map(|ingress| ingress.ip?.parse().ok())
            .collect(),
    };
    let faults = faults.conditions;
    (identity, Object::Service(object.into()), faults)
}

/// How long a client stays with its backend; `None` if `spec.sessionAffinity` is not `ClientIP`.
fn affinity_seconds(
    affinity: Option<String>,
    config: Option<SessionAffinityConfig>,
    faults: &mut Faults<'_>,
) -> Option<u32> {
    let choices = [("None", false), ("ClientIP", true)];
    if !faults.one_of("spec.sessionAffinity", &affinity?, &choices)? {
        return None;
    }
    let Some(seconds) = config.and_then(|config| config.client_ip?.timeout_seconds) else {
        return Some(AFFINITY_SECONDS);
    };
    let valid = u32::try_from(seconds)
        .ok()
        .filter(|seconds| (1..=86_400).contains(seconds));
    if valid.is_none() {
        let message = format!(
            "{seconds} is not a time-out, so {AFFINITY_SECONDS} is used. Write a number of seconds from 1 to 86400."
        );
        faults.say(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            reason::INVALID_VALUE,
            message,
        );
    }
    valid.or(Some(AFFINITY_SECONDS))
}

pub(in crate::source) fn endpoint_slice(slice: EndpointSlice) -> Converted {
    let identity = namespaced("EndpointSlice", &slice.metadata);
    let mut faults = Faults::new(&identity);
    let service = slice
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(SERVICE_LABEL))
        .cloned();
    if service.is_none() {
        let message = format!("no Service has these endpoints. Give the slice the label {SERVICE_LABEL}: <Service>.");
        faults.say("metadata.labels", reason::NO_SERVICE, message);
    }
    let key = ServiceKey {
        namespace: identity.namespace.clone(),
        name: service.unwrap_or_default(),
    };
    let ports = indexed(slice.ports).filter_map(|(index, port)| {
        let number = faults.port(&format!("ports[{index}].port"), port.port?);
        let protocol = faults.protocol(&format!("ports[{index}].protocol"), port.protocol);
        Some(EndpointPort {
            name: port.name.unwrap_or_default(),
            protocol: protocol?,
            port: number?,
        })
    });
    let ports = ports.collect();
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    // Not collected: that would reuse the room of the objects read, which is ten times as much.
    endpoints.extend(slice.endpoints.into_iter().enumerate().filter_map(|(index, endpoint)| {
        let address = faults.address(&format!("endpoints[{index}].addresses[0]"), endpoint.addresses.first()?)?;
        let conditions = endpoint.conditions.unwrap_or_default();
        // Kubernetes: an unknown readiness counts as ready; serving is readiness regardless of termination.
        let ready = conditions.ready.unwrap_or(true);
        Some(model::Endpoint {
            address,
            node: endpoint.node_name,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        })
    }));
    let object = model::EndpointSlice {
        annotations: slice.metadata.annotations.unwrap_or_default(),
        ports,
        endpoints,
    };
    let faults = faults.conditions;
    (identity, Object::EndpointSlice(key, object.into()), faults)
}

pub(in crate::source) fn node(node: Node) -> Converted {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let identity = cluster_scoped("Node", node.metadata);
    let status = node.status.unwrap_or_default();
    let mut faults = Faults::new(&identity);
    let internal_addresses = indexed(status.addresses)
        .filter(|(_, address)| address.type_ == "InternalIP")
        .filter_map(|(index, address)| faults.address(&format!("status.addresses[{index}]"), &address.address))
        .collect();
    let ready = status
        .conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    let object = model::Node {
        internal_addresses,
        excluded: labels.contains_key(EXCLUDE_LABEL),
        ready: ready.is_none_or(|condition| condition.status == "True"),
    };
    let faults = faults.conditions;
    (identity, Object::Node(object), faults)
}

pub(in crate::source) fn namespace(namespace: Namespace) -> Converted {
    let labels: BTreeMap<_, _> = namespace.metadata.labels.clone().unwrap_or_default();
    (
        cluster_scoped("Namespace", namespace.metadata),
        Object::Namespace(labels),
        Vec::new(),
    )
}

pub(in crate::source) fn bgp_conf(conf: BgpConf) -> Converted {
    (
        cluster_scoped("BgpConf", conf.metadata.clone()),
        Object::BgpConf(Box::new(conf)),
        Vec::new(),
    )
}

pub(in crate::source) fn bgp_peer(peer: BgpPeer) -> Converted {
    (
        cluster_scoped("BgpPeer", peer.metadata.clone()),
        Object::BgpPeer(Box::new(peer)),
        Vec::new(),
    )
}

/// Conditions on one object.
struct Faults<'a> {
    object: &'a ObjectRef,
    conditions: Vec<Condition>,
}

impl<'a> Faults<'a> {
    fn new(object: &'a ObjectRef) -> Self {
        Self {
            object,
            conditions: Vec::new(),
        }
    }

    fn say(&mut self, field: &str, reason: &str, message: String) {
        self.conditions
            .push(Condition::new(self.object.clone(), field, reason, message));
    }

    fn port(&mut self, field: &str, port: i32) -> Option<u16> {
        let number = u16::try_from(port).ok().filter(|port| *port != 0);
        if number.is_none() {
            let message = format!("{port} is not a port, so it is left out. Write a number from 1 to 65535.");
            self.say(field, reason::INVALID_VALUE, message);
        }
        number
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let address = text.parse().ok().map(|address: IpAddr| address.to_canonical());
        if address.is_none() {
            let message = format!("`{text}` is not an IP address, so it is left out. Write an IPv4 or IPv6 address.");
            self.say(field, reason::INVALID_VALUE, message);
        }
        address
    }

    fn protocol(&mut self, field: &str, name: Option<String>) -> Option<PortProtocol> {
        Some(match name.as_deref().unwrap_or_default() {
            // Kubernetes: TCP unless said otherwise.
            "" | "TCP" => PortProtocol::Served(Protocol::Tcp),
            "UDP" => PortProtocol::Served(Protocol::Udp),
            "SCTP" => PortProtocol::Other("SCTP".into()),
            other => {
                let message = format!(
                    "`{other}` is not a protocol of a port, so the port is left out. Write one of: TCP, UDP, SCTP."
                );
                self.say(field, reason::INVALID_VALUE, message);
                return None;
            }
        })
    }

    fn one_of<T: Copy>(&mut self, field: &str, text: &str, choices: &[(&str, T)]) -> Option<T> {
        let choice = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if choice.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!(
                "`{text}` means nothing here, so it is ignored. Write one of: {}.",
                names.join(", ")
            );
            self.say(field, reason::INVALID_VALUE, message);
        }
        choice
    }
}

fn indexed<T>(list: Option<Vec<T>>) -> impl Iterator<Item = (usize, T)> {
    list.into_iter().flatten().enumerate()
}

fn created(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

fn cluster_scoped(kind: &str, metadata: ObjectMeta) -> Identity {
    Identity {
        kind: kind.into(),
        namespace: String::new(),
        name: metadata.name.unwrap_or_default(),
    }
}

fn namespaced(kind: &str, metadata: &ObjectMeta) -> Identity {
    Identity {
        kind: kind.into(),
        namespace: metadata.namespace.clone().unwrap_or_else(|| "default".into()),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
