//! Events, as `kubectl describe` shows them; sent beside the controller's own work, which never waits for them.

use super::telemetry::Telemetry;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event as Note},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::time::Duration;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};
use weir_core::controller::Event;

/// Events that wait to be sent; more are dropped, as they are but news.
const QUEUE: usize = 4096;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// Between attempts to send one.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10)];
/// For how long who stops sends what waits.
const FAREWELL: Duration = Duration::from_secs(2);
/// The part of an event's name that is its object's, in bytes; both together have 253 at the most.
const LONGEST_NAME: usize = 230;
/// The longest text that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// Who says events.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    queue: mpsc::Sender<Event>,
    telemetry: Telemetry,
}

impl Speaker {
    /// Starts to send; needs a runtime.
    pub(super) fn start(client: Client, identity: &str, telemetry: Telemetry) -> (Self, Sending) {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let identity = identity.to_owned();
        let task = tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                send(&client, note(event, &identity)).await;
            }
        });
        (Self { queue, telemetry }, Sending { task })
    }

    /// Sends an event when there is time.
    pub(super) fn say(&self, event: Event) {
        if event.warning {
            warn!("{}: {}: {}", event.object, event.reason, event.message);
        }
        let warning = event.warning;
        match self.queue.try_send(event) {
            Ok(()) => self.telemetry.said(warning),
            Err(_) => warn!("too many events at once; one is left out"),
        }
    }
}

/// What sends the events.
#[derive(Debug)]
pub(super) struct Sending {
    task: JoinHandle<()>,
}

impl Sending {
    /// Sends what waits, for a little while; the speakers have to be gone.
    pub(super) async fn finish(self) {
        if timeout(FAREWELL, self.task).await.is_err() {
            warn!("some events are left out");
        }
    }
}

/// Tries for a while, if the API server has too much to do or cannot be reached.
async fn send(client: &Client, note: Note) {
    let namespace = note.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<Note>::namespaced(client.clone(), namespace);
    for pause in PAUSES.into_iter().map(Some).chain([None]) {
        let error = match timeout(ANSWER, api.create(&PostParams::default(), &note)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(status))) if status.code != 429 && status.code < 500 => {
                // Such as in a namespace that is being deleted.
                debug!("an event is refused: {status}");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        match pause {
            Some(pause) => sleep(pause).await,
            None => warn!("an event is left out: {error}"),
        }
    }
}

/// An object of its own for each, as each has a text of its own: series, as kube's `Recorder` makes them, keep the first text.
fn note(event: Event, identity: &str) -> Note {
    let source = event.source();
    let mut text = event.message;
    text.truncate(text.floor_char_boundary(LONGEST));
    let version = match event.object.kind.as_str() {
        "Eip" => format!("{}/v1alpha2", weir_crds::GROUP),
        _ => "v1".into(),
    };
    let about = ObjectReference {
        api_version: Some(version),
        kind: Some(event.object.kind),
        namespace: Some(event.object.namespace).filter(|namespace| !namespace.is_empty()),
        name: Some(event.object.name),
        uid: Some(event.uid),
        ..ObjectReference::default()
    };
    let namespace = about.namespace.clone();
    let now = Timestamp::now();
    // A name of its own from the start: one that is sent again, as its answer was lost, is refused if it is there.
    let mut name = about.name.clone().unwrap_or_default();
    name.truncate(name.floor_char_boundary(LONGEST_NAME));
    let name = format!("{name}.{:x}", now.as_nanosecond());
    Note {
        metadata: ObjectMeta {
            // What is about an object without a namespace is kept in this one.
            namespace: Some(namespace.unwrap_or_else(|| "default".into())),
            name: Some(name),
            ..ObjectMeta::default()
        },
        type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
        action: Some(event.reason.clone()),
        reason: Some(event.reason),
        note: Some(text),
        regarding: Some(about),
        event_time: Some(MicroTime(now)),
        // As OpenELB's: tools that pick events by source go on.
        reporting_controller: Some(source.into()),
        reporting_instance: Some(identity.into()),
        ..Note::default()
    }
}
