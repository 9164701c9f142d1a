//! What an address, port and protocol is to this node: `DIRECTORY` and what goes with its frontends.

use super::{Address, LIMITER_WAYS};
use bytemuck::{Pod, Zeroable};

/// What a [`DirectoryEntry`] says its key is.
pub mod kind {
    /// The slot is empty.
    pub const FREE: u8 = 0;
    /// VIP, port and protocol of a Service port. `id` is the frontend id, `rows` its rows.
    pub const FRONTEND: u8 = 1;
    /// A VIP itself (port 0, protocol ANY): echo is answered, the rest stands aside. `id` is unused.
    pub const VIP: u8 = 2;
    /// Our own tunnel address with the tunnel port over UDP. `id` is unused.
    pub const TUNNEL: u8 = 3;
    /// The address of another node (port 0, protocol ANY): may send us tunnel packets. `id` is its node id.
    pub const PEER: u8 = 4;
    /// Address, port and protocol of a backend on this node. `id` is its backend id.
    pub const BACKEND: u8 = 5;
}

/// A contiguous range of `ROWS`, in one word so that it changes in one store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RowRange {
    /// Index of the first row.
    pub base: u32,
    /// Number of rows minus one; the number is a power of two.
    pub mask: u32,
}

/// One slot of `DIRECTORY`: what (address, port, protocol) is to this node.
///
/// Readers compare the address and the `port..id` word; a writer clears `kind` first and writes that word last.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DirectoryEntry {
    /// The key's address.
    pub address: Address,
    /// The key's port, network order.
    pub port: [u8; 2],
    /// The key's IP protocol.
    pub protocol: u8,
    /// See [`kind`].
    pub kind: u8,
    /// See [`kind`].
    pub id: u32,
    /// For a frontend: its rows.
    pub rows: RowRange,
    /// For a frontend: which of [`policy`] it has.
    pub policies: u32,
    /// Ticks for which an idle client is remembered; with [`policy::AFFINITY`].
    pub affinity_ticks: u32,
    /// Limiter units (see [`super::Config::second`]) between two new flows; 0 is no limit.
    pub flow_interval: u32,
    /// Limiter units between two packets; 0 is no limit.
    pub packet_interval: u32,
    /// Limiter units between two new flows of one source address; 0 is no limit.
    pub source_flow_interval: u32,
    /// Limiter units between two packets of one source address; 0 is no limit.
    pub source_packet_interval: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Bits of [`DirectoryEntry::policies`]. A frontend without any takes the short way.
pub mod policy {
    /// A client stays with its backend (`sessionAffinity: ClientIP`).
    pub const AFFINITY: u32 = 1;
    /// `SOURCES` has prefixes of this frontend; a source it refuses is dropped.
    pub const SOURCES: u32 = 2;
    /// With [`SOURCES`]: a source that `SOURCES` does not have is refused, rather than let in.
    pub const ALLOW_LISTED: u32 = 4;
    /// At least one of the four intervals is not 0.
    pub const LIMITED: u32 = 8;
    /// `STACK_FLOWS` has flows of this frontend: they are the stack's.
    pub const STACK_FLOWS: u32 = 16;
    /// Everything is the stack's, and packets that may begin a flow are noted in `STACK_FLOWS`.
    pub const STANDBY: u32 = 32;
}

/// Data of a key of `SOURCES`, a longest-prefix-match trie: the prefix length counts the 32 bits of the frontend id and
/// then those of the 16-byte address (so 32 + 96 + n for an IPv4 prefix of n bits).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct SourcePrefix {
    /// Frontend id, network order.
    pub frontend: [u8; 4],
    /// The prefix, its other bits zero.
    pub address: [u8; 16],
}

/// Values of `SOURCES`: what the longest prefix that has the source says.
pub mod source {
    /// No prefix has it.
    pub const UNKNOWN: u32 = 0;
    /// Let in.
    pub const ALLOWED: u32 = 1;
    /// Dropped.
    pub const DENIED: u32 = 2;
}

/// Value of `LIMITERS`, by frontend id: up to when its limits are used up, in limiter units since boot.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Limiter {
    /// Of new flows.
    pub flows: u64,
    /// Of packets.
    pub packets: u64,
}

/// One source address of one frontend, in `SOURCE_LIMITERS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SourceLimiter {
    /// Keyed hash of source and frontend; 0 is an empty entry.
    pub tag: u64,
    /// Its limits.
    pub limiter: Limiter,
    /// Zero.
    pub reserved: u64,
}

/// Value of `SOURCE_LIMITERS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SourceLimiterBucket {
    /// In no order.
    pub sources: [SourceLimiter; LIMITER_WAYS],
}
