//! What is written into objects, for whoever writes: versions, marks and statuses, beside what the objects ask for.

use super::super::objects::Identity;
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use std::collections::BTreeMap;
use weir_core::{
    controller::{
        EIP_FINALIZER, EIP_LABEL, EipObject, EipStatus, NODE_PROXY_FINALIZERS, READY, SERVED, SERVICE_FINALIZER,
        ServiceObject, StatusCondition,
    },
    model::ServiceKey,
    standing::{Problem, Standing},
};
use weir_crds::{Eip, NodeStanding};

/// What is written into all Services and Eips.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Services by key.
    pub services: BTreeMap<ServiceKey, ServiceObject>,
    /// Eips by name.
    pub eips: BTreeMap<String, EipObject>,
    /// How often one of the Eips was found to be another.
    pub eip_changes: u64,
}

/// What is written into one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Service(ServiceObject),
    Eip(EipObject),
}

impl Records {
    /// Takes in what is written into an object; whether that is another than before.
    pub(super) fn set(&mut self, identity: &Identity, record: Record) -> bool {
        match record {
            Record::Service(service) => self.services.insert(key(identity), service.clone()).as_ref() != Some(&service),
            Record::Eip(eip) => {
                let differs = self.eips.get(&identity.name) != Some(&eip);
                if differs {
                    self.eips.insert(identity.name.clone(), eip);
                    self.eip_changes += 1;
                }
                differs
            }
        }
    }

    /// Forgets an object.
    pub(super) fn remove(&mut self, identity: &Identity) {
        match &*identity.kind {
            "Service" => drop(self.services.remove(&key(identity))),
            "Eip" => {
                self.eips.remove(&identity.name);
                self.eip_changes += 1;
            }
            _ => {}
        }
    }
}

fn key(identity: &Identity) -> ServiceKey {
    ServiceKey {
        namespace: identity.namespace.clone(),
        name: identity.name.clone(),
    }
}

/// What is written into a Service.
pub(super) fn of_service(service: &Service) -> Record {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let metadata = &service.metadata;
    Record::Service(ServiceObject {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        label: metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(EIP_LABEL).cloned()),
        finalizer: finalizers(metadata).any(|it| it == SERVICE_FINALIZER),
        node_proxy: finalizers(metadata).any(|it| NODE_PROXY_FINALIZERS.contains(&it)),
        served: status
            .and_then(|status| status.conditions.iter().flatten().find(|it| it.type_ == SERVED))
            .map(|condition| StatusCondition {
                holds: condition.status == "True",
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            }),
        foreign_ingress: ingress.into_iter().flatten().any(|ingress| {
            let address = ingress
                .ip
                .as_deref()
                .is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok());
            let with_ports = ingress.ports.as_ref().is_some_and(|ports| !ports.is_empty());
            // The API server fills in the mode.
            let mode = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
            !address || with_ports || !mode || ingress.hostname.as_deref().is_some_and(|name| !name.is_empty())
        }),
    })
}

/// What is written into an Eip.
pub(super) fn of_eip(eip: &Eip) -> Record {
    let status = eip.status.clone().unwrap_or_default();
    Record::Eip(EipObject {
        uid: eip.metadata.uid.clone().unwrap_or_default(),
        resource_version: eip.metadata.resource_version.clone().unwrap_or_default(),
        finalizer: finalizers(&eip.metadata).any(|it| it == EIP_FINALIZER),
        other_finalizers: finalizers(&eip.metadata)
            .filter(|it| *it != EIP_FINALIZER)
            .map(str::to_owned)
            .collect(),
        ready: (
            status.ready,
            status.conditions.iter().find(|it| it.kind == READY).map(of_condition),
        ),
        nodes: status
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), standing(node)))
            .collect(),
        status: EipStatus {
            occupied: status.occupied,
            usage: status.usage.unwrap_or_default(),
            pool_size: status.pool_size.unwrap_or_default(),
            used: status.used,
            first_ip: status.first_ip.unwrap_or_default(),
            last_ip: status.last_ip.unwrap_or_default(),
            v4: status.v4,
        },
    })
}

fn of_condition(condition: &weir_crds::Condition) -> StatusCondition {
    StatusCondition {
        holds: condition.status == "True",
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    }
}

/// What a node has written; what it cannot have written is left out.
fn standing(node: &NodeStanding) -> Standing {
    let problems = node.problems.iter().filter_map(|problem| {
        Some(Problem {
            service: problem.service.parse().ok()?,
            field: problem.field.clone(),
            reason: problem.reason.clone(),
            message: problem.message.clone(),
        })
    });
    Standing {
        ready: node.ready,
        message: node.message.clone(),
        takes_tunnel: node.takes_tunnel.unwrap_or(true),
        announces: node.announces.iter().filter_map(|text| text.parse().ok()).collect(),
        problems: problems.collect(),
    }
}

fn finalizers(metadata: &ObjectMeta) -> impl Iterator<Item = &str> {
    metadata.finalizers.iter().flatten().map(String::as_str)
}
