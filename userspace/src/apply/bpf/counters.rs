//! Reads the per-CPU counters of a data path through its pins; works whether or not an agent lives.

use super::{abi::Abi, error::Error, pins::PinDir};
use aya::maps::{Map, MapData, PerCpuArray};
use std::path::Path;
use weir_common::{
    abi::{BackendCounter, Counter, FrontendCounter},
    verdict::Reason,
};

/// The pinned counters of one data path.
pub struct Counters {
    reasons: PerCpuArray<MapData, Abi<Counter>>,
    frontends: PerCpuArray<MapData, Abi<FrontendCounter>>,
    backends: PerCpuArray<MapData, Abi<BackendCounter>>,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    /// Opens the counters pinned under `pin_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when they are not there or not of our layout.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let pins = PinDir::new(pin_dir);
        Ok(Self {
            reasons: open(&pins, "REASONS")?,
            frontends: open(&pins, "FRONTEND_COUNTERS")?,
            backends: open(&pins, "BACKEND_COUNTERS")?,
        })
    }

    /// Packets and bytes of a reason, over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn reason(&self, reason: Reason) -> Result<Counter, Error> {
        let values = self
            .reasons
            .get(&(reason as u32), 0)
            .map_err(Error::map("read", "REASONS"))?;
        Ok(values.iter().fold(Counter::default(), |total, Abi(value)| Counter {
            packets: total.packets + value.packets,
            bytes: total.bytes + value.bytes,
        }))
    }

    /// Packets and bytes sent to a backend by this node, and flows noted here for one of its own, over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn backend(&self, id: u32) -> Result<BackendCounter, Error> {
        let values = self
            .backends
            .get(&id, 0)
            .map_err(Error::map("read", "BACKEND_COUNTERS"))?;
        Ok(values
            .iter()
            .fold(BackendCounter::default(), |total, Abi(value)| BackendCounter {
                packets: total.packets + value.packets,
                bytes: total.bytes + value.bytes,
                flows: total.flows + value.flows,
            }))
    }

    /// Packets, bytes and SYNs of a frontend, over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn frontend(&self, id: u32) -> Result<FrontendCounter, Error> {
        let values = self
            .frontends
            .get(&id, 0)
            .map_err(Error::map("read", "FRONTEND_COUNTERS"))?;
        Ok(values
            .iter()
            .fold(FrontendCounter::default(), |total, Abi(value)| FrontendCounter {
                packets: total.packets + value.packets,
                bytes: total.bytes + value.bytes,
                syns: total.syns + value.syns,
            }))
    }
}

fn open<V: bytemuck::Pod>(pins: &PinDir, name: &'static str) -> Result<PerCpuArray<MapData, Abi<V>>, Error> {
    let data = MapData::from_pin(pins.map(name)).map_err(Error::map("open", name))?;
    PerCpuArray::try_from(Map::PerCpuArray(data)).map_err(Error::map("open", name))
}
