//! The maps as plain arrays, written one element at a time and read the way the kernel reads them.

use crate::tables::{Contents, SourceKey, Tables, Write, directory::with_policy_of, key::Key};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_common::{
    abi::{
        Backend, DISPLACEMENTS, DirectoryEntry, FILTER_WORDS, Node, PAST_OWNERS, Past, Responder, ResponderKey, Row,
        RowRange, kind, policy, source,
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
    pub sources: BTreeMap<SourceKey, u32>,
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
            sources: BTreeMap::new(),
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
            Write::FrontendPolicy { slot, entry } => {
                let held = &mut self.directory[slot as usize];
                assert_eq!((held.kind, held.id), (kind::FRONTEND, entry.id));
                *held = with_policy_of(*held, &entry);
            }
            Write::SetSource { key, verdict } => {
                self.sources.insert(key, verdict);
            }
            Write::RemoveSource { key } => {
                self.sources
                    .remove(&key)
                    .unwrap_or_else(|| panic!("{key:?} is removed and not there"));
            }
            Write::Row { index, row } => self.rows[index as usize] = row,
            Write::NewRows { first, ref owners } => {
                for (row, &current) in self.rows[first as usize..].iter_mut().zip(&**owners) {
                    *row = Row { current, previous: 0 };
                }
            }
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
        let pasts = (0..).zip(self.history.iter().copied());
        let history: Vec<_> = pasts.filter(|(_, past)| *past != Past::default()).collect();
        let sources: Vec<_> = self.sources.iter().map(|(key, verdict)| (*key, *verdict)).collect();
        Tables::adopt(&Contents {
            filter: &self.filter,
            displacement: &self.displacement,
            directory: &self.directory,
            rows: &self.rows,
            history: &history,
            backends: &self.backends,
            nodes: &self.nodes,
            responders: &responders,
            sources: &sources,
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

    /// Whether a frontend lets a source in, by the words of its entry and the longest prefix.
    pub fn admits(&self, entry: &DirectoryEntry, from: IpAddr) -> bool {
        if entry.policies & policy::SOURCES == 0 {
            return true;
        }
        let address = if from.is_ipv4() { 32 } else { 128 };
        let whole = SourceKey::new(entry.id, &IpNet::new(from, address).expect("a whole address"));
        let longest = (0..=whole.length).rev().find_map(|length| {
            let key = SourceKey { length, ..whole };
            self.sources.get(&key.masked())
        });
        match longest.copied().unwrap_or(source::UNKNOWN) {
            source::ALLOWED => true,
            source::UNKNOWN => entry.policies & policy::ALLOW_LISTED == 0,
            _ => false,
        }
    }

    /// What prefixes of a frontend say, by prefix without the frontend.
    pub fn sources_of(&self, id: u32) -> BTreeMap<(u32, [u8; 16]), u32> {
        let own = self.sources.iter().filter(|(key, _)| key.frontend() == Some(id));
        own.map(|(key, verdict)| ((key.length, key.prefix.address), *verdict))
            .collect()
    }

    pub fn range(&self, range: RowRange) -> &[Row] {
        &self.rows[range.base as usize..][..range.mask as usize + 1]
    }

    /// The owners of rows, the current one first; 0 is none.
    pub fn owners(&self, range: RowRange) -> impl Iterator<Item = [u32; 2 + PAST_OWNERS]> {
        let history = &self.history[range.base as usize..][..range.mask as usize + 1];
        let owners = |(row, past): (&Row, &Past)| {
            let mut owners = [0; 2 + PAST_OWNERS];
            [owners[0], owners[1]] = [row.current, row.previous];
            owners[2..].copy_from_slice(&past.owners);
            owners
        };
        self.range(range).iter().zip(history).map(owners)
    }

    /// The rows of all frontends.
    pub fn ranges(&self) -> impl Iterator<Item = RowRange> {
        let frontends = self.directory.iter().filter(|entry| entry.kind == kind::FRONTEND);
        frontends.map(|entry| entry.rows)
    }

    /// The backend ids that rows of frontends and their pasts name.
    pub fn named(&self) -> BTreeSet<u32> {
        self.ranges().flat_map(|range| self.owners(range)).flatten().collect()
    }
}
