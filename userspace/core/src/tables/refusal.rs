//! The only conditions tables give: something did not fit, or the node cannot answer where it is to.

use crate::{
    links::{Interface, Links},
    model::{Condition, ObjectRef, reason},
    plan::Plan,
};

/// What `spec.interface` begins with when it names an address instead.
const CAN_REACH: &str = "can_reach:";

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

/// The conditions that this node cannot answer for Eips that may elect it: it lacks the interface, or takes no packets there.
///
/// Said whether it is elected for any address now or not: who relies on an Eip is to know before it is.
pub(super) fn without_interface(plan: &Plan, links: &Links) -> impl Iterator<Item = Condition> {
    plan.interfaces.iter().filter_map(|(eip, name)| {
        let (reason, message) = match links.interfaces.get(name) {
            None => (reason::INTERFACE_MISSING, missing(name)),
            Some(interface) if !links.taken.contains(&interface.ifindex) => {
                (reason::INTERFACE_NOT_TAKEN, not_taken(links, name, interface))
            }
            Some(_) => return None,
        };
        let object = ObjectRef::cluster_scoped("Eip", eip);
        Some(Condition::new(object, "spec.interface", reason, message))
    })
}

fn missing(name: &str) -> String {
    match name.strip_prefix(CAN_REACH) {
        None => format!(
            "this node may be elected for its addresses and has no interface {name}; correct spec.interface or add the interface."
        ),
        Some(address) => format!(
            "this node may be elected for its addresses and has no interface that leads to {}; correct spec.interface or add a \
             route.",
            address.trim()
        ),
    }
}

fn not_taken(links: &Links, name: &str, interface: &Interface) -> String {
    let mut others = links.interfaces.iter();
    let named = match others
        .find(|(other, like)| name.starts_with(CAN_REACH) && !other.starts_with(CAN_REACH) && *like == interface)
    {
        Some((other, _)) => other,
        None => name,
    };
    let leads = if named == name {
        String::new()
    } else {
        format!("{name} leads to {named}, and ")
    };
    format!(
        "{leads}this node may be elected for its addresses and takes no packets from {named}; start its agent with --interface \
         {named}, too (agent.interfaces in the values of the chart), or correct spec.interface."
    )
}
