//! Events, as `kubectl describe` shows them; sent beside the controller's own work, which never waits for them.

mod attempt;
mod note;
mod outbox;

use super::telemetry::Telemetry;
use attempt::{Attempt, Next};
use futures_util::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::{api::events::v1::Event as Note, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};
use note::note;
use outbox::Outbox;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};
use weir_core::{controller::Event, model::ObjectRef};

/// Events on their way to the API server at once.
const AT_ONCE: usize = 4;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// For how long who stops sends what waits; another leads by then.
const FAREWELL: Duration = Duration::from_secs(10);

/// Who says events.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    said: mpsc::UnboundedSender<Event>,
}

impl Speaker {
    /// Starts to send; needs a runtime.
    pub(super) fn start(client: Client, identity: &str, telemetry: Telemetry) -> (Self, Sending) {
        let (said, hearing) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let sender = Sender {
            client,
            identity: identity.into(),
            telemetry,
            outbox: Outbox::default(),
            stopping,
        };
        let task = tokio::spawn(sender.run(hearing));
        (Self { said }, Sending { task, stop })
    }

    /// Sends an event when there is time.
    pub(super) fn say(&self, event: Event) {
        if event.warning {
            warn!("{}: {}: {}", event.object, event.reason, event.message);
        }
        if self.said.send(event).is_err() {
            warn!("nobody sends events any more");
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

/// An event that waits.
#[derive(Debug)]
struct Letter {
    event: Event,
    /// When it was said.
    at: Timestamp,
    /// Attempts that failed so far.
    failed: usize,
}

/// Who sends them, and what waits there.
struct Sender {
    client: Client,
    identity: Arc<str>,
    telemetry: Telemetry,
    outbox: Outbox<Letter>,
    stopping: watch::Receiver<bool>,
}

impl Sender {
    /// Sends until nobody speaks any more and nothing is left.
    async fn run(mut self, mut hearing: mpsc::UnboundedReceiver<Event>) {
        let (mut attempts, mut rests) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut spoken_to = true;
        loop {
            while attempts.len() < AT_ONCE
                && let Some((object, letter)) = self.outbox.next()
            {
                attempts.push(attempt(self.client.clone(), self.identity.clone(), object, letter));
            }
            self.telemetry.events_wait(self.outbox.waiting());
            tokio::select! {
                event = hearing.recv(), if spoken_to => match event {
                    Some(event) => self.hear(event),
                    None => spoken_to = false,
                },
                Some((object, letter, outcome)) = attempts.next() => {
                    if let Some(pause) = self.follow(&object, letter, outcome) {
                        rests.push(rest(object, pause, self.stopping.clone()));
                    }
                }
                Some(object) = rests.next() => self.outbox.wake(object),
                else => break,
            }
        }
    }

    fn hear(&mut self, event: Event) {
        let object = event.object.clone();
        let letter = Letter {
            event,
            at: Timestamp::now(),
            failed: 0,
        };
        if !self.outbox.push(object, letter) {
            warn!("too many events at once; one is left out");
        }
    }

    /// What follows from an attempt; gives how long the object rests before the next one, if there is to be one.
    fn follow(&mut self, object: &ObjectRef, mut letter: Letter, (attempt, error): Outcome) -> Option<Duration> {
        match attempt.next(letter.failed) {
            Next::Done => self.telemetry.said(letter.event.warning),
            Next::Drop => debug!("an event is refused: {error}"),
            Next::Again(pause) => {
                debug!("an event is sent again: {error}");
                letter.failed += 1;
                self.outbox.rest(object, letter);
                return Some(pause);
            }
            Next::GiveUp => {
                warn!("an event is left out: {error}");
                self.outbox.done(object, false);
                return None;
            }
        }
        self.outbox.done(object, true);
        None
    }
}

/// How an attempt went, and the error in words.
type Outcome = (Attempt, String);

/// Sends one once.
async fn attempt(
    client: Client,
    identity: Arc<str>,
    object: ObjectRef,
    letter: Letter,
) -> (ObjectRef, Letter, Outcome) {
    let note = note(&letter.event, letter.at, &identity);
    let namespace = note.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<Note>::namespaced(client, namespace);
    let outcome = match timeout(ANSWER, api.create(&PostParams::default(), &note)).await {
        Ok(Ok(_)) => (Attempt::Taken, String::new()),
        Ok(Err(kube::Error::Api(status))) => (Attempt::Refused(status.code), status.to_string()),
        Ok(Err(error)) => (Attempt::Unanswered, error.to_string()),
        Err(_) => (Attempt::Unanswered, "no answer".to_owned()),
    };
    (object, letter, outcome)
}

/// Waits before the next attempt; when there is no time any more, it comes at once, and with its pauses after that.
async fn rest(object: ObjectRef, pause: Duration, mut stopping: watch::Receiver<bool>) -> ObjectRef {
    let hurries = !*stopping.borrow_and_update();
    tokio::select! {
        () = sleep(pause) => {}
        Ok(()) = stopping.changed(), if hurries => {}
    }
    object
}
