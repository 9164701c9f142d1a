//! Where the agent reads the cluster: a folder, or the Kubernetes API.

use crate::source::{
    folder::{Folder, FolderError},
    kube::{self, Kube, KubeError, Records, Scope},
};
use ::kube::Client;
use std::{path::PathBuf, time::Duration};
use weir_core::model::{Cluster, Condition};

/// Which source to read.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder of manifests. Addresses are allocated by the agent itself.
    Folder(PathBuf),
    /// The Kubernetes API. Addresses are those in Services' status.
    Kube {
        /// Where the agent's Lease is.
        namespace: String,
        /// How long it is good for, at least.
        lease: Duration,
    },
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The API.
    #[error(transparent)]
    Kube(#[from] KubeError),
}

/// The source, being read.
#[derive(Debug)]
pub enum Source {
    /// A folder of manifests.
    Folder(Folder),
    /// The Kubernetes API.
    Kube(Kube),
}

impl Source {
    /// Begins to read; gives a client of the API, too, if that is the source.
    ///
    /// # Errors
    ///
    /// If the folder is none, or nothing says where the API is. An API server that does not answer is no error.
    pub async fn open(from: &Origin) -> Result<(Self, Option<Client>), SourceError> {
        Ok(match from {
            Origin::Folder(path) => (Self::Folder(Folder::open(path)?), None),
            Origin::Kube { .. } => {
                let (client, server) = kube::client().await?;
                (Self::Kube(Kube::follow(&client, &server, Scope::Agent)), Some(client))
            }
        })
    }

    /// What is written into the objects, if anybody can.
    #[must_use]
    pub const fn records(&self) -> Option<&Records> {
        match self {
            Self::Folder(_) => None,
            Self::Kube(kube) => Some(kube.records()),
        }
    }

    /// Waits until [`Self::read`] or [`Self::conditions`] may have something new to say. May be dropped at any time.
    pub async fn changed(&mut self) {
        match self {
            Self::Folder(folder) => folder.changed().await,
            Self::Kube(kube) => kube.changed().await,
        }
    }

    /// What it says; `None` if that is not known yet, or nothing new.
    pub fn read(&mut self) -> Option<Cluster> {
        match self {
            Self::Folder(folder) => Some(folder.read().cluster),
            Self::Kube(kube) => kube.read(),
        }
    }

    /// What has not been read yet, in words; `None` once [`Self::read`] has given something.
    #[must_use]
    pub fn awaited(&self) -> Option<String> {
        let Self::Kube(kube) = self else { return None };
        let kinds: Vec<&str> = kube.awaited().collect();
        (!kinds.is_empty()).then(|| format!("the Kubernetes API has not told its {} yet", kinds.join(", ")))
    }

    /// What is wrong with the source as a whole; what is wrong with objects is in what it says.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Kube(kube) => kube.conditions().collect(),
        }
    }
}
