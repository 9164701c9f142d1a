//! Events: what people see in `kubectl describe`. Reasons are OpenELB's where it has one.

use super::{Action, ServiceObject, World};
use crate::model::{Condition, ObjectRef, ServiceKey, reason};
use std::{collections::BTreeSet, net::IpAddr};

const ASSIGN: &str = "AssignIP";
const RELEASE: &str = "ReleaseIP";
const ASSIGN_FAILED: &str = "AssignIPFailed";
const RELEASE_FAILED: &str = "ReleaseIPFailed";
const STATUS_FAILED: &str = "UpdateServiceStatus";
const REQUEST_FAILED: &str = "ConstructRequest";
const EIP_FAILED: &str = "add/update eip";
const ANNOUNCE: &str = "SetBalancer";
const WITHDRAW: &str = "DelBalancer";
const SET_UP: &str = "ConfigSpeaker";
const SET_UP_FAILED: &str = "ConfigSpeakerFailed";

/// The most Services that a message names.
const NAMED: usize = 3;
/// The most nodes that a message names.
const NODES_NAMED: usize = 16;

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// The object.
    pub object: ObjectRef,
    /// `metadata.uid` of the object.
    pub uid: String,
    /// Whether something is wrong.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence or two.
    pub message: String,
}

impl Event {
    /// A Service shows an address.
    pub(super) fn assigned(key: &ServiceKey, object: &ServiceObject, address: IpAddr, eip: &str) -> Self {
        let message = format!("{address} of Eip {eip} is this Service's");
        Self::of_change(key, object, ASSIGN, message)
    }

    /// A Service shows an address no longer.
    pub(super) fn released(key: &ServiceKey, object: &ServiceObject, address: IpAddr) -> Self {
        Self::of_change(key, object, RELEASE, format!("{address} is no longer this Service's"))
    }

    /// A Service shows an address no longer, and not yet the one that it asks for, as all of `circle` wait for each other.
    pub(super) fn given_up(key: &ServiceKey, object: &ServiceObject, address: IpAddr, circle: &[&ServiceKey]) -> Self {
        let others: Vec<_> = circle.iter().filter(|other| **other != key).collect();
        let named: Vec<_> = others.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if others.len() > NAMED { " and others" } else { "" };
        let message = format!(
            "{address} is no longer this Service's: it and {}{more} ask for each other's addresses on the same port, and it is the \
             youngest, so it goes first and has none until the others have moved",
            named.join(", ")
        );
        Self::of_change(key, object, RELEASE, message)
    }

    /// What OpenELB was to do when a Service is deleted is not waited for any more.
    pub(super) fn proxy_left(key: &ServiceKey, object: &ServiceObject) -> Self {
        let ServiceKey { namespace, name } = key;
        let message = format!(
            "OpenELB, which was to take down the node proxy of this Service, is not waited for. If a Deployment or DaemonSet \
             node-proxy-{name}-{namespace} is still there, it goes on forwarding: delete it"
        );
        Self::of_change(key, object, reason::NODE_PROXY, message).warn()
    }

    fn of_change(key: &ServiceKey, object: &ServiceObject, reason: &str, message: String) -> Self {
        Self::of_service(key, &object.uid, reason, message)
    }

    fn of_service(key: &ServiceKey, uid: &str, reason: &str, message: String) -> Self {
        Self {
            object: ObjectRef::service(key),
            uid: uid.into(),
            warning: false,
            reason: reason.into(),
            message,
        }
    }

    const fn warn(mut self) -> Self {
        self.warning = true;
        self
    }

    /// These nodes announce an address of a Service, and no others.
    pub(super) fn announced(key: &ServiceKey, uid: &str, address: IpAddr, by: &BTreeSet<String>) -> Self {
        let message = format!("{address} is announced by {}", nodes(by));
        Self::of_service(key, uid, ANNOUNCE, message)
    }

    /// Nobody announces an address of a Service that should be.
    pub(super) fn missed(key: &ServiceKey, uid: &str, message: String) -> Self {
        Self::of_service(key, uid, ANNOUNCE, message).warn()
    }

    /// An address is not announced for a Service any more; perhaps for others.
    pub(super) fn withdrawn(key: &ServiceKey, uid: &str, address: IpAddr, others: bool) -> Self {
        let who = if others {
            "for other Services that have it, and no longer for this one"
        } else {
            "no longer"
        };
        Self::of_service(key, uid, WITHDRAW, format!("{address} is announced {who}"))
    }

    /// An Eip that is gone has taken with it what nodes said of an address; these announced it last.
    pub(super) fn let_go(key: &ServiceKey, uid: &str, address: IpAddr, eip: &str, last: &BTreeSet<String>) -> Self {
        let message = format!(
            "{address} is no longer this Service's, and Eip {eip} is gone, in whose status nodes said that they announce it; the last \
             that did: {}",
            nodes(last)
        );
        Self::of_service(key, uid, WITHDRAW, message)
    }

