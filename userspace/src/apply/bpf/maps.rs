//! The maps of the packet path as the agent holds them: carries out [`Write`]s and shows what is there.
//!
//! Everything but `RESPONDERS` and the per-CPU counters is memory of this process. Nothing here decides; the order of
//! writes is the caller's, the order of words within one value is kept here.

use super::{abi::Abi, error::Error, layout::Shape, mapped::Mapped, tallies::Tallies};
use aya::{
    Ebpf,
    maps::{
        HashMap, Map, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use std::{collections::BTreeMap, os::fd::AsFd};
use weir_common::abi::{
    Backend, Config, DirectoryEntry, Node, Past, Responder, ResponderKey, Row, RowRange, SourcePrefix, kind, policy,
};
use weir_core::tables::{Contents, SourceKey, Write};

/// Word of a [`DirectoryEntry`] that readers compare (`port..id`), of its rows, and of its policies: flags, then values.
const DIRECTORY_KEY: usize = std::mem::offset_of!(DirectoryEntry, port) / 8;
const DIRECTORY_ROWS: usize = std::mem::offset_of!(DirectoryEntry, rows) / 8;
const DIRECTORY_FLAGS: usize = std::mem::offset_of!(DirectoryEntry, policies) / 8;
const DIRECTORY_LIMITS: [usize; 2] = [
    std::mem::offset_of!(DirectoryEntry, flow_interval) / 8,
    std::mem::offset_of!(DirectoryEntry, source_flow_interval) / 8,
];
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
    sources: LpmTrie<MapData, Abi<SourcePrefix>, u32>,
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
    sources: Vec<(SourceKey, u32)>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    ///
    /// [`Error::NoMap`], [`Error::Map`], [`Error::Mmap`].
    pub fn take(ebpf: &mut Ebpf, shapes: &BTreeMap<String, Shape>) -> Result<Self, Error> {
        let responders = ebpf.take_map("RESPONDERS").ok_or(Error::NoMap("RESPONDERS"))?;
        let sources = ebpf.take_map("SOURCES").ok_or(Error::NoMap("SOURCES"))?;
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
            sources: LpmTrie::try_from(sources).map_err(Error::map("open", "SOURCES"))?,
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

    /// Whether a frontend stands by: an agent ended before it drew the packets.
    pub fn stand_by(&self) -> bool {
        let mut frontends = self
            .directory
            .values()
            .iter()
            .filter(|entry| entry.kind == kind::FRONTEND);
        frontends.any(|entry| entry.policies & policy::STANDBY != 0)
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
        let sources = self.sources.iter().map(|entry| {
            entry.map(|(key, verdict)| {
                let (length, Abi(prefix)) = (key.prefix_len(), key.data());
                (SourceKey { length, prefix }, verdict)
            })
        });
        Ok(Copied {
            sources: sources
                .collect::<Result<_, _>>()
                .map_err(Error::map("read", "SOURCES"))?,
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
            sources: &copied.sources,
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
            Write::FrontendPolicy { slot, entry } => {
                let words: [u64; size_of::<DirectoryEntry>() / 8] = bytemuck::must_cast(entry);
                for word in DIRECTORY_LIMITS.into_iter().chain([DIRECTORY_FLAGS]) {
                    self.directory.store_word(slot, word, words[word])?;
                }
                Ok(())
            }
            Write::SetSource { key, verdict } => self
                .sources
                .insert(&trie_key(key), verdict, 0)
                .map_err(Error::map("write", "SOURCES")),
            Write::RemoveSource { key } => removed(self.sources.remove(&trie_key(key)), "SOURCES"),
            Write::Row { index, row } => self.rows.store(index, &[bytemuck::must_cast(row)]),
            Write::NewRows { first, ref rows } => {
                let mut all = (first..).zip(rows);
                all.try_for_each(|(index, row)| self.rows.store(index, &[bytemuck::must_cast(*row)]))
            }
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
            Write::RemoveResponder { key } => removed(self.responders.remove(&Abi(key)), "RESPONDERS"),
        }
    }
}

fn trie_key(key: SourceKey) -> Key<Abi<SourcePrefix>> {
    Key::new(key.length, Abi(key.prefix))
}

/// That something is gone already is as good as its removal.
pub(super) fn removed(outcome: Result<(), MapError>, map: &'static str) -> Result<(), Error> {
    match outcome {
        Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::map("write", map)(error)),
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
