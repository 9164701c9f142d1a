//! Coming from OpenELB and going away: what a cluster has that would be otherwise under Weir, and what Weir takes out of it when it
//! leaves. Reads snapshots, says what is to be said and done; nothing else.

mod cleanup;
mod migrate;
#[cfg(test)]
mod tests;

pub use cleanup::{Marked, Step, steps};
pub use migrate::judge;

use crate::model::ObjectRef;
use serde::Serialize;

/// Name of the ValidatingWebhookConfiguration that Weir's controller makes, and no other.
pub const WEBHOOKS: &str = "weir";
/// What a cluster has of OpenELB beside the objects that Weir reads too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// All Deployments and DaemonSets.
    pub workloads: Vec<Workload>,
    /// All webhooks of admission.
    pub webhooks: Vec<Webhook>,
    /// The definitions of Eip, BgpConf and BgpPeer.
    pub definitions: Vec<Definition>,
    /// All BgpConfs and BgpPeers.
    pub bgp: Vec<ObjectRef>,
    /// NetworkPolicies that say who may come in to pods of their namespace; `None` if they may not be listed.
    pub letting_in: Option<Vec<ObjectRef>>,
}

/// A Deployment or DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which.
    pub object: ObjectRef,
    /// Images of its containers.
    pub images: Vec<String>,
    /// How many pods it is to have.
    pub pods: i64,
}

/// A webhook of admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The configuration that it is in.
    pub configuration: ObjectRef,
    /// Its own name.
    pub name: String,
    /// Namespace and name of the Service that answers for it.
    pub service: Option<(String, String)>,
    /// Whether what it is asked about is refused while nobody answers.
    pub fails_closed: bool,
    /// Resources that it is asked about.
    pub resources: Vec<String>,
}

/// A definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// `PLURAL.GROUP`.
    pub name: String,
    /// Namespace and name of the Service that converts, if one does.
    pub converter: Option<(String, String)>,
    /// Versions that objects can be asked for in.
    pub served: Vec<String>,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// To be known.
    Note,
    /// Something is otherwise than it was, or is left over.
    Warning,
    /// Traffic or addresses would be lost, or writes refused.
    Problem,
}

/// Something that is different.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// About which object.
    pub object: ObjectRef,
    /// Which field, as a path; empty when it is the object as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is so.
    pub says: String,
    /// What to do.
    pub remedy: String,
}
