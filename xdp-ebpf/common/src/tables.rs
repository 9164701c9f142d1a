//! How the packet path reaches the maps: the few look-ups it makes, and nothing else.

use crate::{
    abi::{
        Backend, CACHE_WAYS, Config, DirectoryEntry, FLOW_WAYS, FRAGMENT_WAYS, LIMITER_WAYS, Node, Past, Responder,
        ResponderKey, Row, StackFlow,
    },
    addr::Address,
    scratch::Scratch,
    word::Word,
};

/// One [`crate::abi::Flow`] as the eight words that CPUs share.
pub type FlowWords = [Word; 8];
/// One [`crate::abi::CacheEntry`] as its two words.
pub type CacheWords = [Word; 2];
/// One [`crate::abi::Fragment`] as its six words.
pub type FragmentWords = [Word; 6];
/// One [`crate::abi::Limiter`] as its two words.
pub type LimiterWords = [Word; 2];
/// One [`crate::abi::SourceLimiter`] as its four words.
pub type SourceLimiterWords = [Word; 4];

/// The maps. Every look-up outside a map's bounds answers `None`, or 0 where 0 means nothing.
pub trait Tables {
    /// Makes the compiler read the scratch's fields again instead of remembering what it stored. Nothing on the host.
    fn settle(&self, _scratch: &mut Scratch) {}
    /// `CONFIG[0]`.
    fn config(&self) -> Option<&Config>;
    /// Whether nothing may be changed: no flow noted, no limit used up. So that one can ask what would happen.
    fn read_only(&self) -> bool;
    /// `FILTER[index]`.
    fn filter(&self, index: u32) -> u64;
    /// `DISPLACEMENT[index]`.
    fn displacement(&self, index: u32) -> u32;
    /// `DIRECTORY[slot]`.
    fn directory(&self, slot: u32) -> Option<&DirectoryEntry>;
    /// `ROWS[index]`, read as one word.
    fn row(&self, index: u32) -> Option<Row>;
    /// `HISTORY[index]`.
    fn past(&self, index: u32) -> Option<&Past>;
    /// `BACKENDS[id]`.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// `NODES[id]`.
    fn node(&self, id: u32) -> Option<&Node>;
    /// `RESPONDERS[key]`.
    fn responder(&self, key: &ResponderKey) -> Option<Responder>;
    /// What `SOURCES` says of a source address of frontend `id`: one of [`crate::abi::source`].
    fn source(&self, id: u32, address: &Address) -> u32;
    /// Whether `STACK_FLOWS` has this flow.
    fn stack_flow(&self, flow: &StackFlow) -> bool;
    /// Adds this flow to `STACK_FLOWS`, if there is room.
    fn note_stack_flow(&self, flow: &StackFlow);
    /// `FLOWS[index]`.
    fn flows(&self, index: u32) -> Option<&[FlowWords; FLOW_WAYS]>;
    /// `FLOW_CACHE[index]`.
    fn cache(&self, index: u32) -> Option<&[CacheWords; CACHE_WAYS]>;
    /// `FRAGMENTS[index]`, the index taken modulo the capacity.
    fn fragments(&self, index: u32) -> Option<&[FragmentWords; FRAGMENT_WAYS]>;
    /// `LIMITERS[id]`.
    fn limiter(&self, id: u32) -> Option<&LimiterWords>;
    /// `SOURCE_LIMITERS[index]`, the index taken modulo the capacity.
    fn source_limiters(&self, index: u32) -> Option<&[SourceLimiterWords; LIMITER_WAYS]>;
    /// `ANSWERED[0]`.
    fn answered(&self) -> Option<&Word>;
    /// Time in jiffies.
    fn jiffies(&self) -> u64;
    /// Time in ticks of 64 jiffies; wraps.
    #[inline(always)]
    fn now(&self) -> u32 {
        (self.jiffies() >> 6) as u32
    }
    /// Adds one packet of `bytes` to `FRONTEND_COUNTERS[id]`.
    fn count_frontend(&self, id: u32, bytes: u64, syn: bool);
    /// Adds one packet of `bytes` to `BACKEND_COUNTERS[id]`.
    fn count_backend(&self, id: u32, bytes: u64);
    /// Adds one flow to `BACKEND_COUNTERS[id]`.
    fn count_flow(&self, id: u32);
}
