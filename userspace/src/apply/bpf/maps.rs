//! The maps of the packet path as the agent holds them: carries out [`Write`]s and shows what is there.
//!
//! Everything but `RESPONDERS` and the per-CPU counters is memory of this process. Nothing here decides; the order of
//! writes is the caller's, the order of words within one value is kept here.

use super::{abi::Abi, error::Error, layout::Shape, mapped::Mapped, tallies::Tallies};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use std::{collections::BTreeMap, os::fd::AsFd};
use weir_common::abi::{Backend, Config, DirectoryEntry, Node, Past, Responder, ResponderKey, Row, RowRange, kind};
use weir_core::tables::{Contents, Write};

/// Word of a [`DirectoryEntry`] that readers compare (`port..id`), and of its rows.
const DIRECTORY_KEY: usize = std::mem::offset_of!(DirectoryEntry, port) / 8;
const DIRECTORY_ROWS: usize = std::mem::offset_of!(DirectoryEntry, rows) / 8;
/// Word of a [`Node`] with its interface.
const NODE_INTERFACE: usize = std::mem::offset_of!(Node, ifindex) / 8;

/// All maps the agent writes.
pub struct Maps {
    config: Mapped<Config>,
    filter: Mapped<u64>,
    displacement: Mapped<u32>,
    directory: Mapped<DirectoryEntry>,
    rows: Mapped<Row>,
    history: Mapped<Past>,
    backends: Mapped<Backend>,
    nodes: Mapped<Node>,
    responders: HashMap<MapData, Abi<ResponderKey>, Abi<Responder>>,
    tallies: Tallies,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What cannot be shown in place; [`Maps::contents`] borrows from it.
#[derive(Debug)]
pub struct Copied {
    displacement: Vec<u32>,
    responders: Vec<(ResponderKey, Responder)>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    ///
    /// [`Error::NoMap`], [`Error::Map`], [`Error::Mmap`].
    pub fn take(ebpf: &mut Ebpf, shapes: &BTreeMap<String, Shape>) -> Result<Self, Error> {
        let responders = ebpf.take_map("RESPONDERS").ok_or(Error::NoMap("RESPONDERS"))?;
        let directory: Mapped<DirectoryEntry> = mapped(ebpf, shapes, "DIRECTORY")?;
        let tallies = Tallies::take(ebpf, directory.values())?;
        Ok(Self {
            config: mapped(ebpf, shapes, "CONFIG")?,
            filter: mapped(ebpf, shapes, "FILTER")?,
            displacement: mapped(ebpf, shapes, "DISPLACEMENT")?,
            directory,
            rows: mapped(ebpf, shapes, "ROWS")?,
            history: mapped(ebpf, shapes, "HISTORY")?,
            backends: mapped(ebpf, shapes, "BACKENDS")?,
            nodes: mapped(ebpf, shapes, "NODES")?,
            responders: HashMap::try_from(responders).map_err(Error::map("open", "RESPONDERS"))?,
            tallies,
        })
    }

    /// Writes `CONFIG`, word by word.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn set_config(&mut self, config: &Config) -> Result<(), Error> {
        self.config.store(
            0,
            &bytemuck::must_cast::<Config, [u64; size_of::<Config>() / 8]>(*config),
        )
    }

    /// Copies what [`Self::contents`] cannot show in place.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn copy(&self) -> Result<Copied, Error> {
        let displacement = (0..self.displacement.entries()).map(|index| self.displacement.load(index));
        let responders = self
            .responders
            .iter()
            .map(|entry| entry.map(|(Abi(key), Abi(value))| (key, value)));
        Ok(Copied {
            displacement: displacement.collect::<Result<_, _>>()?,
            responders: responders
                .collect::<Result<_, _>>()
                .map_err(Error::map("read", "RESPONDERS"))?,
        })
    }

    /// What the maps hold now; the large ones are shown in place.
    #[must_use]
    pub fn contents<'a>(&'a self, copied: &'a Copied) -> Contents<'a> {
        Contents {
            filter: self.filter.values(),
            displacement: &copied.displacement,
            directory: self.directory.values(),
            rows: self.rows.values(),
            history: self.history.values(),
            backends: self.backends.values(),
            nodes: self.nodes.values(),
            responders: &copied.responders,
        }
    }

    /// Carries out one write.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`], [`Error::Map`].
    pub fn write(&mut self, write: &Write) -> Result<(), Error> {
        match *write {
            Write::Filter { index, word } => self.filter.store(index, &[word]),
            Write::Displacement { index, value } => self
                .displacement
                .store(index, &[bytemuck::must_cast::<[u32; 2], u64>([value, 0])]),
            Write::Directory { slot, entry } => {
                self.tallies.before_directory(&entry)?;
                let words: [u64; size_of::<DirectoryEntry>() / 8] = bytemuck::must_cast(entry);
                let closed = DirectoryEntry {
                    kind: kind::FREE,
                    ..DirectoryEntry::default()
                };
                let closed: [u64; size_of::<DirectoryEntry>() / 8] = bytemuck::must_cast(closed);
                self.directory
                    .store_guarded(slot, &words, DIRECTORY_KEY, closed[DIRECTORY_KEY])
            }
            Write::FrontendRows { slot, rows } => {
                self.directory
                    .store_word(slot, DIRECTORY_ROWS, bytemuck::must_cast::<RowRange, u64>(rows))
            }
            Write::Row { index, row } => self.rows.store(index, &[bytemuck::must_cast(row)]),
            Write::Past { index, past } => self
                .history
                .store(index, &bytemuck::must_cast::<Past, [u64; size_of::<Past>() / 8]>(past)),
            Write::Backend { id, backend } => {
                self.tallies.before_backend(id, &self.backends.load(id)?, &backend)?;
                let words: [u64; size_of::<Backend>() / 8] = bytemuck::must_cast(backend);
                self.backends.store(id, &words)
            }
            Write::Node { id, node } => {
                let words: [u64; size_of::<Node>() / 8] = bytemuck::must_cast(node);
                let closed: [u64; size_of::<Node>() / 8] = bytemuck::must_cast(Node { ifindex: 0, ..node });
                self.nodes
                    .store_guarded(id, &words, NODE_INTERFACE, closed[NODE_INTERFACE])
            }
            Write::SetResponder { key, responder } => self
                .responders
                .insert(Abi(key), Abi(responder), 0)
                .map_err(Error::map("write", "RESPONDERS")),
            Write::RemoveResponder { key } => match self.responders.remove(&Abi(key)) {
                Err(aya::maps::MapError::KeyNotFound) | Ok(()) => Ok(()),
                Err(error) => Err(Error::map("write", "RESPONDERS")(error)),
            },
        }
    }
}

/// Takes an array out of a loaded object and maps it into memory.
///
/// # Errors
///
/// [`Error::NoMap`], [`Error::ValueSize`], [`Error::Mmap`].
pub fn mapped<T: bytemuck::Pod>(
    ebpf: &mut Ebpf,
    shapes: &BTreeMap<String, Shape>,
    name: &'static str,
) -> Result<Mapped<T>, Error> {
    let map = ebpf.take_map(name).ok_or(Error::NoMap(name))?;
    let Map::Array(data) = map else {
        return Err(Error::NoMap(name));
    };
    let shape = shapes.get(name).ok_or(Error::NoMap(name))?;
    if shape.value_size as usize != size_of::<T>() {
        return Err(Error::ValueSize {
            map: name,
            found: shape.value_size,
            expected: size_of::<T>(),
        });
    }
    Mapped::open(name, data.fd().as_fd(), shape.max_entries)
}
