//! What the maps know frontends, backends and nodes by.

use super::{Tables, backends::Held, key::Key};
use crate::{
    SharedMap,
    plan::{BackendKey, FrontendKey},
};
use std::{collections::BTreeMap, net::IpAddr};
use weir_common::abi::Address;

/// The ids of everything that is programmed, as of one step. A copy is cheap.
#[derive(Clone, Debug)]
pub struct Programmed {
    frontends: SharedMap<Key, u32>,
    backends: SharedMap<Key, Held>,
    nodes: BTreeMap<Address, u32>,
}

impl Tables {
    /// What everything is known by now.
    #[must_use]
    pub fn programmed(&self) -> Programmed {
        Programmed {
            frontends: self.frontends.ids().clone(),
            backends: self.backends.held().clone(),
            nodes: self.nodes.ids().collect(),
        }
    }
}

impl Programmed {
    /// The id of a frontend that is programmed; it indexes `FRONTEND_COUNTERS`.
    #[must_use]
    pub fn frontend_id(&self, name: &FrontendKey) -> Option<u32> {
        self.frontends.get(&Key::from(name)).copied()
    }

    /// The id of a backend, of the plan or remembered; it indexes `BACKENDS` and `BACKEND_COUNTERS`.
    #[must_use]
    pub fn backend_id(&self, backend: &BackendKey) -> Option<u32> {
        self.backends.get(&Key::from(backend)).map(|held| held.id)
    }

    /// The id of the node with this tunnel address; it indexes `NODES`.
    #[must_use]
    pub fn node_id(&self, address: IpAddr) -> Option<u32> {
        self.nodes.get(&Address::from(address)).copied()
    }
}
