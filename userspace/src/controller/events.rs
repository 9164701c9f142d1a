//! Events, as `kubectl describe` shows them; sent beside the controller's own work, which never waits for them.

use super::telemetry::Telemetry;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event as Note, EventType, Recorder, Reporter},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tracing::{debug, warn};
use weir_core::controller::Event;

/// As OpenELB's: tools that pick events by source go on.
const SOURCE: &str = "OpenELBController";
/// Events that wait to be sent; more are dropped, as they are but news.
const QUEUE: usize = 4096;
/// For how long an event that is said again is counted with the one before; as long as kube does so.
const REPEATED: Duration = Duration::from_secs(360);
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
        let (queue, mut waiting) = mpsc::channel::<Event>(QUEUE);
        let reporter = Reporter {
            controller: SOURCE.into(),
            instance: Some(identity.into()),
        };
        let mut recent: BTreeMap<Event, (Recorder, Instant)> = BTreeMap::new();
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                let now = Instant::now();
                recent.retain(|_, (_, last)| now - *last < REPEATED);
                // One recorder would count an event with an earlier one of the same reason, and never say how it is otherwise.
                let anew = || (Recorder::new(client.clone(), reporter.clone()), now);
                let (recorder, last) = recent.entry(event.clone()).or_insert_with(anew);
                *last = now;
                let (note, about) = note(event);
                if let Err(error) = recorder.publish(&note, &about).await {
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

fn note(event: Event) -> (Note, ObjectReference) {
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
    let note = Note {
        type_: if event.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        action: event.reason.clone(),
        reason: event.reason,
        note: Some(text),
        secondary: None,
    };
    (note, about)
}
