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
use tokio::sync::mpsc;
use tracing::{debug, warn};
use weir_core::controller::Event;

/// Events that wait to be sent; more are dropped, as they are but news.
const QUEUE: usize = 4096;
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
    pub(super) fn start(client: Client, identity: &str, telemetry: Telemetry) -> Self {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let identity = identity.to_owned();
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                let note = note(event, &identity);
                let namespace = note.metadata.namespace.as_deref().unwrap_or_default();
                let api = Api::<Note>::namespaced(client.clone(), namespace);
                if let Err(error) = api.create(&PostParams::default(), &note).await {
                    debug!("cannot send an event: {error}");
                }
            }
        });
        Self { queue, telemetry }
    }

    /// Sends an event when there is time.
    pub(super) fn say(&self, event: Event) {
        if event.warning {
            warn!("{}: {}: {}", event.object, event.reason, event.message);
        }
        let warning = event.warning;
        match self.queue.try_send(event) {
            Ok(()) => self.telemetry.said(warning),
            Err(_) => debug!("too many events at once; one is left out"),
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
    Note {
        metadata: ObjectMeta {
            // What is about an object without a namespace is kept in this one.
            namespace: Some(namespace.unwrap_or_else(|| "default".into())),
            generate_name: about.name.as_ref().map(|name| format!("{name}-")),
            ..ObjectMeta::default()
        },
        type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
        action: Some(event.reason.clone()),
        reason: Some(event.reason),
        note: Some(text),
        regarding: Some(about),
        event_time: Some(MicroTime(Timestamp::now())),
        // As OpenELB's: tools that pick events by source go on.
        reporting_controller: Some(source.into()),
        reporting_instance: Some(identity.into()),
        ..Note::default()
    }
}
