//! The maps of the packet path as the agent holds them: carries out [`Write`]s and shows what is there.
//!
//! Everything but `RESPONDERS`, `SOURCES` and the per-CPU counters is written as memory of this process: the small arrays for
//! good, of the large ones what is being written. Nothing here decides; the order of writes is the caller's, the order of
//! words within one value is kept here.

use super::{abi::Abi, error::Error, layout::Shape, mapped::Mapped, tallies::Tallies, windows::Windows};
use aya::{
    Ebpf,
    maps::{
        HashMap, Map, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use bytemuck::Pod;
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
    directory: Windows<DirectoryEntry>,
    rows: Windows<Row>,
    history: Windows<Past>,
    backends: Windows<Backend>,
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

/// The large arrays in memory, and copies of what cannot be shown in place; [`Maps::contents`] borrows from it.
#[derive(Debug)]
pub struct Shown {
    directory: Mapped<DirectoryEntry>,
    rows: Mapped<Row>,
    history: Vec<(u32, Past)>,
    backends: Mapped<Backend>,
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
        let directory: Windows<DirectoryEntry> = windows(ebpf, shapes, "DIRECTORY")?;
        let tallies = Tallies::take(ebpf, directory.whole()?.values())?;
        Ok(Self {
            config: mapped(ebpf, shapes, "CONFIG")?,
            filter: mapped(ebpf, shapes, "FILTER")?,
            displacement: mapped(ebpf, shapes, "DISPLACEMENT")?,
            directory,
            rows: windows(ebpf, shapes, "ROWS")?,
            history: windows(ebpf, shapes, "HISTORY")?,
            backends: windows(ebpf, shapes, "BACKENDS")?,
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
    ///
    /// # Errors
    ///
    /// [`Error::Mmap`].
    pub fn stand_by(&self) -> Result<bool, Error> {
        let directory = self.directory.whole()?;
        let mut frontends = directory.values().iter().filter(|entry| entry.kind == kind::FRONTEND);
        Ok(frontends.any(|entry| entry.policies & policy::STANDBY != 0))
    }

    /// Maps and copies what [`Self::contents`] shows.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], [`Error::Mmap`].
    pub fn show(&self) -> Result<Shown, Error> {
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
        Ok(Shown {
            directory: self.directory.whole()?,
            rows: self.rows.whole()?,
            history: self.pasts()?,
            backends: self.backends.whole()?,
            sources: sources
                .collect::<Result<_, _>>()
                .map_err(Error::map("read", "SOURCES"))?,
            displacement: displacement.collect::<Result<_, _>>()?,
            responders: responders
                .collect::<Result<_, _>>()
                .map_err(Error::map("read", "RESPONDERS"))?,
        })
    }

    /// Those that are not empty, by row. The array has 128 MiB, so it is looked through part by part.
    fn pasts(&self) -> Result<Vec<(u32, Past)>, Error> {
        let (mut pasts, mut first) = (Vec::new(), 0);
        for part in self.history.parts() {
            let part = part?;
            let indexed = (first..).zip(part.values().iter().copied());
            pasts.extend(indexed.filter(|(_, past)| *past != Past::default()));
            first += part.entries();
        }
        Ok(pasts)
    }

    /// What the maps hold now; the arrays are shown in place.
    #[must_use]
    pub fn contents<'a>(&'a self, shown: &'a Shown) -> Contents<'a> {
        Contents {
            filter: self.filter.values(),
            displacement: &shown.displacement,
            directory: shown.directory.values(),
            rows: shown.rows.values(),
            history: &shown.history,
            backends: shown.backends.values(),
            nodes: self.nodes.values(),
            responders: &shown.responders,
            sources: &shown.sources,
        }
    }

    /// Carries out writes, in order.
    ///
    /// # Errors
    ///
    /// The first write that failed; those before it are done. [`Error::OutOfBounds`], [`Error::Map`], [`Error::Mmap`].
    pub fn write_all(&mut self, writes: &[Write]) -> Result<(), Error> {
        let done = writes.iter().try_for_each(|write| self.write(write));
        self.directory.let_go();
        self.rows.let_go();
        self.history.let_go();
        self.backends.let_go();
        done
    }

    fn write(&mut self, write: &Write) -> Result<(), Error> {
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
                let (directory, slot) = self.directory.at(slot)?;
                directory.store_guarded(slot, &words, DIRECTORY_KEY, closed[DIRECTORY_KEY])
            }
            Write::FrontendRows { slot, rows } => {
                let (directory, slot) = self.directory.at(slot)?;
                directory.store_word(slot, DIRECTORY_ROWS, bytemuck::must_cast::<RowRange, u64>(rows))
            }
            Write::FrontendPolicy { slot, entry } => {
                let words: [u64; size_of::<DirectoryEntry>() / 8] = bytemuck::must_cast(entry);
                let (directory, slot) = self.directory.at(slot)?;
                for word in DIRECTORY_LIMITS.into_iter().chain([DIRECTORY_FLAGS]) {
                    directory.store_word(slot, word, words[word])?;
                }
                Ok(())
            }
            Write::SetSource { key, verdict } => self
                .sources
                .insert(&trie_key(key), verdict, 0)
                .map_err(Error::map("write", "SOURCES")),
            Write::RemoveSource { key } => removed(self.sources.remove(&trie_key(key)), "SOURCES"),
            Write::Row { index, row } => self.set_row(index, row),
            Write::NewRows { first, ref owners } => {
                let mut all = (first..).zip(&**owners);
                all.try_for_each(|(index, &current)| self.set_row(index, Row { current, previous: 0 }))
            }
            Write::Past { index, past } => {
                let (history, index) = self.history.at(index)?;
                history.store(index, &bytemuck::must_cast::<Past, [u64; size_of::<Past>() / 8]>(past))
            }
            Write::Backend { id, backend } => {
                let (backends, index) = self.backends.at(id)?;
                self.tallies.before_backend(id, &backends.load(index)?, &backend)?;
                let words: [u64; size_of::<Backend>() / 8] = bytemuck::must_cast(backend);
                backends.store(index, &words)
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

    fn set_row(&mut self, index: u32, row: Row) -> Result<(), Error> {
        let (rows, index) = self.rows.at(index)?;
        rows.store(index, &[bytemuck::must_cast(row)])
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
pub fn mapped<T: Pod>(
    ebpf: &mut Ebpf,
    shapes: &BTreeMap<String, Shape>,
    name: &'static str,
) -> Result<Mapped<T>, Error> {
    let (map, entries) = array::<T>(ebpf, shapes, name)?;
    Mapped::open(name, map.fd().as_fd(), entries)
}

fn windows<T: Pod>(ebpf: &mut Ebpf, shapes: &BTreeMap<String, Shape>, name: &'static str) -> Result<Windows<T>, Error> {
    let (map, entries) = array::<T>(ebpf, shapes, name)?;
    Windows::new(name, map.fd().as_fd(), entries)
}

/// An array of `T` out of a loaded object, and its capacity.
fn array<T>(ebpf: &mut Ebpf, shapes: &BTreeMap<String, Shape>, name: &'static str) -> Result<(MapData, u32), Error> {
    let Some(Map::Array(map)) = ebpf.take_map(name) else {
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
    Ok((map, shape.max_entries))
}
