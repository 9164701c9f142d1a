//! The map layout: every key, value and capacity that the kernel half and user space share.
//!
//! Only fixed-width integers and byte arrays, no padding (`Pod` refuses to derive otherwise). Addresses and ports are
//! network-order bytes; ids, indexes, masks, counters and times are native integers. Change anything here and
//! [`LAYOUT_VERSION`] goes up by one.

mod directory;
mod memory;
mod places;
mod reports;

pub use crate::addr::Address;
pub use directory::{
    DirectoryEntry, Limiter, RowRange, SourceLimiter, SourceLimiterBucket, SourcePrefix, kind, policy, source,
};
pub use memory::{
    Again, CacheBucket, CacheEntry, Flow, FlowBucket, Fragment, FragmentBucket, Held, StackFlow, flow_state,
};
pub use places::{BACKEND_DRAINING, BACKEND_LOCAL, Backend, Node, Past, Responder, ResponderKey, Row};
pub use reports::{BackendCounter, Counter, FrontendCounter, Monitor, SAMPLED_BYTES, Sample, sampled};

use bytemuck::{Pod, Zeroable};

/// The version of everything in this module; the agent keeps its pins in a folder of this number.
pub const LAYOUT_VERSION: u32 = 2;

/// Words of `FILTER`, 64 addresses' bits each.
pub const FILTER_WORDS: u32 = 1024;
/// Entries of `DISPLACEMENT`, the first level of the directory's perfect hash.
pub const DISPLACEMENTS: u32 = 1 << 14;
/// Slots of `DIRECTORY`, the second level.
pub const DIRECTORY_SLOTS: u32 = 1 << 17;
/// Default capacity of `ROWS` (32 MiB); the loader may choose another.
pub const ROWS: u32 = 1 << 22;
/// Default capacity of `BACKENDS` and `BACKEND_COUNTERS`.
pub const BACKENDS: u32 = 1 << 17;
/// Backend ids have at most this many bits, because [`CacheEntry::backend`] holds more than the id.
pub const BACKEND_ID_BITS: u32 = 20;
/// Capacity of `FRONTEND_COUNTERS` and `LIMITERS`: frontend ids are below it.
pub const FRONTENDS: u32 = 1 << 16;
/// Capacity of `NODES`.
pub const NODES: u32 = 1 << 12;
/// Capacity of `RESPONDERS`.
pub const RESPONDERS: u32 = 1 << 14;
/// Default capacity of `FLOWS` in buckets of [`FLOW_WAYS`] (2^20 flows, 64 MiB).
pub const FLOW_BUCKETS: u32 = 1 << 18;
/// Flows in one bucket.
pub const FLOW_WAYS: usize = 4;
/// Default capacity of `FLOW_CACHE` in buckets of [`CACHE_WAYS`] (2^20 flows, 16 MiB).
pub const CACHE_BUCKETS: u32 = 1 << 18;
/// Entries in one bucket of `FLOW_CACHE`: one cache line.
pub const CACHE_WAYS: usize = 4;
/// Owners of a row that are remembered besides the two in the row itself.
pub const PAST_OWNERS: usize = 8;
/// Capacity of `FRAGMENTS` in buckets of [`FRAGMENT_WAYS`] (2^14 datagrams, 768 KiB).
pub const FRAGMENT_BUCKETS: u32 = 1 << 12;
/// Datagrams in one bucket.
pub const FRAGMENT_WAYS: usize = 4;
/// Bytes of the ring buffer `HELD` (some 500 frames).
pub const HELD_BYTES: usize = 1 << 20;
/// Longest frame that is held, in bytes. The kernel brings none again that is much longer than 3,000.
pub const HELD_FRAME: usize = 2048;
/// How often one frame is held.
pub const HELD_TRIES: u32 = 3;
/// Capacity of `SOURCE_LIMITERS` in buckets of [`LIMITER_WAYS`] (2^16 sources, 2 MiB).
pub const SOURCE_LIMITER_BUCKETS: u32 = 1 << 14;
/// Sources in one bucket.
pub const LIMITER_WAYS: usize = 4;
/// Capacity of `STACK_FLOWS`; room is taken only for what is in it.
pub const STACK_FLOWS: u32 = 1 << 17;
/// Capacity of `SOURCES`, in prefixes of all frontends together.
pub const SOURCE_PREFIXES: u32 = 1 << 16;

/// IP protocol numbers used as `protocol` in keys (IANA).
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// No protocol: an entry for the address itself ([`super::kind::VIP`], [`super::kind::PEER`]).
    pub const ANY: u8 = 0;
}

/// `CONFIG`, one entry: what every packet may need to know about this node.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// Seed of the selection hash; the same on every node, or nodes would disagree about rows.
    pub selection_seed: u64,
    /// Seed of `FLOWS` and `FLOW_CACHE`; random per node, so nobody outside can aim at one bucket.
    pub flow_seed: u64,
    /// Buckets of `FLOWS` minus one (a power of two minus one).
    pub flow_mask: u32,
    /// Buckets of `FLOW_CACHE` minus one.
    pub cache_mask: u32,
    /// Ticks (64 jiffies) after which a flow that never got past its SYN may be forgotten.
    pub half_open_ticks: u32,
    /// Ticks after which an idle established TCP flow may be forgotten.
    pub established_ticks: u32,
    /// Ticks after which an idle UDP flow may be forgotten.
    pub udp_ticks: u32,
    /// Ticks after which a TCP flow that saw FIN from both sides, or RST, may be forgotten.
    pub closed_ticks: u32,
    /// Ticks after which a datagram's first fragment is forgotten.
    pub fragment_ticks: u32,
    /// One second in limiter units: 2^-20 jiffies. The largest interval of a limiter, and how far it may run ahead.
    pub second: u32,
    /// Limiter units between two ICMP errors that this node sends of its own.
    pub answer_interval: u32,
    /// UDP port of the tunnel, network order.
    pub tunnel_port: [u8; 2],
    /// Largest MSS left in a SYN-ACK of an IPv4 flow, in bytes, native order; 0 leaves it alone.
    pub mss_v4: u16,
    /// The same for IPv6.
    pub mss_v6: u16,
    /// Largest MSS left in a SYN of an IPv4 flow, in bytes, native order; 0 leaves it alone.
    pub syn_mss_v4: u16,
    /// The same for IPv6.
    pub syn_mss_v6: u16,
    /// Zero.
    pub reserved: [u8; 2],
}
