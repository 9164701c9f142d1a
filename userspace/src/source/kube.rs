//! The Kubernetes API as a source: lists and watches every kind that planning reads, and gives the whole [`Cluster`] they
//! make, whatever becomes of the API server.
//!
//! Nothing is told before every kind has been listed once. While the API server is away, or refuses, what was last read
//! stays; a list that is read again replaces the former one in one piece, and if nothing is different nothing is told.
//! Several changes in a row are one. Objects are turned into the model's as they arrive, so the large parts of them
//! (managed fields, status of nodes) are not kept.
//!
//! Does not decide anything about the objects, and does not write to the API.

mod backoff;
mod contents;
mod eips;
mod follow;
mod kinds;
mod problems;
mod records;

pub use eips::{WrittenEip, eips, written_eip};
pub use records::Records;

use contents::{Contents, Entry};
use follow::Followed;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, Config, core::PartialObjectMeta};
use problems::Problems;
use std::{collections::BTreeSet, future::pending, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use weir_core::model::{Cluster, Condition};

/// Changes that come within this time after a snapshot make one more, together.
const GAP: Duration = Duration::from_millis(20);
/// Messages of the followers that wait to be taken; more keep the followers waiting.
const QUEUE: usize = 256;
/// A connection that is not made in this time is not made.
const CONNECT: Duration = Duration::from_secs(5);

/// Why the API cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Nothing says where the API server is.
    #[error(
        "cannot find out where the Kubernetes API is; set KUBECONFIG, or run in a pod that has a ServiceAccount token"
    )]
    NoConfig(#[source] kube::config::InferConfigError),
    /// What says it cannot be used.
    #[error("cannot use what is known about the Kubernetes API; check the certificates and keys of the kubeconfig")]
    BadConfig(#[source] Box<kube::Error>),
}

/// A client of the API that `KUBECONFIG`, or else the pod's ServiceAccount, leads to, and where that is. It asks once; to ask
/// again is its user's part.
///
/// # Errors
///
/// If neither says how. That the API server cannot be reached is no error.
pub async fn client() -> Result<(Client, String), KubeError> {
    let mut config = Config::infer().await.map_err(KubeError::NoConfig)?;
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|error| KubeError::BadConfig(error.into()))?;
    Ok((client, server))
}

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
    told: mpsc::Receiver<Told>,
    contents: Contents,
    problems: Problems,
    /// Kinds that have not been listed yet.
    awaited: BTreeSet<Followed>,
    /// Something is different from what was read last.
    changed: bool,
    /// When the next snapshot may be taken.
    next: Instant,
    /// Ends the followers when this is dropped.
    _followers: JoinSet<()>,
}

/// What a follower says.
#[derive(Debug)]
enum Told {
    /// All objects of a kind.
    Listed(Followed, Vec<Entry>),
    /// An object is new or another.
    Set(Entry),
    /// An object is gone.
    Gone(Entry),
    /// The API server has begun to tell changes of a kind.
    Watching(Followed),
    /// It could not be asked about a kind.
    Failed(Followed, Box<kube::Error>),
}

impl Kube {
    /// Begins to follow with `client`; conditions name the API server `server`. Needs a runtime.
    #[must_use]
    pub fn follow(client: &Client, server: &str, scope: Scope) -> Self {
        let (tell, told) = mpsc::channel(QUEUE);
        let mut followers = JoinSet::new();
        let kinds = scope.kinds();
        for kind in kinds {
            let tell = tell.clone();
            let client = client.clone();
            match kind {
                Followed::Eips => {
                    let api = Api::all_with(client, &kinds::eip_resource());
                    followers.spawn(follow::follow(api, *kind, scope, kinds::eip, tell));
                }
                Followed::Services => {
                    let api = Api::<Service>::all(client);
                    followers.spawn(follow::follow(
                        api,
                        *kind,
                        scope,
                        move |service| kinds::service(service, scope),
                        tell,
                    ));
                }
                Followed::EndpointSlices => {
                    let api = Api::<EndpointSlice>::all(client);
                    followers.spawn(follow::follow(api, *kind, scope, kinds::endpoint_slice, tell));
                }
                Followed::Nodes => {
                    let api = Api::<Node>::all(client);
                    followers.spawn(follow::follow(api, *kind, scope, kinds::node, tell));
                }
                Followed::Namespaces => {
                    let api = Api::<PartialObjectMeta<Namespace>>::all(client);
                    followers.spawn(follow::follow(api, *kind, scope, kinds::namespace, tell));
                }
            }
        }
        Self {
            told,
            contents: Contents::new(scope.automatic()),
            problems: Problems::new(server),
            awaited: kinds.iter().copied().collect(),
            changed: true,
            next: Instant::now(),
            _followers: followers,
        }
    }

    /// Waits until [`Self::read`] or [`Self::conditions`] may have something new to say. May be dropped at any time.
    pub async fn changed(&mut self) {
        loop {
            let due = self.changed && self.awaited.is_empty();
            if due && self.told.is_empty() && self.next <= Instant::now() {
                return;
            }
            let next = self.next;
            tokio::select! {
                told = self.told.recv() => match told {
                    Some(told) => if self.take(told) {
                        return;
                    },
                    // Followers never end by themselves.
                    None => pending().await,
                },
                () = sleep_until(next), if due => return,
            }
        }
    }

    /// What the API says; `None` until it has said everything once, and if that is nothing new.
    pub fn read(&mut self) -> Option<Cluster> {
        if !self.changed || !self.awaited.is_empty() {
            return None;
        }
        self.changed = false;
        self.next = Instant::now() + GAP;
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

    /// Takes in what a follower says; whether the conditions are others now.
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::Listed(kind, entries) => {
                self.awaited.remove(&kind);
                self.changed |= self.contents.replace(kind.kind(), entries);
                false
            }
            Told::Set(entry) => {
                self.changed |= self.contents.set(entry);
                false
            }
            Told::Gone(entry) => {
                self.changed |= self.contents.remove(&entry.identity);
                false
            }
            Told::Watching(kind) => self.problems.solved(kind),
            Told::Failed(kind, error) => self.problems.failed(kind, &error),
        }
    }
}
