//! What `weir cleanup` does, and in which order: nothing may be left that waits for somebody who is gone.

use super::{WEBHOOKS, Webhook};
use crate::{
    controller::{EIP_FINALIZER, EIP_LABEL, NODE_PROXY_FINALIZERS, SERVICE_FINALIZER},
    model::ObjectRef,
};
use std::collections::BTreeMap;

/// An object with what is written into its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Which.
    pub object: ObjectRef,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// Whether its status says how Weir serves it.
    pub told: bool,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete a configuration of webhooks.
    Delete(ObjectRef),
    /// Have nobody convert the objects of a definition.
    StopConverting(ObjectRef),
    /// Take label and finalizers away, if the object still has this version.
    Unmark {
        /// Which.
        object: ObjectRef,
        /// Its version.
        resource_version: String,
        /// The label, if it is there.
        label: Option<&'static str>,
        /// The finalizers that stay.
        finalizers: Vec<String>,
    },
    /// Take out of the object's status how Weir serves it. Addresses stay.
    Untell(ObjectRef),
}

impl Step {
    /// What is written to.
    #[must_use]
    pub const fn object(&self) -> &ObjectRef {
        match self {
            Self::Delete(object)
            | Self::StopConverting(object)
            | Self::Untell(object)
            | Self::Unmark { object, .. } => object,
        }
    }
}

/// The steps in their order; those that do the same with objects of one kind follow each other, and may be taken in any. First
/// what the API server would ask a controller that is gone: until then it may refuse every other write. Then Services, whose
/// deletion people wait for, and what is said of them, for nobody takes it back any more. Eips last: while one is there, its
/// Services can be told from others.
///
/// `definitions` are those that Weir's controller converts.
#[must_use]
pub fn steps(
    webhooks: &[Webhook],
    definitions: &[ObjectRef],
    services: &[Marked],
    eips: &[Marked],
    bgp: &[Marked],
) -> Vec<Step> {
    // By its own name: which Services others call what, in which namespace, is theirs.
    let ours = ObjectRef::cluster_scoped("ValidatingWebhookConfiguration", WEBHOOKS);
    let is_there = webhooks.iter().any(|webhook| webhook.configuration == ours);
    let configurations = is_there.then_some(Step::Delete(ours)).into_iter();
    let definitions = definitions.iter().cloned().map(Step::StopConverting);
    // A BgpConf or BgpPeer that OpenELB has left cannot be deleted either.
    let objects = [services, eips, bgp].into_iter().flat_map(|all| {
        let told = all.iter().filter(|marked| marked.told);
        let untell = told.map(|marked| Step::Untell(marked.object.clone()));
        all.iter().filter_map(unmark).chain(untell)
    });
    configurations.chain(definitions).chain(objects).collect()
}

fn unmark(marked: &Marked) -> Option<Step> {
    let left: Vec<&str> = [SERVICE_FINALIZER, EIP_FINALIZER]
        .into_iter()
        .chain(NODE_PROXY_FINALIZERS)
        .collect();
    let label = marked.labels.contains_key(EIP_LABEL).then_some(EIP_LABEL);
    let finalizers: Vec<String> = marked
        .finalizers
        .iter()
        .filter(|finalizer| !left.contains(&finalizer.as_str()))
        .cloned()
        .collect();
    (label.is_some() || finalizers.len() < marked.finalizers.len()).then(|| Step::Unmark {
        object: marked.object.clone(),
        resource_version: marked.resource_version.clone(),
        label,
        finalizers,
    })
}
