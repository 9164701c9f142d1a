//! What every source of Kubernetes objects shares: which object is which, and what it is in the model's terms.

pub(super) mod convert;

use std::sync::Arc;
use weir_core::model::{self, Condition, ServiceKey};
use weir_crds::{BgpConf, BgpPeer};

/// One object, in the model's terms.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Eip(model::Eip),
    Service(Arc<model::Service>),
    /// With the Service it belongs to.
    EndpointSlice(ServiceKey, Arc<model::EndpointSlice>),
    Node(model::Node),
    /// Labels of a namespace.
    Namespace(std::collections::BTreeMap<String, String>),
    BgpConf(Box<BgpConf>),
    BgpPeer(Box<BgpPeer>),
}

/// Which object it is.
pub(super) type Identity = model::ObjectRef;

/// An object, and what is wrong with parts of it.
pub(super) type Converted = (Identity, Object, Vec<Condition>);
