//! What is read of the objects there are most of. Who manages which field and which pod an endpoint is are more than half of an
//! EndpointSlice's JSON; here they are passed over, and nothing is made of them.

use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceSpec, ServiceStatus},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use std::{borrow::Cow, collections::BTreeMap};

/// A `K` without the fields that nobody here uses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Brief<K>(pub(super) K);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    uid: Option<String>,
}

#[derive(Deserialize)]
struct BriefService {
    metadata: Metadata,
    spec: Option<ServiceSpec>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BriefSlice {
    metadata: Metadata,
    address_type: String,
    // Also null.
    endpoints: Option<Vec<BriefEndpoint>>,
    ports: Option<Vec<EndpointPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BriefEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    node_name: Option<String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            annotations: metadata.annotations,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            finalizers: metadata.finalizers,
            labels: metadata.labels,
            name: metadata.name,
            namespace: metadata.namespace,
            resource_version: metadata.resource_version,
            uid: metadata.uid,
            ..Self::default()
        }
    }
}

impl From<BriefEndpoint> for Endpoint {
    fn from(endpoint: BriefEndpoint) -> Self {
        Self {
            addresses: endpoint.addresses.unwrap_or_default(),
            conditions: endpoint.conditions,
            node_name: endpoint.node_name,
            ..Self::default()
        }
    }
}

impl<'de> Deserialize<'de> for Brief<Service> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let BriefService { metadata, spec, status } = BriefService::deserialize(deserializer)?;
        let metadata = metadata.into();
        Ok(Self(Service { metadata, spec, status }))
    }
}

impl<'de> Deserialize<'de> for Brief<EndpointSlice> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slice = BriefSlice::deserialize(deserializer)?;
        let endpoints = slice.endpoints.into_iter().flatten();
        Ok(Self(EndpointSlice {
            metadata: slice.metadata.into(),
            address_type: slice.address_type,
            endpoints: endpoints.map(Endpoint::from).collect(),
            ports: slice.ports,
        }))
    }
}

impl<K: Resource> Resource for Brief<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::objects::convert;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn metadata() -> Value {
        json!({
            "name": "web", "namespace": "apps", "uid": "4f1c", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T04:00:00Z",
            "annotations": {"weir.io/note": "yes"}, "finalizers": ["a/b"],
            "labels": {"kubernetes.io/service-name": "web", "managedFields": "a label like any other"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "1"}],
            "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}}],
        })
    }

    fn both<K>(object: Value) -> (K, K)
    where
        K: DeserializeOwned,
        Brief<K>: DeserializeOwned,
    {
        let Brief(brief) = serde_json::from_value(object.clone()).unwrap();
        (brief, serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_slice_is_the_same_in_the_model() {
        let (brief, whole) = both::<EndpointSlice>(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata(), "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": ["10.0.0.1"], "nodeName": "node-1", "zone": "z", "hints": {"forZones": [{"name": "z"}]},
                    "conditions": {"ready": false, "serving": true, "terminating": true},
                    "targetRef": {"kind": "Pod", "namespace": "apps", "name": "web-1", "uid": "2"},
                },
                {"addresses": ["10.0.0.2", "no address"]},
                {"addresses": null, "conditions": null},
            ],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}, {"port": 70000, "protocol": "ODD"}],
        }));
        let read = convert::endpoint_slice(brief.clone());
        assert!(read.2.len() == 2, "{:?}", read.2);
        assert_eq!(read, convert::endpoint_slice(whole));
        let metadata = brief.metadata;
        assert_eq!(
            (metadata.resource_version.as_deref(), metadata.managed_fields),
            (Some("7"), None)
        );
    }

    #[test]
    fn a_slice_without_endpoints_is_read() {
        for endpoints in [json!(null), json!([])] {
            let (brief, whole) =
                both::<EndpointSlice>(json!({"metadata": {}, "addressType": "IPv6", "endpoints": endpoints}));
            assert_eq!(brief, whole);
        }
    }

    #[test]
    fn of_a_service_only_metadata_is_less() {
        let (brief, mut whole) = both::<Service>(json!({
            "metadata": metadata(),
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}], "sessionAffinity": "ClientIP"},
            "status": {
                "loadBalancer": {"ingress": [{"ip": "10.1.0.1", "ipMode": "VIP"}]},
                "conditions": [{
                    "type": "T", "status": "True", "reason": "r", "message": "m",
                    "lastTransitionTime": "2026-01-02T03:04:05Z",
                }],
            },
        }));
        whole.metadata = ObjectMeta {
            managed_fields: None,
            owner_references: None,
            generation: None,
            ..whole.metadata
        };
        assert_eq!(brief, whole);
    }
}
