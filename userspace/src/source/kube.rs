//! The Kubernetes API as a source: lists and watches every kind that planning reads, and gives the whole [`Cluster`] they
//! make, whatever becomes of the API server.
//!
//! Nothing is told before every kind has been listed once. While the API server is away, or refuses, what was last read
//! stays; a list that is read again replaces the former one in one piece, and if nothing is different nothing is told.
//! Several changes in a row are one, and nobody who tells has to wait until they are taken in. Objects are turned into the
//! model's as they arrive, so the large parts of them (managed fields, status of nodes) are not kept.
//!
//! Does not decide anything about the objects, and does not write to the API.

mod backoff;
mod brief;
mod connect;
mod contents;
mod eips;
mod follow;
mod inbox;
mod kinds;
mod problems;
mod records;

pub use connect::{KubeError, client, insisting_client, writing_client};
pub use eips::{WrittenEip, eips, written_eip};
pub use records::Records;

use brief::Brief;
use contents::Contents;
use follow::Followed;
use inbox::{Inbox, Told};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, core::PartialObjectMeta};
use problems::Problems;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use weir_core::model::{Cluster, Condition};

/// After a snapshot the next one waits for as long as it took to use that one, so that changes without end take half of the
/// time at most; but not less and not more than this. At rest the first change waits for nothing.
const GAP: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// Whose view it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What a node serves: Services of type LoadBalancer, their EndpointSlices, Eips and Nodes.
    Agent,
    /// What addresses are given out by: every Service, Eips, Nodes and the labels of Namespaces.
    Controller,
}

/// The API and what was last read from it.
#[derive(Debug)]
pub struct Kube {
    inbox: Arc<Inbox>,
    contents: Contents,
    problems: Problems,
    /// Kinds that have not been listed yet.
    awaited: BTreeSet<Followed>,
    /// Something is different from what was read last.
    changed: bool,
    /// When the last snapshot was taken, until it has been used.
    taken: Option<Instant>,
    /// When the next one may be taken.
    next: Instant,
    /// Ends the followers when this is dropped.
    _followers: JoinSet<()>,
}

impl Kube {
    /// Begins to follow with `client`; conditions name the API server `server`. Needs a runtime.
    #[must_use]
    pub fn follow(client: &Client, server: &str, scope: Scope) -> Self {
        let inbox = Arc::new(Inbox::default());
        let mut followers = JoinSet::new();
        let kinds = scope.kinds();
        for kind in kinds {
            let inbox = inbox.clone();
            let client = client.clone();
            match kind {
                Followed::Eips => {
                    let api = Api::all_with(client, &kinds::eip_resource());
                    followers.spawn(follow::follow(api, *kind, scope, kinds::eip, inbox));
                }
                Followed::Services => {
                    let api = Api::<Brief<Service>>::all(client);
                    followers.spawn(follow::follow(
                        api,
                        *kind,
                        scope,
                        move |Brief(service)| kinds::service(service, scope),
                        inbox,
                    ));
                }
                Followed::EndpointSlices => {
                    let api = Api::<Brief<EndpointSlice>>::all(client);
                    let convert = |Brief(slice)| kinds::endpoint_slice(slice);
                    followers.spawn(follow::follow(api, *kind, scope, convert, inbox));
                }
                Followed::Nodes => {
                    let api = Api::<Node>::all(client);
                    followers.spawn(follow::follow(api, *kind, scope, kinds::node, inbox));
                }
                Followed::Namespaces => {
                    let api = Api::<PartialObjectMeta<Namespace>>::all(client);
                    followers.spawn(follow::follow(api, *kind, scope, kinds::namespace, inbox));
                }
            }
        }
        Self {
            inbox,
            contents: Contents::new(scope),
            problems: Problems::new(server),
            awaited: kinds.iter().copied().collect(),
            changed: true,
            taken: None,
            next: Instant::now(),
            _followers: followers,
        }
    }

    /// Waits until [`Self::read`] or [`Self::conditions`] may have something new to say. May be dropped at any time.
    pub async fn changed(&mut self) {
        if let Some(taken) = self.taken.take() {
            let (least, most) = GAP;
            self.next = Instant::now() + taken.elapsed().clamp(least, most);
        }
        loop {
            if self.take() {
                return;
            }
            let due = self.changed && self.awaited.is_empty();
            if due && self.next <= Instant::now() {
                return;
            }
            let next = self.next;
            tokio::select! {
                () = self.inbox.filled() => {}
                () = sleep_until(next), if due => {}
            }
        }
    }

    /// What the API says; `None` until it has said everything once, and if that is nothing new.
    pub fn read(&mut self) -> Option<Cluster> {
        if !self.changed || !self.awaited.is_empty() {
            return None;
        }
        self.changed = false;
        self.taken = Some(Instant::now());
        Some(self.contents.snapshot())
    }

    /// What is written into the objects of the snapshot; of Services only if the scope is the controller's.
    #[must_use]
    pub const fn records(&self) -> &Records {
        self.contents.records()
    }

    /// What the API has not said yet: kinds, as rights have them; none once a snapshot can be read.
    pub fn awaited(&self) -> impl Iterator<Item = &'static str> {
        self.awaited.iter().map(|kind| kind.plural())
    }

    /// What is wrong with the API server, or with our rights there.
    pub fn conditions(&self) -> impl Iterator<Item = Condition> {
        self.problems.conditions()
    }

    /// Takes in what followers have been told; whether the conditions are others now.
    fn take(&mut self) -> bool {
        let Told {
            lists,
            objects,
            attempts,
        } = self.inbox.take();
        for (kind, entries) in lists {
            self.awaited.remove(&kind);
            self.changed |= self.contents.replace(kind.kind(), entries);
        }
        for (identity, entry) in objects {
            self.changed |= match entry {
                Some(entry) => self.contents.set(entry),
                None => self.contents.remove(&identity),
            };
        }
        let mut conditions = false;
        for (kind, attempt) in attempts {
            conditions |= match attempt {
                Ok(()) => self.problems.solved(kind),
                Err(error) => self.problems.failed(kind, &error),
            };
        }
        conditions
    }
}
