//! Making the core's writes: each a patch that the API server takes only for the version it was planned from.

use super::{
    Leading,
    telemetry::{self, Telemetry},
};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    core::Resource,
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use weir_core::{
    controller::{Action, EIP_FINALIZER, EIP_LABEL, EipStatus, Event, SERVICE_FINALIZER, World},
    model::ServiceKey,
};
use weir_crds::Eip;

/// Objects in one answer to a list.
const PAGE: u32 = 500;
/// Requests under way at once.
const AT_ONCE: usize = 16;

/// An object that is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Service(ServiceKey),
    Eip(String),
}

impl Object {
    /// What an action writes.
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Show { service, .. } | Action::Mark { service, .. } => Self::Service(service.clone()),
            Action::Guard { eip, .. } | Action::Record { eip, .. } => Self::Eip(eip.clone()),
        }
    }

    /// Its version in a snapshot; `None` if it is not there.
    pub(super) fn version<'a>(&self, world: &'a World) -> Option<&'a str> {
        match self {
            Self::Service(key) => world.service(key).map(|service| service.resource_version.as_str()),
            Self::Eip(name) => world.eip(name).map(|eip| eip.resource_version.as_str()),
        }
    }
}

/// What became of the writes.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Objects that were written, by us or by somebody else meanwhile, with the version before.
    pub(super) written: BTreeMap<Object, String>,
    /// What there is to say.
    pub(super) events: Vec<Event>,
    /// Objects whose write the API server refused for another reason than their age, with what there is to say.
    pub(super) refused: Vec<(Object, Option<Event>)>,
    /// Whether there was a request that nobody answered.
    pub(super) unanswered: bool,
    /// How long the API server took for each Eip that was written.
    pub(super) took: BTreeMap<Object, Duration>,
}

/// How one write went.
enum Done {
    Written(Object, String, Vec<Event>),
    /// The object is another by now, or gone; the version that it was planned from.
    Outdated(Object, String),
    /// There was nothing to write, or it is not ours to write any more.
    Nothing,
    Refused(Object, String),
    Unanswered,
}

impl Done {
    const fn result(&self) -> telemetry::Result {
        match self {
            Self::Written(..) => telemetry::Result::Written,
            Self::Outdated(..) | Self::Nothing => telemetry::Result::TooOld,
            Self::Refused(..) | Self::Unanswered => telemetry::Result::Refused,
        }
    }
}

/// Who writes.
pub(super) struct Writer {
    client: Client,
    telemetry: Telemetry,
}

impl Writer {
    pub(super) const fn new(client: Client, telemetry: Telemetry) -> Self {
        Self { client, telemetry }
    }

