//! Events: what people see in `kubectl describe`. Reasons are OpenELB's where it has one.

use super::{ServiceObject, World, serve::Taken};
use crate::model::{Condition, ObjectRef, ServiceKey};
use std::{collections::BTreeSet, net::IpAddr};

const ASSIGN: &str = "AssignIP";
const RELEASE: &str = "ReleaseIP";
pub(super) const ASSIGN_FAILED: &str = "AssignIPFailed";

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
    /// What to say when a Service's status goes from `before` to `taken`.
    pub(super) fn of_change(
        key: &ServiceKey,
        object: &ServiceObject,
        before: &[IpAddr],
        taken: &[Taken<'_>],
    ) -> Vec<Self> {
        let event = |reason: &str, message: String| Self {
            object: ObjectRef::service(key),
            uid: object.uid.clone(),
            warning: false,
            reason: reason.into(),
            message,
        };
        let kept = |address: &IpAddr| taken.iter().any(|(wanted, _)| wanted == address);
        let released = before.iter().filter(|address| !kept(address)).map(|address| {
            let message = format!("{address} is no longer this Service's");
            event(RELEASE, message)
        });
        let assigned = taken.iter().filter(|(address, _)| !before.contains(address));
        let assigned =
            assigned.map(|(address, eip)| event(ASSIGN, format!("{address} of Eip {eip} is this Service's")));
        released.chain(assigned).collect()
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
