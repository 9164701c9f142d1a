//! Making the core's writes: each a patch that the API server takes only for the version it was planned from.

use super::{
    Leading,
    telemetry::{self, Telemetry},
};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{ListParams, PartialObjectMeta, Patch, PatchParams},
    core::Resource,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tracing::{debug, info, warn};
use weir_core::{
    controller::{Action, EIP_FINALIZER, EIP_LABEL, EipStatus, Event, SERVICE_FINALIZER, World},
    model::ServiceKey,
};
use weir_crds::Eip;

/// Requests under way at once.
const AT_ONCE: usize = 16;

/// An object that is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Service(ServiceKey),
    Eip(String),
}

impl Object {
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
    /// Whether the API server refused something for another reason than its age.
    pub(super) refused: bool,
}

/// How one write went.
enum Done {
    Written(Object, String, Vec<Event>),
    /// The object is another by now, or gone; the version that it was planned from.
    Outdated(Object, String),
    /// There was nothing to write, or it is not ours to write any more.
    Nothing,
    Refused,
}

impl Done {
    const fn result(&self) -> telemetry::Result {
        match self {
            Self::Written(..) => telemetry::Result::Written,
            Self::Outdated(..) | Self::Nothing => telemetry::Result::TooOld,
            Self::Refused => telemetry::Result::Refused,
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
        for (actions, rests_on_eips) in [(shows, true), (marks, false), (of_eips, false)] {
            if actions.is_empty() || rests_on_eips && !self.eips_are_those_of(world, &mut outcome).await {
                continue;
            }
            let mut done = stream::iter(actions)
                .map(|action| async move {
                    // Not later: what is planned from another's time is not ours to write.
                    if !leading.now() {
                        return Done::Nothing;
                    }
                    let name = telemetry::name(&action);
                    let done = self.make(world, action).await;
                    self.telemetry.wrote(name, done.result());
                    done
                })
                .buffer_unordered(AT_ONCE);
            while let Some(done) = done.next().await {
                match done {
                    Done::Written(object, before, events) => {
                        outcome.written.insert(object, before);
                        outcome.events.extend(events);
                    }
                    // A snapshot that still has that version is worth no other attempt.
                    Done::Outdated(object, before) => drop(outcome.written.insert(object, before)),
                    Done::Nothing => {}
                    Done::Refused => outcome.refused = true,
                }
            }
        }
        outcome
    }

    /// The versions of all Services, as they are now.
    pub(super) async fn service_versions(&self) -> Result<BTreeMap<ServiceKey, String>, kube::Error> {
        let list = Api::<Service>::all(self.client.clone())
            .list_metadata(&ListParams::default())
            .await?;
        let versions = list.items.into_iter().map(|service| {
            let metadata = service.metadata;
            let key = ServiceKey {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name.unwrap_or_default(),
            };
            (key, metadata.resource_version.unwrap_or_default())
        });
        Ok(versions.collect())
    }

    /// Whether the Eips of the snapshot are those of the API server.
    async fn eips_are_those_of(&self, world: &World, outcome: &mut Outcome) -> bool {
        let eips: Result<Vec<PartialObjectMeta<Eip>>, _> = Api::<Eip>::all(self.client.clone())
            .list_metadata(&ListParams::default())
            .await
            .map(|list| list.items);
        let eips = match eips {
            Ok(eips) => eips,
            Err(error) => {
                warn!("cannot list the Eips, so no statuses of Services are written: {error}");
                outcome.refused = true;
                return false;
            }
        };
        let now: BTreeMap<&str, &str> = eips
            .iter()
            .filter_map(|eip| Some((eip.metadata.name.as_deref()?, eip.metadata.resource_version.as_deref()?)))
            .collect();
        now.into_iter().eq(world.eip_versions())
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
            } => {
                debug!(%service, ?eip, "writing label and finalizer");
                // A strategic merge, so that finalizers of others stay.
                let finalizers = match eip {
                    Some(_) => "finalizers",
                    None => "$deleteFromPrimitiveList/finalizers",
                };
                let patch = json!({
                    "metadata": {
                        "resourceVersion": resource_version,
                        "labels": {EIP_LABEL: eip},
                        finalizers: [SERVICE_FINALIZER],
                    },
                });
                let api = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                let written = api
                    .patch(&service.name, &PatchParams::default(), &Patch::Strategic(patch))
                    .await;
                done(Object::Service(service), resource_version, written, no_events())
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
            Done::Refused
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
