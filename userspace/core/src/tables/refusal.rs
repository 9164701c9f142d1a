//! The only conditions tables give: something did not fit, or the node lacks an interface.

use crate::model::{Condition, ObjectRef};
use std::net::IpAddr;

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Backends,
    Directory,
    Frontends,
    Nodes,
    Responders,
    Rows,
    Sources,
}

impl Refusal {
    /// The condition's reason, and what to do about it.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Backends => (
                "BackendsFull",
                "Reduce the number of endpoints, or load larger BACKENDS.",
            ),
            Self::Directory => (
                "DirectoryFull",
                "Reduce the number of Service ports and of endpoints on this node.",
            ),
            Self::Frontends => ("FrontendsFull", "Reduce the number of Service ports."),
            Self::Nodes => ("NodesFull", "Reduce the number of nodes."),
            Self::Responders => (
                "RespondersFull",
                "Reduce the number of addresses answered for by this node.",
            ),
            Self::Rows => (
                "RowsFull",
                "Reduce the number of Service ports or endpoints, or load larger ROWS.",
            ),
            Self::Sources => (
                "SourcesFull",
                "Reduce the number of source ranges of all Services together.",
            ),
        }
    }
}

/// The condition that `object` is not, or not wholly, programmed: `what` happens to it.
pub(super) fn refused(object: ObjectRef, refusal: Refusal, what: String) -> Condition {
    let (reason, remedy) = refusal.texts();
    Condition::new(object, "", reason, format!("the map is full: {what}. {remedy}"))
}

/// The condition that nobody answers for `address` (and maybe more of its Eip), as this node is to and lacks the interface.
pub(super) fn interface_missing(eip: &str, address: IpAddr, interface: &str) -> Condition {
    let message = format!(
        "{address} is owned by this node, which has no interface {interface}; correct spec.interface or add the interface."
    );
    let object = ObjectRef::cluster_scoped("Eip", eip);
    Condition::new(object, "spec.interface", "InterfaceMissing", message)
}
