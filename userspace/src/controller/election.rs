//! Which controller leads, by a Lease of the API server; the core decides.

use super::{Settings, telemetry::Telemetry};
use k8s_openapi::{
    api::coordination::v1::{Lease as LeaseObject, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};
use weir_core::lease::{Candidate, Decision, Lease, Timing};

/// Until when this controller leads.
#[derive(Clone, Debug, Default)]
pub(super) struct Leading {
    until: Option<Instant>,
}

impl Leading {
    /// Whether it leads now.
    pub(super) fn now(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    #[cfg(test)]
    pub(super) fn for_millis(millis: u64) -> Self {
        Self {
            until: Some(Instant::now() + Duration::from_millis(millis)),
        }
    }

    /// Does `work` for as long as it leads; `None` if that is over before the work is. Then it is not known how far it got, but
    /// it goes no further.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let until = self.until.filter(|_| self.now())?;
        let (mut end, mut work) = (pin!(sleep_until(until)), pin!(work));
        poll_fn(|context| {
            // The clock before the work, each time: a process that was stopped meanwhile goes on anywhere.
            if end.as_mut().poll(context).is_ready() || !self.now() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}

/// Takes part until told to end; then lets go of the Lease.
pub(super) fn start(
    client: Client,
    settings: &Settings,
    timing: Timing,
    telemetry: Telemetry,
    ended: watch::Receiver<bool>,
) -> (watch::Receiver<Leading>, JoinHandle<()>) {
    let (tell, told) = watch::channel(Leading::default());
    let election = Election {
        api: Api::namespaced(client, &settings.namespace),
        name: settings.lease.clone(),
        identity: settings.identity.clone(),
        timing,
        candidate: Candidate::new(settings.identity.clone(), timing),
        written: None,
        started: Instant::now(),
        tell,
        telemetry,
    };
    (told, tokio::spawn(election.run(ended)))
}

struct Election {
    api: Api<LeaseObject>,
    name: String,
    identity: String,
    timing: Timing,
    candidate: Candidate,
    /// The Lease as we have just written it, so that it need not be read to be renewed.
    written: Option<Lease>,
    started: Instant,
    tell: watch::Sender<Leading>,
    telemetry: Telemetry,
}

impl Election {
    async fn run(mut self, mut ended: watch::Receiver<bool>) {
        loop {
            // Half, so that there is time for another attempt, by another connection, while it still leads.
            let wait = match timeout(self.timing.renew / 2, self.look()).await {
                Ok(Ok(wait)) => wait,
                Ok(Err(error)) => {
                    warn!("cannot hold or read the Lease {}: {error}", self.name);
                    self.timing.retry
                }
                Err(_) => {
                    warn!("cannot hold or read the Lease {}: no answer", self.name);
                    Duration::ZERO
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                _ = ended.changed() => break,
            }
        }
        self.tell.send_replace(Leading::default());
        if let Ok(Err(error)) = timeout(self.timing.retry, self.let_go()).await {
            warn!(
                "cannot let go of the Lease {}; another waits until it has run out: {error}",
                self.name
            );
        }
    }

    /// Reads the Lease, unless it is known, and does what is due; gives how long to wait then.
    async fn look(&mut self) -> Result<Duration, kube::Error> {
        // Known no more, whatever becomes of this.
        let written = self.written.take();
        let known = written.is_some();
        let lease = match written {
            None => self.api.get_opt(&self.name).await?.as_ref().map(read),
            written => written,
        };
        let begun = self.started.elapsed();
        if let Some(lease) = &lease {
            self.telemetry.transitions(lease.transitions);
        }
        match self.candidate.decide(begun, lease.as_ref()) {
            Decision::Wait(wait) => {
                self.tell.send_replace(Leading::default());
                Ok(wait)
            }
            Decision::Hold {
                resource_version,
                transitions,
                acquired,
            } => match self.hold(resource_version, transitions, acquired).await {
                Ok(lease) => {
                    self.written = Some(lease);
                    self.telemetry.transitions(transitions);
                    if acquired {
                        info!(identity = self.identity, "leading");
                    }
                    let wait = self.candidate.written(begun);
                    self.tell.send_replace(Leading {
                        until: Some(self.started + begun + self.timing.renew),
                    });
                    Ok(wait)
                }
                Err(kube::Error::Api(status)) if known && [404, 409].contains(&status.code) => {
                    debug!("the Lease is another by now");
                    Ok(Duration::ZERO)
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    debug!("another was faster");
                    Ok(self.timing.retry)
                }
                Err(error) => Err(error),
            },
        }
    }

    async fn hold(&self, version: Option<String>, transitions: i32, acquired: bool) -> Result<Lease, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: acquired.then_some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let held = match version {
            None => {
                let lease = LeaseObject {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                self.api.create(&PostParams::default(), &lease).await?
            }
            Some(version) => {
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
                self.patch(&patch).await?
            }
        };
        Ok(read(&held))
    }

    async fn let_go(&self) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let released = lease
            .as_ref()
            .map(read)
            .and_then(|lease| self.candidate.release(&lease));
        let Some((version, transitions)) = released else {
            return Ok(());
        };
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": transitions},
        });
        self.patch(&patch).await.map(drop)
    }

    async fn patch(&self, patch: &serde_json::Value) -> Result<LeaseObject, kube::Error> {
        self.api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
    }
}

fn read(object: &LeaseObject) -> Lease {
    let spec = object.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    Lease {
        resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds.unwrap_or_default()),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn work_begins_and_ends_with_the_lead() {
        assert_eq!(Leading::for_millis(60_000).during(ready(1)).await, Some(1));
        assert_eq!(Leading::for_millis(10).during(pending::<()>()).await, None);
        let mut begun = false;
        assert_eq!(Leading::default().during(async { begun = true }).await, None);
        assert!(!begun);
    }
}
