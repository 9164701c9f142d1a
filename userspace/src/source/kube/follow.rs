//! Follows one kind: lists it, watches it from there on, and begins anew where that fails.
//!
//! kube's own watcher does the same, but does not tell when a watch that could not be had is had again, takes five minutes to
//! notice a connection that died in silence because it keeps bookmarks to itself, and starts its waits anew with every
//! attempt to list. All three matter to an agent that is to outlive its API server.

use super::{
    Scope,
    backoff::{Backoff, chance},
    contents::Entry,
    inbox::Inbox,
};
use futures_util::{FutureExt, Stream, StreamExt};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use serde::de::{DeserializeOwned, Error as _};
use std::{fmt::Debug, io, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

/// Objects in one answer to a list.
const PAGE: u32 = 500;
/// An answer that does not begin in this time does not come.
const ANSWER: Duration = Duration::from_secs(30);
/// The API server says something on every watch each minute; one that is silent for longer is dead, whatever confirms its
/// packets.
const SILENCE: Duration = Duration::from_secs(100);
/// How long the API server is asked to let a watch run, at least and by chance in addition, so that not all end at once.
const WATCH: (u32, f64) = (240, 120.0);
/// A watch that ends sooner has failed.
const LASTING: Duration = Duration::from_secs(1);
const GONE: u16 = 410;
/// A follower that panicked is begun anew after this long.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// A kind that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Followed {
    Eips,
    Services,
    EndpointSlices,
    Nodes,
    Namespaces,
}

/// Tells everything about a kind, for as long as it is let.
pub(super) async fn follow<K>(
    api: Api<K>,
    kind: Followed,
    scope: Scope,
    convert: impl Fn(K) -> Entry,
    inbox: Arc<Inbox>,
) where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let follower = Follower {
        api,
        kind,
        labels: kind.labels().map(str::to_owned),
        fields: kind.fields(scope).map(str::to_owned),
        convert,
        inbox,
    };
    let panicked = || {
        let error = serde_json::Error::custom("taking in what was told panicked, and the log of weir says where");
        follower
            .inbox
            .attempt(kind, Err(Box::new(kube::Error::SerdeError(error))));
    };
    persist(|| follower.run(), panicked, AFTER_PANIC).await;
}

/// Begins `work` anew, after a `pause`, whenever it panics, which `told` is told of: nobody else would notice.
async fn persist<F: Future<Output = ()>>(work: impl Fn() -> F, told: impl Fn(), pause: Duration) {
    while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
        told();
        sleep(pause).await;
    }
}

struct Follower<K, C> {
    api: Api<K>,
    kind: Followed,
    labels: Option<String>,
    fields: Option<String>,
    convert: C,
    inbox: Arc<Inbox>,
}

impl<K, C> Follower<K, C>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    C: Fn(K) -> Entry,
{
    /// Tells everything, for ever.
    async fn run(&self) {
        let mut backoff = Backoff::default();
        // Where the next watch is to begin; none: with a list.
        let mut version = None;
        loop {
            let begun = Instant::now();
            let outcome = match &mut version {
                None => self.list().await.map(|listed| {
                    version = Some(listed);
                    false
                }),
                Some(version) => self.watch(version).await.map(|()| true),
            };
            let lasted = begun.elapsed() >= LASTING;
            match outcome {
                Ok(false) => continue,
                Ok(true) => debug!(kind = ?self.kind, "a watch ended"),
                Err(error) => {
                    if is_gone(&error) {
                        debug!(kind = ?self.kind, "changes since the last one are no longer known; listing anew");
                        version = None;
                    } else {
                        // What cannot be read now may be read with the rest of a list.
                        if matches!(error, kube::Error::SerdeError(_)) {
                            version = None;
                        }
                        self.inbox.attempt(self.kind, Err(error.into()));
                        sleep(backoff.wait()).await;
                        continue;
                    }
                }
            }
            if lasted {
                backoff.reset();
            } else {
                sleep(backoff.wait()).await;
            }
        }
    }

    /// Lists all objects and returns the version of the list.
    async fn list(&self) -> Result<String, kube::Error> {
        let mut params = ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut entries = Vec::new();
        loop {
            let page = answered(self.api.list(&params)).await?;
            entries.extend(page.items.into_iter().map(&self.convert));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.inbox.list(self.kind, entries);
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    /// Tells changes since `version`, which it keeps at the last one told, until the watch ends.
    async fn watch(&self, version: &mut String) -> Result<(), kube::Error> {
        let (least, more) = WATCH;
        let params = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 120")]
            timeout: Some(least + (chance() * more) as u32),
            bookmarks: true,
            send_initial_events: false,
        };
        let events = answered(self.api.watch(&params, version)).await?;
        self.inbox.attempt(self.kind, Ok(()));
        self.tell_all(events, version).await
    }

    async fn tell_all(
        &self,
        events: impl Stream<Item = Result<WatchEvent<K>, kube::Error>>,
        version: &mut String,
    ) -> Result<(), kube::Error> {
        let mut events = pin!(events);
        while let Ok(Some(event)) = timeout(SILENCE, events.next()).await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version.clone_from(&object.resource_version().unwrap_or_default());
                    self.inbox.set((self.convert)(object));
                }
                Ok(WatchEvent::Deleted(object)) => {
                    version.clone_from(&object.resource_version().unwrap_or_default());
                    self.inbox.gone((self.convert)(object).identity);
                }
                Ok(WatchEvent::Bookmark(bookmark)) => *version = bookmark.metadata.resource_version,
                Ok(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
                Err(error @ kube::Error::SerdeError(_)) => return Err(error),
                Err(error) => {
                    // Whether the API server is away is found out by the next attempt.
                    debug!(kind = ?self.kind, problem = &error as &dyn std::error::Error, "a watch broke off");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

async fn answered<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(ANSWER, request).await.unwrap_or_else(|_| {
        let text = format!("no answer in {} seconds", ANSWER.as_secs());
        Err(kube::Error::Service(
            io::Error::new(io::ErrorKind::TimedOut, text).into(),
        ))
    })
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if is_gone_status(status))
}

fn is_gone_status(status: &Status) -> bool {
    status.code == GONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[tokio::test]
    async fn who_panics_begins_anew_and_it_is_told() {
        let (begun, told) = (AtomicU32::new(0), AtomicU32::new(0));
        let work = || async { assert!(begun.fetch_add(1, Relaxed) >= 2, "on purpose") };
        let tell = || {
            told.fetch_add(1, Relaxed);
        };
        persist(work, tell, Duration::ZERO).await;
        assert_eq!((begun.into_inner(), told.into_inner()), (3, 2));
    }
}