    /// These nodes announce an address that no Service has any more.
    pub(super) fn not_withdrawn(key: &ServiceKey, uid: &str, address: IpAddr, by: &BTreeSet<String>) -> Self {
        let message = format!(
            "{address} is no longer this Service's nor any other's, and, as far as is known, still announced by {}; see whether \
             `weir agent` there can reach the API server",
            nodes(by)
        );
        Self::of_service(key, uid, WITHDRAW, message).warn()
    }

    /// An Eip is served, or is not as it should be.
    pub(super) fn set_up(eip: &str, uid: &str, warning: bool, message: String) -> Self {
        Self {
            object: ObjectRef::cluster_scoped("Eip", eip),
            uid: uid.into(),
            warning,
            reason: if warning { SET_UP_FAILED } else { SET_UP }.into(),
            message,
        }
    }

    /// The API server refuses a write, saying why; `None` if the object is not in the snapshot.
    #[must_use]
    pub fn refused(world: &World, action: &Action, why: &str) -> Option<Self> {
        let (object, reason) = match action {
            Action::Show { service, addresses, .. } if addresses.is_empty() => {
                (ObjectRef::service(service), RELEASE_FAILED)
            }
            Action::Show { service, .. } => (ObjectRef::service(service), STATUS_FAILED),
            Action::Mark { service, eip: None, .. } => (ObjectRef::service(service), RELEASE_FAILED),
            Action::Mark { service, .. } => (ObjectRef::service(service), ASSIGN_FAILED),
            Action::Guard { eip, .. } | Action::Record { eip, .. } => {
                (ObjectRef::cluster_scoped("Eip", eip), EIP_FAILED)
            }
        };
        Some(Self {
            uid: uid(world, &object)?.into(),
            object,
            warning: true,
            reason: reason.into(),
            message: format!("the API server refuses what is to be written into this object; it is tried again: {why}"),
        })
    }

    /// What OpenELB names as the source of such events.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match &*self.reason {
            ANNOUNCE | WITHDRAW | SET_UP | SET_UP_FAILED => "speakerManager",
            _ => "OpenELBController",
        }
    }

    /// Whether the status of the object has it in its words already.
    pub(super) fn is_told(&self, world: &World) -> bool {
        let told = match self.object.kind.as_str() {
            "Service" => world
                .service(&service_key(&self.object))
                .and_then(|object| object.served.as_ref()),
            "Eip" => world.eip(&self.object.name).and_then(|object| object.ready.1.as_ref()),
            _ => None,
        };
        told.is_some_and(|told| told.message.contains(&self.message))
    }

    /// A warning from a condition; `None` if the object is not in the snapshot.
    pub(super) fn about(world: &World, condition: &Condition, reason: &str) -> Option<Self> {
        let object = &condition.object;
        let message = match condition.field.as_str() {
            "" => condition.message.clone(),
            field => format!("{field}: {}", condition.message),
        };
        Some(Self {
            object: object.clone(),
            uid: uid(world, object)?.into(),
            warning: true,
            reason: reason.into(),
            message,
        })
    }
}

/// The reason of the event about a condition; `pending`: of a Service that has nothing for now.
pub(super) fn reason_of(condition: &Condition, pending: bool) -> &str {
    match &*condition.reason {
        reason @ (reason::BALANCER_IGNORED
        | reason::PROTOCOL_IGNORED
        | reason::NODE_PROXY
        | reason::OTHER_CLASS
        | reason::OTHER_BALANCER
        | reason::SECOND_DEFAULT
        | reason::UNCLEAR_DEFAULT) => reason,
        reason::ADDRESS_KEPT => REQUEST_FAILED,
        reason::NO_EIP | reason::INVALID_ADDRESS if pending => REQUEST_FAILED,
        _ if pending => ASSIGN_FAILED,
        _ if condition.object.kind == "Eip" => EIP_FAILED,
        other => other,
    }
}

/// `metadata.uid` of an object in the snapshot.
fn uid<'a>(world: &'a World, object: &ObjectRef) -> Option<&'a str> {
    match object.kind.as_str() {
        "Service" => Some(&world.services.get(&service_key(object))?.uid),
        "Eip" => Some(&world.eips.get(&object.name)?.uid),
        _ => None,
    }
}

fn service_key(object: &ObjectRef) -> ServiceKey {
    ServiceKey {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
}

fn nodes(nodes: &BTreeSet<String>) -> String {
    let named: Vec<&str> = nodes.iter().take(NODES_NAMED).map(String::as_str).collect();
    match nodes.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more nodes", named.join(", ")),
    }
}
