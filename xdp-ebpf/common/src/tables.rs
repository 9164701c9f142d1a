//! How the packet path reaches the maps: the few look-ups it makes, and nothing else.

use crate::{
    abi::{Backend, CACHE_WAYS, Config, DirectoryEntry, FLOW_WAYS, Node, Responder, ResponderKey, Row},
    addr::Address,
    hash::Tuple,
    parse::{Ip, Link, Transport},
    word::Word,
};
use core::ops::DerefMut;

/// One [`crate::abi::Flow`] as the eight words that CPUs share.
pub type FlowWords = [Word; 8];
/// One [`crate::abi::CacheEntry`] as its two words.
pub type CacheWords = [Word; 2];

/// What the packet path knows about the packet in hand.
///
/// It lives outside the stack because the kernel's is 512 bytes, and because values that come back from a map are just
/// numbers to the verifier: ways that differ only in where headers stand become one way after [`Tables::settle`].
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// Link layer.
    pub link: Link,
    /// Outermost IP layer.
    pub outer: Ip,
    /// The IP layer that is steered: the outermost, or the one in the tunnel.
    pub ip: Ip,
    /// Its transport layer.
    pub transport: Transport,
    /// Whether `ip` came in the tunnel.
    pub tunneled: bool,
    /// Nodes that passed it on, and flags of the tunnel's option.
    pub hops: u8,
    /// Selection hash of the flow; of a tunnel packet, what its source port tells of it.
    pub hash: u64,
    /// The backend that is to get it.
    pub chosen: Target,
    /// The backend its row had before.
    pub previous: Target,
    /// The flow, from client to the backend in question.
    pub flow: Tuple,
    /// Where its entry is in `FLOWS`; see [`crate::flows`].
    pub place: u64,
}

/// A backend, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its id; 0 when another node chose it.
    pub id: u32,
    /// Its address.
    pub address: Address,
    /// Its port, memory order.
    pub port: u16,
    /// Node id, [`Target::HERE`] or [`Target::NOWHERE`].
    pub place: u32,
}

impl Target {
    /// No backend at all.
    pub const NOWHERE: u32 = 0;
    /// On this node.
    pub const HERE: u32 = u32::MAX;
}

/// The maps. Every look-up outside a map's bounds answers `None`, or 0 where 0 means nothing.
pub trait Tables {
    /// How [`Scratch`] is held: owned on the host, a per-CPU map's value in the kernel.
    type Scratch: DerefMut<Target = Scratch>;

    /// Room for this packet; its contents are left over from another.
    fn scratch(&self) -> Option<Self::Scratch>;
    /// Makes the compiler read the scratch's fields again instead of remembering what it stored. Nothing on the host.
    fn settle(&self, _scratch: &mut Scratch) {}
    /// `CONFIG[0]`.
    fn config(&self) -> Option<&Config>;
    /// `FILTER[index]`.
    fn filter(&self, index: u32) -> u64;
    /// `DISPLACEMENT[index]`.
    fn displacement(&self, index: u32) -> u32;
    /// `DIRECTORY[slot]`.
    fn directory(&self, slot: u32) -> Option<&DirectoryEntry>;
    /// `ROWS[index]`, read as one word.
    fn row(&self, index: u32) -> Option<Row>;
    /// `BACKENDS[id]`.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// `NODES[id]`.
    fn node(&self, id: u32) -> Option<&Node>;
    /// `RESPONDERS[key]`.
    fn responder(&self, key: &ResponderKey) -> Option<Responder>;
    /// `FLOWS[index]`.
    fn flows(&self, index: u32) -> Option<&[FlowWords; FLOW_WAYS]>;
    /// `FLOW_CACHE[index]`.
    fn cache(&self, index: u32) -> Option<&[CacheWords; CACHE_WAYS]>;
    /// Time in ticks of 64 jiffies; wraps.
    fn now(&self) -> u32;
    /// Adds one packet of `bytes` to `FRONTEND_COUNTERS[id]`.
    fn count_frontend(&self, id: u32, bytes: u64, syn: bool);
    /// Adds one packet of `bytes` to `BACKEND_COUNTERS[id]`.
    fn count_backend(&self, id: u32, bytes: u64);
}
