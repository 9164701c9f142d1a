//! Sets counters back when an id goes to somebody else, so that nobody inherits another's packets.
//!
//! Ids are reused; the counters they index are pinned and outlive both. Whom an id belongs to is read from the maps that
//! give it out.

use super::{abi::Abi, error::Error};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use std::collections::BTreeMap;
use weir_common::abi::{Address, Backend, BackendCounter, DirectoryEntry, FrontendCounter, kind};

/// Whom a frontend id belongs to: address, port, protocol.
type Key = (Address, [u8; 2], u8);

/// The counters that are indexed by ids.
pub struct Tallies {
    frontends: PerCpuArray<MapData, Abi<FrontendCounter>>,
    backends: PerCpuArray<MapData, Abi<BackendCounter>>,
    owners: BTreeMap<u32, Key>,
    cpus: usize,
}

impl Tallies {
    /// Takes the counters out of a loaded object; `directory` says whom the frontend ids belong to now.
    ///
    /// # Errors
    ///
    /// [`Error::NoMap`], [`Error::Map`], [`Error::File`].
    pub fn take(ebpf: &mut Ebpf, directory: &[DirectoryEntry]) -> Result<Self, Error> {
        let cpus = nr_cpus().map_err(|(path, source)| Error::file("read", path)(source))?;
        let frontends = ebpf
            .take_map("FRONTEND_COUNTERS")
            .ok_or(Error::NoMap("FRONTEND_COUNTERS"))?;
        let backends = ebpf
            .take_map("BACKEND_COUNTERS")
            .ok_or(Error::NoMap("BACKEND_COUNTERS"))?;
        let owned = directory.iter().filter(|entry| entry.kind == kind::FRONTEND);
        Ok(Self {
            frontends: PerCpuArray::try_from(frontends).map_err(Error::map("open", "FRONTEND_COUNTERS"))?,
            backends: PerCpuArray::try_from(backends).map_err(Error::map("open", "BACKEND_COUNTERS"))?,
            owners: owned.map(|entry| (entry.id, key(entry))).collect(),
            cpus,
        })
    }

    /// To be called before `entry` is written.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn before_directory(&mut self, entry: &DirectoryEntry) -> Result<(), Error> {
        if entry.kind != kind::FRONTEND || self.owners.insert(entry.id, key(entry)) == Some(key(entry)) {
            return Ok(());
        }
        clear(&mut self.frontends, "FRONTEND_COUNTERS", entry.id, self.cpus)
    }

    /// To be called before `former` becomes `next`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn before_backend(&mut self, id: u32, former: &Backend, next: &Backend) -> Result<(), Error> {
        let same = |a: &Backend, b: &Backend| (a.address, a.port, a.protocol) == (b.address, b.port, b.protocol);
        if next.protocol == 0 || same(former, next) {
            return Ok(());
        }
        clear(&mut self.backends, "BACKEND_COUNTERS", id, self.cpus)
    }
}

fn key(entry: &DirectoryEntry) -> Key {
    (entry.address, entry.port, entry.protocol)
}

fn clear<V: bytemuck::Pod>(
    map: &mut PerCpuArray<MapData, Abi<V>>,
    name: &'static str,
    id: u32,
    cpus: usize,
) -> Result<(), Error> {
    let zeros =
        PerCpuValues::try_from(vec![Abi(V::zeroed()); cpus]).map_err(Error::file("count the CPUs for", name))?;
    map.set(id, zeros, 0).map_err(Error::map("write", name))
}
