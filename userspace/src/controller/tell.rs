//! Telling in objects' statuses what nothing else rests on: late enough that what passes by itself is not told, and no object
//! often.

use super::{
    Leading,
    telemetry::{self, Telemetry},
    write::Object,
};
use futures_util::{StreamExt, stream};
use k8s_openapi::{api::core::v1::Service, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use tracing::{debug, warn};
use weir_core::controller::{READY, SERVED, StatusCondition, Telling, silence};
use weir_crds::{Eip, GROUP};

/// Whose fields these are to the API server.
const MANAGER: &str = "weir-controller";
/// How long something has to be so before it is told.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two writes to one object.
const PAUSE: Duration = Duration::from_secs(5);
/// The same after a refusal.
const REFUSED: Duration = Duration::from_secs(60);
/// Writes in one go, and requests under way at once.
const MOST: usize = 100;
const AT_ONCE: usize = 4;

/// What is to be told, and when it was last.
pub(super) struct Teller {
    client: Client,
    telemetry: Telemetry,
    /// Since when an object's status says something else than it should.
    since: BTreeMap<Object, Instant>,
    /// Before when an object is not written again.
    not_before: BTreeMap<Object, Instant>,
}

impl Teller {
    pub(super) const fn new(client: Client, telemetry: Telemetry) -> Self {
        Self {
            client,
            telemetry,
            since: BTreeMap::new(),
            not_before: BTreeMap::new(),
        }
    }

    /// Another leads now.
    pub(super) fn forget(&mut self) {
        self.since.clear();
        self.not_before.clear();
    }

    /// Makes those of the writes that are due; gives when to come again, if any are not.
    pub(super) async fn tell(&mut self, tellings: Vec<Telling>, leading: &Leading) -> Option<Instant> {
        let now = Instant::now();
        let mut former = std::mem::take(&mut self.since);
        self.not_before.retain(|_, until| *until > now);
        let (mut due, mut next) = (Vec::new(), None);
        for telling in tellings {
            let object = object(&telling);
            let since = former.remove(&object).unwrap_or(now);
            let at = (since + settled(&telling)).max(self.not_before.get(&object).copied().unwrap_or(now));
            if at <= now && due.len() < MOST && leading.now() {
                due.push((object, telling));
            } else {
                next = Some(next.map_or(at, |next: Instant| next.min(at)).max(now + SETTLED / 4));
                self.since.insert(object, since);
            }
        }
        let this = &*self;
        let done: Vec<(Object, telemetry::Result)> = stream::iter(due)
            .map(|(object, telling)| async move {
                let made = leading.during(this.make(&object, telling)).await;
                (object, made.unwrap_or(telemetry::Result::TooOld))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let now = Instant::now();
        for (object, result) in done {
            let pause = match result {
                telemetry::Result::Refused => REFUSED,
                telemetry::Result::Written | telemetry::Result::TooOld => PAUSE,
            };
            let until = now + pause;
            if result == telemetry::Result::Refused {
                // Nothing has been written, so no snapshot comes of it.
                next = Some(next.map_or(until, |next| next.min(until)));
            }
            self.not_before.insert(object, until);
        }
        next
    }

    /// Makes one write.
    async fn make(&self, object: &Object, telling: Telling) -> telemetry::Result {
        let made = match telling {
            Telling::Service { service, served, .. } => {
                let api = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                self.tell_service(&api, &service.name, served).await
            }
            Telling::Eip { eip, ready, gone } => self.tell_eip(&eip, &ready, &gone).await,
        };
        let result = match made {
            Ok(()) => telemetry::Result::Written,
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
                debug!(?object, "is another by now");
                telemetry::Result::TooOld
            }
            Err(error) => {
                warn!("cannot tell {object:?} in its status; it is tried again: {error}");
                telemetry::Result::Refused
            }
        };
        self.telemetry.wrote("tell", result);
        result
    }

    async fn tell_service(
        &self,
        api: &Api<Service>,
        name: &str,
        served: Option<StatusCondition>,
    ) -> Result<(), kube::Error> {
        debug!(name, ?served, "telling a Service");
        let conditions = match served {
            Some(served) => {
                let status = api.get_status(name).await?.status.unwrap_or_default();
                let mut before = status.conditions.into_iter().flatten();
                let before = before.find(|condition| condition.type_ == SERVED);
                let since = before.map(|before| (before.status, before.last_transition_time.0.to_string()));
                vec![condition(SERVED, &served, since)]
            }
            None => Vec::new(),
        };
        let patch = json!({"apiVersion": "v1", "kind": "Service", "status": {"conditions": conditions}});
        let params = PatchParams::apply(MANAGER).force();
        api.patch_status(name, &params, &Patch::Apply(patch)).await.map(drop)
    }

    async fn tell_eip(&self, name: &str, ready: &StatusCondition, gone: &[String]) -> Result<(), kube::Error> {
        debug!(name, ?ready, ?gone, "telling an Eip");
        let api = Api::<Eip>::all(self.client.clone());
        let status = api.get_status(name).await?.status.unwrap_or_default();
        let mut before = status.conditions.into_iter();
        let before = before.find(|condition| condition.kind == READY);
        let since = before.map(|before| (before.status, before.last_transition_time));
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha2"),
            "kind": "Eip",
            "status": {"ready": ready.holds, "conditions": [condition(READY, ready, since)]},
        });
        let params = PatchParams::apply(MANAGER).force();
        api.patch_status(name, &params, &Patch::Apply(patch)).await?;
        if !gone.is_empty() {
            let nodes: serde_json::Map<String, Value> = gone.iter().map(|node| (node.clone(), Value::Null)).collect();
            let patch = json!({"status": {"nodes": nodes}});
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        Ok(())
    }
}

fn settled(telling: &Telling) -> Duration {
    match telling {
        Telling::Service {
            silent_nodes: Some(nodes),
            ..
        } => silence(*nodes),
        Telling::Service { .. } | Telling::Eip { .. } => SETTLED,
    }
}

fn object(telling: &Telling) -> Object {
    match telling {
        Telling::Service { service, .. } => Object::Service(service.clone()),
        Telling::Eip { eip, .. } => Object::Eip(eip.clone()),
    }
}

/// A condition as objects have it; `before`: its status and since when, as it was.
fn condition(kind: &str, condition: &StatusCondition, before: Option<(String, String)>) -> Value {
    let status = if condition.holds { "True" } else { "False" };
    let since = before.filter(|(before, _)| before == status).map(|(_, since)| since);
    json!({
        "type": kind,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        // To the second, as the API has it.
        "lastTransitionTime": since.unwrap_or_else(|| Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_is_a_change_of_status_and_of_nothing_else() {
        let now = StatusCondition {
            holds: true,
            reason: "Ready".into(),
            message: "2 nodes serve it.".into(),
        };
        let before = |status: &str| Some((status.to_owned(), "2026-01-01T00:00:00Z".to_owned()));
        assert_eq!(
            condition(READY, &now, before("True"))["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        let changed = condition(READY, &now, before("False"));
        assert_ne!(changed["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(changed["status"], "True");
    }
}
