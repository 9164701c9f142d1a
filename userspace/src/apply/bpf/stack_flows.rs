//! `STACK_FLOWS`: the flows that the stack had before Weir drew their VIP's packets.

use super::{abi::Abi, error::Error, maps::removed};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use std::collections::BTreeSet;
use weir_common::abi::StackFlow;

const NAME: &str = "STACK_FLOWS";

/// The map.
#[derive(Debug)]
pub struct StackFlows(HashMap<MapData, Abi<StackFlow>, u32>);

impl StackFlows {
    /// Takes it out of a loaded object.
    ///
    /// # Errors
    ///
    /// [`Error::NoMap`], [`Error::Map`].
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map(NAME).ok_or(Error::NoMap(NAME))?;
        Ok(Self(HashMap::try_from(map).map_err(Error::map("open", NAME))?))
    }

    /// What is in it. What programs note meanwhile may be missing.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn all(&self) -> Result<BTreeSet<StackFlow>, Error> {
        let keys = self.0.keys().map(|key| key.map(|Abi(flow)| flow));
        keys.collect::<Result<_, _>>().map_err(Error::map("read", NAME))
    }

    /// Adds a flow.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn add(&mut self, flow: &StackFlow) -> Result<(), Error> {
        self.0.insert(Abi(*flow), 0, 0).map_err(Error::map("write", NAME))
    }

    /// Removes a flow, if it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove(&mut self, flow: &StackFlow) -> Result<(), Error> {
        removed(self.0.remove(&Abi(*flow)), NAME)
    }
}