    /// Makes the writes in order: Shows together, then Marks, then those of Eips; none that begins when we no longer lead.
    pub(super) async fn write(&self, world: &World, actions: Vec<Action>, leading: &Leading) -> Outcome {
        let (shows, others): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Show { .. }));
        let (marks, of_eips): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|action| matches!(action, Action::Mark { .. }));
        let mut outcome = Outcome::default();
        let silence = &AtomicBool::new(false);
        for (actions, rests_on_eips) in [(shows, true), (marks, false), (of_eips, false)] {
            if actions.is_empty() || rests_on_eips && !self.eips_are_those_of(world, &mut outcome).await {
                continue;
            }
            let mut done = stream::iter(actions)
                .map(|action| async move {
                    // Who does not answer now will not answer the next.
                    if !leading.now() || silence.load(Ordering::Relaxed) {
                        return (Done::Nothing, None, Duration::ZERO);
                    }
                    let planned = action.clone();
                    let begun = Instant::now();
                    // What is planned from our time is not to be written in another's.
                    let done = leading
                        .during(self.make(world, action))
                        .await
                        .unwrap_or(Done::Unanswered);
                    self.telemetry.wrote(telemetry::name(&planned), done.result());
                    self.telemetry.beat();
                    silence.fetch_or(matches!(done, Done::Unanswered), Ordering::Relaxed);
                    let refusal = match &done {
                        Done::Refused(_, message) => Event::refused(world, &planned, message),
                        _ => None,
                    };
                    (done, refusal, begun.elapsed())
                })
                .buffer_unordered(AT_ONCE);
            while let Some((done, refusal, took)) = done.next().await {
                match done {
                    Done::Written(object, before, events) => {
                        if matches!(object, Object::Eip(_)) {
                            outcome.took.insert(object.clone(), took);
                        }
                        outcome.written.insert(object, before);
                        outcome.events.extend(events);
                    }
                    // A snapshot that still has that version is worth no other attempt.
                    Done::Outdated(object, before) => drop(outcome.written.insert(object, before)),
                    Done::Nothing => {}
                    Done::Refused(object, _) => outcome.refused.push((object, refusal)),
                    Done::Unanswered => outcome.unanswered = true,
                }
            }
        }
        outcome
    }

    /// The versions of all Services, as they are now.
    pub(super) async fn service_versions(&self) -> Result<BTreeMap<ServiceKey, String>, kube::Error> {
        let api = Api::<Service>::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        let mut versions = BTreeMap::new();
        loop {
            let page = api.list_metadata(&params).await?;
            versions.extend(page.items.into_iter().map(|service| {
                let metadata = service.metadata;
                let key = ServiceKey {
                    namespace: metadata.namespace.unwrap_or_default(),
                    name: metadata.name.unwrap_or_default(),
                };
                (key, metadata.resource_version.unwrap_or_default())
            }));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(versions),
            }
        }
    }

    /// Whether the books of the snapshot are those of the API server.
    async fn eips_are_those_of(&self, world: &World, outcome: &mut Outcome) -> bool {
        match self.books_are_those_of(world).await {
            Ok(are) => are,
            Err(error) => {
                warn!("cannot read the Eips, so no statuses of Services are written: {error}");
                outcome.unanswered = true;
                false
            }
        }
    }

    async fn books_are_those_of(&self, world: &World) -> Result<bool, kube::Error> {
        let api = Api::<Eip>::all(self.client.clone());
        let list = api.list_metadata(&ListParams::default()).await?;
        let names = list.items.iter().filter_map(|eip| eip.metadata.name.as_deref());
        let now: BTreeMap<&str, Option<&str>> = names
            .zip(list.items.iter().map(|eip| eip.metadata.resource_version.as_deref()))
            .collect();
        let mut there: usize = 0;
        for (name, version) in world.eip_versions() {
            there += 1;
            match now.get(name) {
                None => return Ok(false),
                Some(now) if *now == Some(version) => continue,
                Some(_) => {}
            }
            // Nodes write their own fields at any time; what counts is the book.
            let eip = match api.get_status(name).await {
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
                answer => answer?,
            };
            let Some(then) = world.eip(name) else {
                return Ok(false);
            };
            let metadata = eip.metadata;
            let used = eip.status.map(|status| status.used).unwrap_or_default();
            let deleting = metadata.deletion_timestamp.is_some();
            let same = metadata.uid.as_ref() == Some(&then.uid) && deleting == world.is_deleting(name);
            if !same || used != then.status.used {
                return Ok(false);
            }
        }
        Ok(there == now.len())
    }

    async fn make(&self, world: &World, action: Action) -> Done {
        let no_events = Vec::new;
        match action {
            Action::Show {
                service,
                resource_version,
                addresses,
                events,
            } => {
                info!(%service, ?addresses, "writing the status");
                let ingress: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
                let balancer = if ingress.is_empty() {
                    Value::Null
                } else {
                    Value::from(ingress)
                };
                let patch = json!({
                    "metadata": {"resourceVersion": resource_version},
                    "status": {"loadBalancer": {"ingress": balancer}},
                });
                let api = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                let written = api
                    .patch_status(&service.name, &PatchParams::default(), &Patch::Merge(patch))
                    .await;
                done(Object::Service(service), resource_version, written, events)
            }
            Action::Mark {
                service,
                resource_version,
                eip,
                events,
            } => {
                debug!(%service, ?eip, "writing label and finalizer");
                // A strategic merge, so that finalizers of others stay.
                let (field, finalizers) = match eip {
                    Some(_) => ("finalizers", vec![SERVICE_FINALIZER]),
                    None => ("$deleteFromPrimitiveList/finalizers", world.unmarked(&service)),
                };
                let patch = json!({
                    "metadata": {
                        "resourceVersion": resource_version,
                        "labels": {EIP_LABEL: eip},
                        field: finalizers,
                    },
                });
                let api = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                let written = api
                    .patch(&service.name, &PatchParams::default(), &Patch::Strategic(patch))
                    .await;
                done(Object::Service(service), resource_version, written, events)
            }
            Action::Guard {
                eip,
                resource_version,
                finalizer,
            } => {
                debug!(eip, finalizer, "writing the finalizer");
                let others = world.eip(&eip).map(|object| object.other_finalizers.clone());
                let ours = finalizer.then(|| EIP_FINALIZER.to_owned());
                let finalizers: Vec<String> = others.into_iter().flatten().chain(ours).collect();
                let patch = json!({"metadata": {"resourceVersion": resource_version, "finalizers": finalizers}});
                let api = Api::<Eip>::all(self.client.clone());
                let written = api.patch(&eip, &PatchParams::default(), &Patch::Merge(patch)).await;
                done(Object::Eip(eip), resource_version, written, no_events())
            }
            Action::Record {
                eip,
                resource_version,
                status,
            } => {
                debug!(eip, used = status.used.len(), "writing the book");
                let before = world.eip(&eip).map(|object| &object.status);
                let patch = json!({
                    "metadata": {"resourceVersion": resource_version},
                    "status": merge(before, &status),
                });
                let api = Api::<Eip>::all(self.client.clone());
                let written = api
                    .patch_status(&eip, &PatchParams::default(), &Patch::Merge(patch))
                    .await;
                done(Object::Eip(eip), resource_version, written, no_events())
            }
        }
    }
}

