//! How full the maps of a data path are, read through its pins.

use super::{
    abi::Abi,
    config,
    error::Error,
    mapped::Mapped,
    pins::PinDir,
    sweep::{self, Swept},
    windows::Windows,
};
use aya::maps::{HashMap, Map, MapData};
use bytemuck::Pod;
use std::{os::fd::AsFd, path::Path};
use weir_common::abi::{
    Backend, CACHE_WAYS, CacheBucket, Config, DirectoryEntry, FRONTENDS, Node, RESPONDERS, Responder, ResponderKey,
    Row, STACK_FLOWS, StackFlow, kind,
};

/// One map, or what is given out by number in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Room.
    pub capacity: u64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// In order of their names.
    pub maps: Vec<MapFill>,
    /// `FLOWS` by state.
    pub flows: Swept,
}

impl Fill {
    /// Reads the maps pinned under `pin_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], [`Error::ValueSize`], [`Error::Mmap`].
    pub fn read(pin_dir: &Path) -> Result<Self, Error> {
        let pins = PinDir::new(pin_dir);
        let flows = sweep::sweep(pin_dir, &read_config(&pins)?, config::now())?;
        let directory = windows::<DirectoryEntry>(&pins, "DIRECTORY")?;
        let (mut taken, mut frontends, mut rows) = (0, 0, 0);
        for part in directory.parts() {
            let part = part?;
            for index in 0..part.entries() {
                let entry = part.load(index)?;
                taken += usize::from(entry.kind != kind::FREE);
                if entry.kind == kind::FRONTEND {
                    frontends += 1;
                    rows += entry.rows.mask as usize + 1;
                }
            }
        }
        let backends = windows::<Backend>(&pins, "BACKENDS")?;
        let nodes = windows::<Node>(&pins, "NODES")?;
        let cache = windows::<CacheBucket>(&pins, "FLOW_CACHE")?;
        let fill = |map, entries: usize, capacity: u32| MapFill {
            map,
            entries: entries as u64,
            capacity: u64::from(capacity),
        };
        let maps = vec![
            fill("BACKENDS", used(&backends)?, backends.entries().saturating_sub(1)),
            fill("DIRECTORY", taken, directory.entries()),
            MapFill {
                map: "FLOWS",
                entries: flows.total() + flows.expired,
                capacity: flows.capacity,
            },
            fill("FLOW_CACHE", cached(&cache)?, cache.entries() * CACHE_WAYS as u32),
            fill("FRONTENDS", frontends, FRONTENDS),
            fill("NODES", used(&nodes)?, nodes.entries().saturating_sub(1)),
            fill(
                "RESPONDERS",
                keys::<ResponderKey, Abi<Responder>>(&pins, "RESPONDERS")?,
                RESPONDERS,
            ),
            fill("ROWS", rows, windows::<Row>(&pins, "ROWS")?.entries()),
            fill(
                "STACK_FLOWS",
                keys::<StackFlow, u32>(&pins, "STACK_FLOWS")?,
                STACK_FLOWS,
            ),
        ];
        Ok(Self { maps, flows })
    }
}

/// `CONFIG` of the data path.
///
/// # Errors
///
/// [`Error::Map`], [`Error::ValueSize`], [`Error::Mmap`].
pub fn read_config(pins: &PinDir) -> Result<Config, Error> {
    open::<Config>(pins, "CONFIG")?.load(0)
}

/// A pinned array, mapped into memory.
///
/// # Errors
///
/// [`Error::Map`], [`Error::ValueSize`], [`Error::Mmap`].
pub fn open<T: Pod>(pins: &PinDir, name: &'static str) -> Result<Mapped<T>, Error> {
    windows(pins, name)?.whole()
}

/// A pinned array, of which nothing is mapped yet.
///
/// # Errors
///
/// As for [`open`].
pub(super) fn windows<T: Pod>(pins: &PinDir, name: &'static str) -> Result<Windows<T>, Error> {
    let map = MapData::from_pin(pins.map(name)).map_err(Error::map("open", name))?;
    let info = map.info().map_err(Error::map("look at", name))?;
    if info.value_size() as usize != size_of::<T>() {
        return Err(Error::ValueSize {
            map: name,
            found: info.value_size(),
            expected: size_of::<T>(),
        });
    }
    Windows::new(name, map.fd().as_fd(), info.max_entries())
}

fn used<T: Pod + Default + PartialEq>(map: &Windows<T>) -> Result<usize, Error> {
    let mut used = 0;
    for part in map.parts() {
        let part = part?;
        for index in 0..part.entries() {
            used += usize::from(part.load(index)? != T::default());
        }
    }
    Ok(used)
}

/// Word by word: packets write this one meanwhile.
fn cached(cache: &Windows<CacheBucket>) -> Result<usize, Error> {
    const ENTRY: usize = size_of::<CacheBucket>() / CACHE_WAYS / 8;
    let mut used = 0;
    for part in cache.parts() {
        let part = part?;
        for index in 0..part.entries() {
            let tags = part.words(index)?.iter().step_by(ENTRY);
            used += tags
                .filter(|tag| tag.load(std::sync::atomic::Ordering::Relaxed) != 0)
                .count();
        }
    }
    Ok(used)
}

/// How many keys a pinned hash map has.
fn keys<K, V: aya::Pod>(pins: &PinDir, name: &'static str) -> Result<usize, Error>
where
    Abi<K>: aya::Pod,
{
    let data = MapData::from_pin(pins.map(name)).map_err(Error::map("open", name))?;
    let map: HashMap<_, Abi<K>, V> = HashMap::try_from(Map::HashMap(data)).map_err(Error::map("open", name))?;
    Ok(map.keys().filter_map(Result::ok).count())
}
