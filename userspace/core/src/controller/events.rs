//! Events: what people see in `kubectl describe`. Reasons are OpenELB's where it has one.

use super::{ServiceObject, World};
use crate::model::{Condition, ObjectRef, ServiceKey};
use std::{collections::BTreeSet, net::IpAddr};

const ASSIGN: &str = "AssignIP";
const RELEASE: &str = "ReleaseIP";
pub(super) const ASSIGN_FAILED: &str = "AssignIPFailed";

/// The most Services that a message names.
const NAMED: usize = 3;

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

    fn of_change(key: &ServiceKey, object: &ServiceObject, reason: &str, message: String) -> Self {
        Self {
            object: ObjectRef::service(key),
            uid: object.uid.clone(),
            warning: false,
            reason: reason.into(),
            message,
        }
    }

    /// A warning from a condition; `None` if the object is not in the snapshot.
    pub(super) fn about(world: &World, condition: &Condition, reason: &str) -> Option<Self> {
        let object = &condition.object;
        let uid = match object.kind.as_str() {
            "Service" => {
                let key = ServiceKey {
                    namespace: object.namespace.clone(),
                    name: object.name.clone(),
                };
                &world.services.get(&key)?.uid
            }
            "Eip" => &world.eips.get(&object.name)?.uid,
            _ => return None,
        };
        let message = match condition.field.as_str() {
            "" => condition.message.clone(),
            field => format!("{field}: {}", condition.message),
        };
        Some(Self {
            object: object.clone(),
            uid: uid.clone(),
            warning: true,
            reason: reason.into(),
            message,
        })
    }
}

/// Which warnings have been said, so that each is said once for as long as it holds.
#[derive(Clone, Debug, Default)]
pub struct Said {
    said: BTreeSet<Event>,
}

impl Said {
    /// Those of `warnings` that are new; the others that were said before and no longer hold are forgotten.
    pub fn news(&mut self, warnings: Vec<Event>) -> Vec<Event> {
        let before = std::mem::take(&mut self.said);
        let news = warnings
            .iter()
            .filter(|event| !before.contains(*event))
            .cloned()
            .collect();
        self.said = warnings.into_iter().collect();
        news
    }
}
