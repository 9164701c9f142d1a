//! The kinds that are followed: which objects of each, and what they are in the model.

use super::{
    super::objects::{Converted, convert},
    Scope,
    contents::Entry,
    follow::Followed,
    records,
};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    ResourceExt,
    api::ApiResource,
    core::{DynamicObject, GroupVersionKind, PartialObjectMeta},
};
use weir_core::model::{Automatic, Condition, ObjectRef, reason};
use weir_crds::{Eip, GROUP};

/// The version of our own kinds that is read.
const VERSION: &str = "v1alpha2";

impl Scope {
    pub(super) const fn kinds(self) -> &'static [Followed] {
        match self {
            Self::Agent => &[
                Followed::Eips,
                Followed::Services,
                Followed::EndpointSlices,
                Followed::Nodes,
            ],
            Self::Controller => &[
                Followed::Eips,
                Followed::Services,
                Followed::Nodes,
                Followed::Namespaces,
            ],
        }
    }

    pub(super) const fn automatic(self) -> Automatic {
        match self {
            Self::Agent => Automatic::Given,
            Self::Controller => Automatic::Lowest,
        }
    }
}

impl Followed {
    /// As `kind` of an object has it.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Eips => "Eip",
            Self::Services => "Service",
            Self::EndpointSlices => "EndpointSlice",
            Self::Nodes => "Node",
            Self::Namespaces => "Namespace",
        }
    }

    /// As rights and addresses of requests have it.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Eips => "eips",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Nodes => "nodes",
            Self::Namespaces => "namespaces",
        }
    }

    /// Which objects are wanted, by labels.
    pub(super) const fn labels(self) -> Option<&'static str> {
        match self {
            // A Service of type LoadBalancer is never headless.
            Self::EndpointSlices => Some("kubernetes.io/service-name,!service.kubernetes.io/headless"),
            Self::Eips | Self::Services | Self::Nodes | Self::Namespaces => None,
        }
    }

    /// Which objects are wanted, by fields.
    pub(super) const fn fields(self, scope: Scope) -> Option<&'static str> {
        match (self, scope) {
            (Self::Services, Scope::Agent) => Some("spec.type=LoadBalancer"),
            _ => None,
        }
    }
}

/// What kube needs to know to ask for Eips without a type.
pub(super) fn eip_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, Followed::Eips.kind()))
}

/// An Eip, which may be of any form: a definition that is not ours may have let it in.
pub(super) fn eip(object: DynamicObject) -> Entry {
    let name = object.name_any();
    let identity = ObjectRef::cluster_scoped(Followed::Eips.kind(), &name);
    let read = serde_json::to_value(object)
        .map_err(|error| (String::new(), error.to_string()))
        .and_then(|value| {
            serde_path_to_error::deserialize::<_, Eip>(value)
                .map_err(|error| (error.path().to_string(), error.into_inner().to_string()))
        });
    match read {
        Ok(eip) => Entry {
            record: Some(records::of_eip(&eip)),
            ..entry(convert::eip(eip))
        },
        Err((field, problem)) => {
            let message = format!("{problem}. Correct it; until then the Eip is as it was last read, if it was.");
            let fault = Condition::new(identity.clone(), &field, reason::UNPARSABLE, message);
            Entry {
                identity,
                object: None,
                record: None,
                faults: vec![fault],
            }
        }
    }
}

pub(super) fn service(service: Service, scope: Scope) -> Entry {
    let record = (scope == Scope::Controller).then(|| records::of_service(&service));
    Entry {
        record,
        ..entry(convert::service(service))
    }
}

pub(super) fn endpoint_slice(slice: EndpointSlice) -> Entry {
    entry(convert::endpoint_slice(slice))
}

pub(super) fn node(node: Node) -> Entry {
    entry(convert::node(node))
}

pub(super) fn namespace(namespace: PartialObjectMeta<Namespace>) -> Entry {
    entry(convert::namespace(Namespace {
        metadata: namespace.metadata,
        ..Namespace::default()
    }))
}

fn entry((identity, object, faults): Converted) -> Entry {
    Entry {
        identity,
        object: Some(object),
        record: None,
        faults,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::objects::Object;

    #[test]
    fn an_eip_that_cannot_be_read_is_a_fault_that_names_the_field() {
        let object = |spec: &str| -> DynamicObject {
            serde_saphyr::from_str(&format!(
                "{{apiVersion: network.kubesphere.io/v1alpha2, kind: Eip, metadata: {{name: pool}}, spec: {spec}}}"
            ))
            .unwrap()
        };
        let good = eip(object("{address: 10.1.0.0/24, priority: 3}"));
        assert!(matches!(good.object, Some(Object::Eip(eip)) if eip.priority == 3));

        let bad = eip(object("{address: 10.1.0.0/24, priority: high}"));
        assert_eq!((bad.object, &*bad.identity.name), (None, "pool"));
        assert_eq!(bad.faults[0].field, "spec.priority");
        assert!(bad.faults[0].message.contains("high"));
    }
}
