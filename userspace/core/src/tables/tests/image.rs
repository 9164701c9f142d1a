//! The maps as plain arrays, written one element at a time and read the way the kernel reads them.

use crate::tables::{Contents, Tables, Write, key::Key};
use std::collections::{BTreeMap, BTreeSet};
use weir_common::{
    abi::{
        Backend, DISPLACEMENTS, DirectoryEntry, FILTER_WORDS, Node, Past, Responder, ResponderKey, Row, RowRange, kind,
    },
    hash,
};

#[derive(Clone, Debug)]
pub struct Image {
    pub filter: Vec<u64>,
    pub displacement: Vec<u32>,
    pub directory: Vec<DirectoryEntry>,
    pub rows: Vec<Row>,
    pub history: Vec<Past>,
    pub backends: Vec<Backend>,
    pub nodes: Vec<Node>,
    pub responders: BTreeMap<ResponderKey, Responder>,
}

impl Image {
    pub fn new(slots: usize, rows: usize, backends: usize, nodes: usize) -> Self {
        Self {
            filter: vec![0; FILTER_WORDS as usize],
            displacement: vec![0; DISPLACEMENTS as usize],
            directory: vec![DirectoryEntry::default(); slots],
            rows: vec![Row::default(); rows],
            history: vec![Past::default(); rows],
            backends: vec![Backend::default(); backends],
            nodes: vec![Node::default(); nodes],
            responders: BTreeMap::new(),
        }
    }

    pub fn write(&mut self, write: &Write) {
        match *write {
            Write::Filter { index, word } => self.filter[index as usize] = word,
            Write::Displacement { index, value } => self.displacement[index as usize] = value,
            Write::Directory { slot, entry } => self.directory[slot as usize] = entry,
            Write::FrontendRows { slot, rows } => {
                assert_eq!(self.directory[slot as usize].kind, kind::FRONTEND);
                self.directory[slot as usize].rows = rows;
            }
            Write::Row { index, row } => self.rows[index as usize] = row,
            Write::Past { index, past } => self.history[index as usize] = past,
            Write::Backend { id, backend } => self.backends[id as usize] = backend,
            Write::Node { id, node } => self.nodes[id as usize] = node,
            Write::SetResponder { key, responder } => {
                self.responders.insert(key, responder);
            }
            Write::RemoveResponder { key } => {
                self.responders.remove(&key).expect("only what is there is removed");
            }
        }
    }

    pub fn adopt(&self) -> Tables {
        let responders: Vec<_> = self
            .responders
            .iter()
            .map(|(key, responder)| (*key, *responder))
            .collect();
        Tables::adopt(&Contents {
            filter: &self.filter,
            displacement: &self.displacement,
            directory: &self.directory,
            rows: &self.rows,
            history: &self.history,
            backends: &self.backends,
            nodes: &self.nodes,
            responders: &responders,
        })
    }

    pub fn filter_has(&self, key: &Key) -> bool {
        let (index, bit) = hash::filter_bit(hash::address(&key.address));
        self.filter[index as usize] & bit != 0
    }

    /// Where a reader looks that took the displacement from this image.
    pub fn slot(&self, key: &Key) -> usize {
        let hash = hash::directory(hash::address(&key.address), u16::from_ne_bytes(key.port), key.protocol);
        hash::slot(hash, self.displacement[hash::displacement_index(hash) as usize]) as usize
    }

    /// What a reader finds in a slot.
    pub fn entry_in(&self, slot: usize, key: &Key) -> Option<&DirectoryEntry> {
        self.directory
            .get(slot)
            .filter(|entry| entry.kind != kind::FREE && Key::from(*entry) == *key)
    }

    pub fn entry(&self, key: &Key) -> Option<&DirectoryEntry> {
        self.entry_in(self.slot(key), key)
    }

    pub fn range(&self, range: RowRange) -> &[Row] {
        &self.rows[range.base as usize..][..range.mask as usize + 1]
    }

    /// The backend ids that rows of frontends name.
    pub fn named(&self) -> BTreeSet<u32> {
        let frontends = self.directory.iter().filter(|entry| entry.kind == kind::FRONTEND);
        let rows = frontends.flat_map(|entry| self.range(entry.rows));
        rows.flat_map(|row| [row.current, row.previous]).collect()
    }
}
