//! What is wrong with one object: the only form in which bad input leaves the sources and the planner.

use super::ServiceKey;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which object a condition is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Kubernetes kind, or `File` for a manifest that cannot be read, `Interface` and `Node` for the node's own things.
    pub kind: String,
    /// Namespace, empty for cluster-scoped objects and files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name, or path of the file.
    pub name: String,
}

impl ObjectRef {
    /// A Service.
    #[must_use]
    pub fn service(key: &ServiceKey) -> Self {
        Self {
            kind: "Service".into(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }

    /// An EndpointSlice of a Service, which is in the Service's namespace.
    #[must_use]
    pub fn endpoint_slice(service: &ServiceKey, name: &str) -> Self {
        Self {
            kind: "EndpointSlice".into(),
            namespace: service.namespace.clone(),
            name: name.into(),
        }
    }

    /// A cluster-scoped object, or something without a namespace.
    #[must_use]
    pub fn cluster_scoped(kind: &str, name: &str) -> Self {
        Self {
            kind: kind.into(),
            namespace: String::new(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Something a user has to know about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    /// The object.
    pub object: ObjectRef,
    /// The field at fault, as a path (`spec.address`), empty when it is the object as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// One word in CamelCase, stable: what tools match on. See [`reason`].
    pub reason: String,
    /// What is wrong and what to do about it, one sentence each.
    pub message: String,
}

impl Condition {
    /// A condition; see the fields.
    #[must_use]
    pub fn new(object: ObjectRef, field: &str, reason: &str, message: String) -> Self {
        Self {
            object,
            field: field.into(),
            reason: reason.into(),
            message,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {}: {}", self.reason, self.message)
    }
}

/// The reasons that sources and planner give.
pub mod reason {
    /// A document, or a whole file, cannot be read.
    pub const UNPARSABLE: &str = "Unparsable";
    /// An object is defined a second time.
    pub const DUPLICATE: &str = "Duplicate";
    /// A field has a value that it cannot have; the rest of the object is used.
    pub const INVALID_VALUE: &str = "InvalidValue";
    /// An EndpointSlice does not say which Service it belongs to.
    pub const NO_SERVICE: &str = "NoService";

    /// `spec.address` of an Eip is not a set of usable addresses.
    pub const INVALID_RANGE: &str = "InvalidRange";
    /// An Eip shares addresses with an older one.
    pub const OVERLAP: &str = "Overlap";
    /// An Eip is to lose addresses that Services have.
    pub const IN_USE: &str = "InUse";
    /// An Eip that is announced on a link names no interface, or one that cannot be.
    pub const INVALID_INTERFACE: &str = "InvalidInterface";
    /// A node that may be elected for an Eip's addresses lacks the interface.
    pub const INTERFACE_MISSING: &str = "InterfaceMissing";
    /// A node that may be elected for an Eip's addresses takes no packets from the interface.
    pub const INTERFACE_NOT_TAKEN: &str = "InterfaceNotTaken";
    /// A second Eip of a family says it is the default.
    pub const SECOND_DEFAULT: &str = "SecondDefault";
    /// What says whether an Eip is the default says neither.
    pub const UNCLEAR_DEFAULT: &str = "UnclearDefault";
    /// An Eip is to be announced in a way that is not spoken.
    pub const NOT_ANNOUNCED: &str = "NotAnnounced";
    /// An Eip has the label that leaves announcing its addresses to somebody else.
    pub const LEFT_TO_CNI: &str = "AnnouncedByOthers";
    /// No node may announce an Eip's addresses.
    pub const NO_ELIGIBLE_NODE: &str = "NoEligibleNode";
    /// A node does not say that an agent on it takes packets out of the tunnel.
    pub const NO_AGENT: &str = "NoAgent";

    /// A Service asks for an Eip that does not exist or is refused.
    pub const UNKNOWN_EIP: &str = "UnknownEip";
    /// A Service asks for something that is not an address.
    pub const INVALID_ADDRESS: &str = "InvalidAddress";
    /// A Service asks for an address that no Eip, or not the Eip it names, has.
    pub const OUTSIDE_EIPS: &str = "AddressOutsideEips";
    /// A Service asks for an address of a family it does not have, or for two of one family.
    pub const FAMILY_MISMATCH: &str = "FamilyMismatch";
    /// A Service asks for what is not there, or cannot be read, and keeps what it has; it is served all the same.
    pub const ADDRESS_KEPT: &str = "AddressKept";
    /// A Service asks for a new address from an Eip that is disabled.
    pub const EIP_DISABLED: &str = "EipDisabled";
    /// A Service asks for an address that is a node's own.
    pub const NODE_ADDRESS: &str = "NodeAddress";
    /// A Service asks for an address where another Service has one of its ports.
    pub const PORT_CONFLICT: &str = "PortConflict";
    /// A Service's `spec.healthCheckNodePort` cannot be answered at here; the Service is served all the same.
    pub const HEALTH_CHECK_PORT: &str = "HealthCheckPortTaken";
    /// No Eip is bound to the Service's namespace and none is the default.
    pub const NO_EIP: &str = "NoEip";
    /// Every address the Service could have is given out.
    pub const EXHAUSTED: &str = "Exhausted";
    /// A Service's annotation names something that is not us, or misspells us.
    pub const OTHER_BALANCER: &str = "OtherBalancer";
    /// A Service is annotated for us but has another load balancer class.
    pub const OTHER_CLASS: &str = "OtherClass";
    /// A Service is ours whatever its annotation names.
    pub const BALANCER_IGNORED: &str = "BalancerIgnored";
    /// The protocol annotation contradicts the Eip.
    pub const PROTOCOL_IGNORED: &str = "ProtocolIgnored";
    /// A Service asks for OpenELB's node proxy.
    pub const NODE_PROXY: &str = "NodeProxyUnsupported";

    /// A frontend belongs to an older Service, or is listed twice in one.
    pub const FRONTEND_TAKEN: &str = "FrontendTaken";
    /// A protocol that is not served in XDP.
    pub const STOOD_ASIDE: &str = "StoodAside";
    /// Nothing can take a Service's traffic.
    pub const NO_ENDPOINTS: &str = "NoEndpoints";
    /// An endpoint's node is unknown, or has no address.
    pub const UNREACHABLE_ENDPOINT: &str = "UnreachableEndpoint";
    /// What says who may connect to a Service cannot be read.
    pub const SOURCE_RANGES: &str = "InvalidSourceRanges";
    /// No source range of a Service has the family of one of its addresses.
    pub const NO_SOURCE_ALLOWED: &str = "NoSourceAllowed";
    /// A Service with policy Local shares its address with others.
    pub const SHARED_LOCAL: &str = "SharedLocal";

    /// The planning node, or one that a weight is given for, is not in the node list.
    pub const UNKNOWN_NODE: &str = "UnknownNode";
    /// A node has no InternalIP.
    pub const NO_NODE_ADDRESS: &str = "NoNodeAddress";
    /// The kernel did not take what this node is to do.
    pub const MAP_NOT_WRITTEN: &str = "MapNotWritten";
    /// Two nodes have the same InternalIP.
    pub const SAME_NODE_ADDRESS: &str = "SameNodeAddress";
}
