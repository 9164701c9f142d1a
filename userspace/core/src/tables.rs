//! From a plan to map contents, one store at a time, in an order that never shows a packet half a change.
//!
//! [`Tables`] mirrors the maps that follow from a plan. [`Tables::adopt`] builds it from what the maps hold, so that an
//! agent that starts goes on where the last one stopped; [`Tables::step`] gives the [`Write`]s that lead to the next plan,
//! and knows from then on that they were done. Does no I/O and reads no counters and flows: those belong to the kernel.
//!
//! # Order
//!
//! A packet sees the maps between any two writes. It walks them filter, directory, rows, backend, node, so each thing is
//! written after all that it leads to, and taken away before:
//!
//! 1. What the *last* step took out of use is cleared. Packets that read the maps then are gone by now.
//! 2. Nodes, then backends: nothing leads to the new ones yet, and a changed one changes in one store.
//! 3. Room in the directory: where a new key finds its slot taken, the keys of its bucket are copied to new slots, and one
//!    store of the displacement moves all readers over. The old copies stay until the next step.
//! 4. Directory entries of the tunnel, of peers and of this node's backends: replies need them.
//! 5. For each frontend: its rows, each a single word, and before a row the older owners that go with it. Rows in place lead
//!    to old or new backends, both of which are there; a new range is filled before one store points the frontend at it, and
//!    the old range stays until the next step. Then the prefixes of sources it lets in, then the words that make the kernel
//!    look at them ([`sources`] says why no source finds a third answer in between).
//! 6. Filter bits, then responders: only now are packets drawn.
//! 7. The reverse for what goes: responders, filter bits, directory entries. Ranges and ids without users are retired:
//!    never used again in the same step, cleared and free in the next.
//!
//! So a step may leave something to release ([`Step::unsettled`]): call it again with the same plan a little later. Rows of
//! UDP forget with time ([`Step::forget_in`]), which comes as an input: there is no clock here.
//!
//! # What a step looks at
//!
//! The keys of which the plan says something else than the one before, and what the last step could not do ([`wanted`]).
//! The writes are those that a comparison of everything would give. After [`Tables::adopt`], and when nodes come or go,
//! everything is compared.
//!
//! # Full maps
//!
//! What does not fit is refused and named by a condition; all else is programmed. Nothing that is in the maps makes room
//! for something new, except spare rows and, when ids of backends run low, the memory of backends that
//! exist no more.

mod announced;
mod backends;
mod directory;
mod frontends;
mod ids;
mod key;
mod members;
mod nodes;
mod owners;
mod policies;
mod programmed;
mod ranges;
mod refusal;
mod rendezvous;
mod rows;
mod sources;
mod stack;
mod standing;
mod step;
#[cfg(test)]
mod tests;
mod wanted;

use crate::{model::Condition, plan::BackendKey};
use announced::Announced;
use backends::Backends;
use directory::Directory;
use frontends::Frontends;
use key::Key;
use nodes::Nodes;
pub use programmed::Programmed;
pub use stack::StackFlows;
use std::sync::Arc;
use wanted::Wanted;
use weir_common::abi::{
    Address, Backend, DirectoryEntry, Node, Past, Responder, ResponderKey, Row, SourcePrefix, kind,
};

/// One store into one map. Each is a single map element, but for [`Self::NewRows`]; the applier carries them out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// `FILTER[index] = word`.
    Filter { index: u32, word: u64 },
    /// `DISPLACEMENT[index] = value`.
    Displacement { index: u32, value: u32 },
    /// `DIRECTORY[slot] = entry`; the applier stores `kind = FREE` first and the `port..id` word last.
    Directory { slot: u32, entry: DirectoryEntry },
    /// `DIRECTORY[slot].rows = rows` of a live frontend: one word.
    FrontendRows {
        slot: u32,
        rows: weir_common::abi::RowRange,
    },
    /// The policy words of `DIRECTORY[slot]`, a live frontend, become those of `entry`; the applier stores the word of the
    /// flags last. Readers in between may see a new value with the old flags.
    FrontendPolicy { slot: u32, entry: DirectoryEntry },
    /// Inserts or replaces in `SOURCES`.
    SetSource { key: SourceKey, verdict: u32 },
    /// Removes from `SOURCES`.
    RemoveSource { key: SourceKey },
    /// `ROWS[index] = row`.
    Row { index: u32, row: Row },
    /// `ROWS[first..] = owners`, none of whom has a former one: a range that nothing leads to yet. Thousands of frontends have
    /// millions of rows.
    NewRows { first: u32, owners: Arc<[u32]> },
    /// `HISTORY[index] = past`; one word of it differs from what is there, unless nothing leads to the row yet.
    Past { index: u32, past: Past },
    /// `BACKENDS[id] = backend`.
    Backend { id: u32, backend: Backend },
    /// `NODES[id] = node`; the applier stores `ifindex = 0` first and the real one last.
    Node { id: u32, node: Node },
    /// Inserts or replaces in `RESPONDERS`.
    SetResponder { key: ResponderKey, responder: Responder },
    /// Removes from `RESPONDERS`.
    RemoveResponder { key: ResponderKey },
}

