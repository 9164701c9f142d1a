//! The maps' contents as plain arrays: filled by direct perfect-hash placement, read by the host harness and written
//! into the loaded object by the kernel harness.

use std::collections::{BTreeMap, HashSet};
use weir_common::abi::{
    self, Address, Backend, Config, DirectoryEntry, Node, Past, Responder, ResponderKey, Row, RowRange, SourcePrefix,
};
use weir_common::{abi::kind, hash};

/// Every map that user space fills; flows start empty.
#[derive(Clone, Debug)]
pub struct Image {
    /// `CONFIG`.
    pub config: Config,
    /// `FILTER`.
    pub filter: Vec<u64>,
    /// `DISPLACEMENT`.
    pub displacement: Vec<u32>,
    /// `DIRECTORY`.
    pub directory: Vec<DirectoryEntry>,
    /// `ROWS`.
    pub rows: Vec<Row>,
    /// `HISTORY`, as long as `rows`.
    pub history: Vec<Past>,
    /// `SOURCES`, by prefix length with the frontend's bits and prefix.
    pub sources: BTreeMap<(u32, SourcePrefix), u32>,
    /// `BACKENDS`.
    pub backends: Vec<Backend>,
    /// `NODES`.
    pub nodes: Vec<Node>,
    /// `RESPONDERS`.
    pub responders: BTreeMap<ResponderKey, Responder>,
    entries: Vec<DirectoryEntry>,
}

impl Image {
    /// Buckets of `FLOWS`: few, so that a case can fill them and a snapshot is quick.
    pub const FLOW_BUCKETS: u32 = 8;
    /// Buckets of `FLOW_CACHE`.
    pub const CACHE_BUCKETS: u32 = 8;
    /// Capacity of `ROWS`.
    pub const ROWS: u32 = 256;
    /// Frontend ids the world uses.
    pub const FRONTENDS: u32 = 192;
    /// Capacity of `BACKENDS` and `BACKEND_COUNTERS`.
    pub const BACKENDS: u32 = 128;

    /// Empty tables under `config`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            filter: vec![0; abi::FILTER_WORDS as usize],
            displacement: vec![0; abi::DISPLACEMENTS as usize],
            directory: vec![DirectoryEntry::default(); abi::DIRECTORY_SLOTS as usize],
            rows: Vec::new(),
            history: Vec::new(),
            sources: BTreeMap::new(),
            backends: vec![Backend::default(); Self::BACKENDS as usize],
            nodes: vec![Node::default(); abi::NODES as usize],
            responders: BTreeMap::new(),
            entries: Vec::new(),
        }
    }

    /// Notes a directory entry for [`Image::place`]; it can be added to.
    pub fn add(
        &mut self,
        address: Address,
        port: u16,
        protocol: u8,
        kind: u8,
        id: u32,
        rows: RowRange,
    ) -> &mut DirectoryEntry {
        let port = port.to_be_bytes();
        self.entries.push(DirectoryEntry {
            address,
            port,
            protocol,
            kind,
            id,
            rows,
            ..DirectoryEntry::default()
        });
        self.entries.last_mut().expect("just pushed")
    }

    /// Puts rows after those there are; their number is a power of two.
    pub fn append_rows(&mut self, rows: &[Row], past: Past) -> RowRange {
        assert!(rows.len().is_power_of_two(), "a mask chooses the row");
        let base = self.rows.len() as u32;
        self.rows.extend(rows);
        self.history.resize(self.rows.len(), past);
        assert!(self.rows.len() <= Self::ROWS as usize, "too many rows");
        RowRange {
            base,
            mask: rows.len() as u32 - 1,
        }
    }

    /// Writes the entries into directory, displacements and filter: bucket by bucket, the first displacement that puts
    /// every key of the bucket into a free slot.
    pub fn place(&mut self) {
        let hash = |entry: &DirectoryEntry| {
            hash::directory(
                hash::address(&entry.address),
                u16::from_ne_bytes(entry.port),
                entry.protocol,
            )
        };
        let mut buckets: BTreeMap<u32, Vec<DirectoryEntry>> = BTreeMap::new();
        for entry in &self.entries {
            buckets
                .entry(hash::displacement_index(hash(entry)))
                .or_default()
                .push(*entry);
            if matches!(entry.kind, kind::FRONTEND | kind::VIP | kind::TUNNEL) {
                let (word, bit) = hash::filter_bit(hash::address(&entry.address));
                self.filter[word as usize] |= bit;
            }
        }
        for (bucket, entries) in buckets {
            let displacement = (0..u32::MAX)
                .find(|&displacement| {
                    let slots: HashSet<u32> = entries.iter().map(|e| hash::slot(hash(e), displacement)).collect();
                    slots.len() == entries.len()
                        && slots
                            .iter()
                            .all(|&slot| self.directory[slot as usize].kind == kind::FREE)
                })
                .expect("the directory has room for a few entries");
            self.displacement[bucket as usize] = displacement;
            for entry in entries {
                self.directory[hash::slot(hash(&entry), displacement) as usize] = entry;
            }
        }
    }
}
