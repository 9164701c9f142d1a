//! Telling in objects' statuses what nothing else rests on: late enough that what passes by itself is not told, and no object
//! often.

mod due;

use super::{
    Leading,
    telemetry::{self, Telemetry},
    write::Object,
};
use due::{Due, earliest, object};
use futures_util::{StreamExt, stream};
use k8s_openapi::{api::core::v1::Service, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, mem};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};
use weir_core::controller::{READY, SERVED, StatusCondition, Telling};
use weir_crds::{Eip, GROUP};

/// Whose fields these are to the API server.
const MANAGER: &str = "weir-controller";
/// Writes in one go, and requests under way at once.
const MOST: usize = 100;
const AT_ONCE: usize = 4;

/// What is to be told, and who does it: beside the controller's other work, which never waits for it.
#[derive(Debug)]
pub(super) struct Teller {
    wanted: watch::Sender<Vec<Telling>>,
    writer: JoinSet<()>,
}

impl Teller {
    /// Tells while `leading`; needs a runtime.
    pub(super) fn start(client: Client, telemetry: Telemetry, leading: watch::Receiver<Leading>) -> Self {
        let (wanted, wants) = watch::channel(Vec::new());
        let mut writer = JoinSet::new();
        let task = Writer {
            client,
            telemetry,
            due: Due::default(),
        };
        writer.spawn(task.run(wants, leading));
        Self { wanted, writer }
    }

    /// All there is to be told now; nothing, when another leads.
    pub(super) fn tell(&self, tellings: Vec<Telling>) {
        self.wanted.send_replace(tellings);
    }

    /// Writes nothing any more.
    pub(super) async fn end(&mut self) {
        self.writer.shutdown().await;
    }
}

struct Writer {
    client: Client,
    telemetry: Telemetry,
    due: Due,
}

impl Writer {
    async fn run(mut self, mut wanted: watch::Receiver<Vec<Telling>>, mut leading: watch::Receiver<Leading>) {
        let (mut tellings, mut others) = (Vec::new(), true);
        loop {
            if mem::take(&mut others) {
                tellings.clone_from(&wanted.borrow_and_update());
            }
            // A lead that lapses for a moment, and is renewed, is nothing that the controller has to notice: what is to be told
            // stays until it says otherwise.
            let leads = leading.borrow_and_update().now();
            let next = if leads {
                self.write(&mut tellings, &leading).await
            } else {
                self.due.forget();
                None
            };
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => others = true,
                    Err(_) => return,
                },
                changed = leading.changed() => if changed.is_err() { return },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Makes those of the writes that are due, and takes out what is told then; gives when to come again, if any are not.
    async fn write(&mut self, tellings: &mut Vec<Telling>, leading: &watch::Receiver<Leading>) -> Option<Instant> {
        let (due, next) = self.due.take(tellings.clone(), Instant::now(), MOST);
        let this = &*self;
        let results: Vec<(Object, telemetry::Result)> = stream::iter(due)
            .map(|(object, telling)| async move {
                let now_leading = leading.borrow().clone();
                let made = now_leading.during(this.make(&object, telling)).await;
                (object, made.unwrap_or(telemetry::Result::TooOld))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let told: BTreeSet<&Object> = results
            .iter()
            .filter(|(_, result)| *result == telemetry::Result::Written)
            .map(|(object, _)| object)
            .collect();
        // Else it would be told again and again until another plan has been made.
        tellings.retain(|telling| !told.contains(&object(telling)));
        earliest(next, self.due.went(results, Instant::now()))
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
    use axum::http::{Method, Request, Response};
    use kube::client::Body;
    use std::{convert::Infallible, time::Duration};
    use tokio::{sync::mpsc, time::timeout};
    use weir_core::model::ServiceKey;

    /// An API server that has every Service, and gives the methods by which it is asked.
    fn server() -> (Client, mpsc::UnboundedReceiver<Method>) {
        let (tell, asked) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let _ = tell.send(request.method().clone());
            let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(
                object.to_string().into_bytes(),
            ))))
        });
        (Client::new(service, "default"), asked)
    }

    fn not_served() -> Vec<Telling> {
        let served = StatusCondition {
            holds: false,
            reason: "NoEip".into(),
            message: "there is none".into(),
        };
        let (namespace, name) = ("default".into(), "web".into());
        vec![Telling::Service {
            service: ServiceKey { namespace, name },
            served: Some(served),
            silent_nodes: None,
        }]
    }

    /// The next write, if one comes within this time.
    async fn written(asked: &mut mpsc::UnboundedReceiver<Method>, within: Duration) -> bool {
        let patch = async {
            while let Some(method) = asked.recv().await {
                if method == Method::PATCH {
                    return;
                }
            }
            std::future::pending().await
        };
        timeout(within, patch).await.is_ok()
    }

    /// Longer than anything takes, and long enough for what is not to come.
    const SOON: Duration = Duration::from_secs(60);
    const WHILE: Duration = Duration::from_secs(7);

    #[tokio::test(start_paused = true)]
    async fn a_lead_that_lapses_and_is_renewed_costs_nothing_that_is_to_be_told() {
        let (client, mut asked) = server();
        let (lead, leading) = watch::channel(Leading::for_millis(300));
        let teller = Teller::start(client, Telemetry::default(), leading);
        // Due when the lead is over.
        teller.tell(not_served());
        assert!(!written(&mut asked, Duration::from_secs(3)).await);
        lead.send_replace(Leading::for_millis(600_000));
        assert!(written(&mut asked, SOON).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_told_once_and_nothing_when_another_leads() {
        let (client, mut asked) = server();
        let (lead, leading) = watch::channel(Leading::for_millis(600_000));
        let mut teller = Teller::start(client, Telemetry::default(), leading);
        // It waits for news by then.
        assert!(!written(&mut asked, WHILE).await);
        teller.tell(not_served());
        assert!(written(&mut asked, SOON).await);
        // No plan follows, as the controller has much to do, but the Lease is renewed.
        assert!(!written(&mut asked, WHILE).await);
        lead.send_replace(Leading::for_millis(600_000));
        assert!(!written(&mut asked, WHILE).await);
        teller.tell(not_served());
        teller.tell(Vec::new());
        assert!(!written(&mut asked, WHILE).await);
        teller.tell(not_served());
        teller.end().await;
        assert!(!written(&mut asked, WHILE).await);
    }

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
