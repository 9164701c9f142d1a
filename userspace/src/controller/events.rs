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
    sync::{mpsc, watch},
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
/// For how long who stops sends what waits; another leads by then.
const FAREWELL: Duration = Duration::from_secs(10);
/// The part of an event's name that is its object's, in bytes; both together have 253 at the most.
const LONGEST_NAME: usize = 230;
/// The longest text that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// Who says events.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    queue: mpsc::Sender<Event>,
}

impl Speaker {
    /// Starts to send; needs a runtime.
    pub(super) fn start(client: Client, identity: &str, telemetry: Telemetry) -> (Self, Sending) {
        let (queue, mut waiting) = mpsc::channel::<Event>(QUEUE);
        let (stop, mut stopping) = watch::channel(false);
        let identity = identity.to_owned();
        let task = tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                let warning = event.warning;
                if send(&client, note(event, &identity), &mut stopping).await {
                    telemetry.said(warning);
                }
            }
        });
        (Self { queue }, Sending { task, stop })
    }

    /// Sends an event when there is time.
    pub(super) fn say(&self, event: Event) {
        if event.warning {
            warn!("{}: {}: {}", event.object, event.reason, event.message);
        }
        if self.queue.try_send(event).is_err() {
            warn!("too many events at once; one is left out");
        }
    }
}

/// What sends the events.
#[derive(Debug)]
pub(super) struct Sending {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Sending {
    /// Sends what waits, for a little while, what waits for another attempt at once; the speakers have to be gone.
    pub(super) async fn finish(self) {
        self.stop.send_replace(true);
        if timeout(FAREWELL, self.task).await.is_err() {
            warn!("some events are left out");
        }
    }
}

/// How an attempt to send an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Taken,
    /// The API server answered with this status.
    Refused(u16),
    /// It did not, or could not be reached.
    Unanswered,
}

/// What is to be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It is there.
    Done,
    /// It cannot be, such as in a namespace that is being deleted.
    Drop,
    /// It is to be sent again after this.
    Again(Duration),
    /// It was tried often enough.
    GiveUp,
}

impl Attempt {
    /// What follows from it, when so many have failed before.
    fn next(self, failed: usize) -> Next {
        let passes = match self {
            Self::Taken => return Next::Done,
            // An attempt whose answer was lost has arrived: each event has a name of its own.
            Self::Refused(409) if failed > 0 => return Next::Done,
            Self::Refused(code) => code == 429 || code >= 500,
            Self::Unanswered => true,
        };
        match PAUSES.get(failed) {
            _ if !passes => Next::Drop,
            Some(pause) => Next::Again(*pause),
            None => Next::GiveUp,
        }
    }
}

/// Tries for a while, if the API server has too much to do or cannot be reached; says whether it is there then. When there is
/// no time any more, the next attempt comes at once.
async fn send(client: &Client, note: Note, stopping: &mut watch::Receiver<bool>) -> bool {
    let mut hurries = *stopping.borrow_and_update();
    let namespace = note.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<Note>::namespaced(client.clone(), namespace);
    for failed in 0.. {
        let (attempt, error) = match timeout(ANSWER, api.create(&PostParams::default(), &note)).await {
            Ok(Ok(_)) => (Attempt::Taken, String::new()),
            Ok(Err(kube::Error::Api(status))) => (Attempt::Refused(status.code), status.to_string()),
            Ok(Err(error)) => (Attempt::Unanswered, error.to_string()),
            Err(_) => (Attempt::Unanswered, "no answer".to_owned()),
        };
        match attempt.next(failed) {
            Next::Done => return true,
            Next::Drop => {
                debug!("an event is refused: {error}");
                break;
            }
            Next::Again(pause) => {
                debug!("an event is sent again: {error}");
                tokio::select! {
                    () = sleep(pause) => {}
                    Ok(()) = stopping.changed(), if !hurries => hurries = true,
                }
            }
            Next::GiveUp => {
                warn!("an event is left out: {error}");
                break;
            }
        }
    }
    false
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses after which attempts follow that all go like this one, and what ends them.
    fn all(attempt: Attempt) -> (Vec<Duration>, Next) {
        let mut pauses = Vec::new();
        loop {
            match attempt.next(pauses.len()) {
                Next::Again(pause) => pauses.push(pause),
                end => return (pauses, end),
            }
        }
    }

    #[test]
    fn b25_an_event_is_sent_again_while_the_api_server_has_too_much_to_do() {
        let refused = [429, 500, 503, 504].map(Attempt::Refused);
        for attempt in refused.into_iter().chain([Attempt::Unanswered]) {
            assert_eq!(all(attempt), (PAUSES.to_vec(), Next::GiveUp), "{attempt:?}");
        }
        for code in [400, 403, 404, 409, 422] {
            assert_eq!(all(Attempt::Refused(code)), (Vec::new(), Next::Drop), "{code}");
        }
    }

    #[test]
    fn b25_an_event_that_is_there_is_not_sent_again() {
        for failed in 0..PAUSES.len() + 1 {
            assert_eq!(Attempt::Taken.next(failed), Next::Done);
        }
        assert_eq!(Attempt::Refused(409).next(1), Next::Done);
    }
}