/// The status as a merge patch: what is to go has to be named.
fn merge(before: Option<&EipStatus>, status: &EipStatus) -> Value {
    let gone = before.into_iter().flat_map(|before| before.used.keys());
    let mut used: Map<String, Value> = gone.map(|address| (address.clone(), Value::Null)).collect();
    used.extend(status.used.iter().map(|(address, keys)| (address.clone(), json!(keys))));
    json!({
        "occupied": status.occupied,
        "usage": status.usage,
        "poolSize": status.pool_size,
        "used": used,
        "firstIP": status.first_ip,
        "lastIP": status.last_ip,
        "v4": status.v4,
    })
}

fn done<K: Resource>(object: Object, version: String, written: Result<K, kube::Error>, events: Vec<Event>) -> Done {
    match written {
        // A write that changes nothing leaves the version as it is; nobody has to wait for another then.
        Ok(now) if now.meta().resource_version.as_ref() == Some(&version) => Done::Nothing,
        Ok(_) => Done::Written(object, version, events),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
            debug!(?object, "is another by now");
            Done::Outdated(object, version)
        }
        Err(error) => {
            warn!("cannot write {object:?}; it is tried again: {error}");
            match error {
                kube::Error::Api(status) => Done::Refused(object, status.message),
                _ => Done::Unanswered,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_gone_are_named() {
        let before = EipStatus {
            used: [("10.1.0.1".into(), "a/b".into()), ("10.1.0.2".into(), "a/c".into())].into(),
            ..EipStatus::default()
        };
        let after = EipStatus {
            used: [("10.1.0.2".into(), "a/c;a/d".into())].into(),
            ..EipStatus::default()
        };
        let patch = merge(Some(&before), &after);
        assert_eq!(patch["used"], json!({"10.1.0.1": null, "10.1.0.2": "a/c;a/d"}));
    }
}