/// A key of `SOURCES`: prefix length and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceKey {
    /// Bits that count: the 32 of the frontend id, then those of the 16-byte address.
    pub length: u32,
    /// Frontend id and address.
    pub prefix: SourcePrefix,
}

/// What the maps hold now, read (or mapped) by the applier when it adopts them.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// `FILTER`.
    pub filter: &'a [u64],
    /// `DISPLACEMENT`.
    pub displacement: &'a [u32],
    /// `DIRECTORY`.
    pub directory: &'a [DirectoryEntry],
    /// `ROWS`; its length is the capacity.
    pub rows: &'a [Row],
    /// Of `HISTORY` what is not empty, with indexes, which go up: it is as long as `rows`, and most rows have no past.
    pub history: &'a [(u32, Past)],
    /// `BACKENDS`, by id.
    pub backends: &'a [Backend],
    /// `NODES`, by id.
    pub nodes: &'a [Node],
    /// `RESPONDERS`.
    pub responders: &'a [(ResponderKey, Responder)],
    /// `SOURCES`.
    pub sources: &'a [(SourceKey, u32)],
}

/// A pod of this node, as flows know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LivePod {
    /// Its address.
    pub address: Address,
    /// Its port, network order.
    pub port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
}

impl From<&BackendKey> for LivePod {
    fn from(key: &BackendKey) -> Self {
        let Key {
            address,
            port,
            protocol,
        } = Key::from(key);
        Self {
            address,
            port,
            protocol,
        }
    }
}

/// What writes depend on besides the plan and the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP port of the tunnel.
    pub tunnel_port: u16,
    /// The kernel's HZ, which times and rates of policies are given to it in.
    pub jiffies_per_second: u64,
    /// Now, in seconds of a clock that never goes back.
    pub now: u64,
    /// Seconds after which an idle UDP flow is forgotten.
    pub udp_idle: u64,
}

/// The outcome of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// To be carried out in order.
    pub writes: Vec<Write>,
    /// What did not fit, and Eips whose interface this node lacks or does not take; in order. Nothing else gives a condition here.
    pub conditions: Vec<Condition>,
    /// Something was taken out of use and waits to be cleared: step again with the same plan once packets that are under
    /// way now are gone (a few milliseconds). Nothing breaks if that happens late.
    pub unsettled: bool,
    /// Seconds after which to step again, even with the same plan: rows of UDP frontends have former owners to forget.
    pub forget_in: Option<u64>,
}

/// What the maps hold, and what the next step has to clear.
#[derive(Debug)]
pub struct Tables {
    announced: Announced,
    directory: Directory,
    frontends: Frontends,
    backends: Backends,
    nodes: Nodes,
    /// Writes that replace what could not be understood when the maps were adopted.
    repairs: Vec<Write>,
    /// The last plan.
    wanted: Wanted,
    /// Keys that are wanted and could not be had.
    lacking: Vec<Key>,
    /// What the maps hold has not been compared with any plan yet.
    unknown: bool,
}

impl Tables {
    /// The tables as the maps hold them; their lengths are the capacities.
    ///
    /// The step that follows, with the plan the maps were made from, writes nothing but what was left to be cleared. What
    /// cannot be understood (no plan leads to it, or writing it was interrupted) counts as free, and is cleared or replaced
    /// by that step.
    #[must_use]
    pub fn adopt(contents: &Contents<'_>) -> Self {
        let mut repairs = Vec::new();
        let nodes = Nodes::adopt(contents.nodes, &mut repairs);
        let backends = Backends::adopt(contents.backends, &nodes, &mut repairs);
        let known = backends.known();
        let known = |id: u32| known.get(id as usize).copied().unwrap_or(false);
        let mut frontends = Frontends::new(contents.rows.len(), contents.backends.len());
        let directory = Directory::adopt(contents.displacement, contents.directory, |key, entry| {
            match entry.kind {
                kind::FRONTEND => frontends.adopt(key, entry, contents, known, &mut repairs),
                kind::VIP | kind::TUNNEL | kind::PEER | kind::BACKEND => true,
                _ => false,
            }
        });
        frontends.adopt_sources(contents.sources);
        frontends.clear_unused(contents, &mut repairs);
        let announced = Announced::adopt(contents.filter, contents.responders);
        Self {
            announced,
            directory,
            frontends,
            backends,
            nodes,
            repairs,
            wanted: Wanted::default(),
            lacking: Vec::new(),
            unknown: true,
        }
    }

    /// Takes nothing for known: the next step compares everything with the plan.
    #[cfg(test)]
    fn forget(&mut self) {
        self.unknown = true;
        self.announced.forget();
    }
}
