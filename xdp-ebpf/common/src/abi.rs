//! The map layout: every key, value and capacity that the kernel half and user space share.
//!
//! Only fixed-width integers and byte arrays, no padding (`Pod` refuses to derive otherwise). Addresses and ports are
//! network-order bytes; ids, indexes, masks, counters and times are native integers. Change anything here and
//! [`LAYOUT_VERSION`] goes up by one.

pub use crate::addr::Address;
use bytemuck::{Pod, Zeroable};

/// The version of everything in this file; the agent keeps its pins in a folder of this number.
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
    /// Limiter units (see [`Config::second`]) between two new flows; 0 is no limit.
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

/// Who owns one of the hashes of a frontend; one aligned word, so a reader never sees half a change.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// Id of the backend that gets new flows; 0 is none.
    pub current: u32,
    /// Id of the backend that had them before the row's last change; 0 is none.
    pub previous: u32,
}

/// Value of `HISTORY`, by the same index as `ROWS`: who else had the row, each once and none of them in the row itself; 0 is
/// none, and nothing follows it. Those that answer come before those that do not, and these before those that are gone; among
/// equals the last one comes first. While owners change places one may be there twice, so that nobody is missing.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Past {
    /// Backend ids.
    pub owners: [u32; PAST_OWNERS],
}

/// Backend flag: the backend runs on this node.
pub const BACKEND_LOCAL: u8 = 1;
/// Backend flag: no frontend gives it new flows any more; clients with affinity to it choose anew.
pub const BACKEND_DRAINING: u8 = 2;

/// `BACKENDS`, by backend id (1 and up; 0 is "none").
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Backend {
    /// Where the backend listens.
    pub address: Address,
    /// Its port, network order.
    pub port: [u8; 2],
    /// IP protocol the backend serves.
    pub protocol: u8,
    /// [`BACKEND_LOCAL`] and [`BACKEND_DRAINING`].
    pub flags: u8,
    /// Node id it runs on; 0 for a local backend.
    pub node: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

/// `NODES`, by node id (1 and up): how to reach another node's tunnel, resolved by user space from netlink.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Node {
    /// The node's tunnel address.
    pub address: Address,
    /// Our address on the way there; the outer source.
    pub source: Address,
    /// MAC of the next hop.
    pub destination_mac: [u8; 6],
    /// MAC of our interface.
    pub source_mac: [u8; 6],
    /// Interface to send on; 0: not reachable now.
    pub ifindex: u32,
    /// VLAN tag control information to add, network order; 0 for none (IEEE 802.1Q §9.6).
    pub vlan: [u8; 2],
    /// MTU of the path to it, native order.
    pub mtu: u16,
    /// Zero.
    pub reserved: [u8; 12],
}

/// Key of `RESPONDERS`: a VIP this node answers ARP or NDP for, on one interface and VLAN.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct ResponderKey {
    /// The VIP.
    pub address: Address,
    /// Interface the request arrives on.
    pub ifindex: u32,
    /// VLAN identifier of the request (12 bits, network order), 0 when untagged.
    pub vlan: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `RESPONDERS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Responder {
    /// The MAC to answer with.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// States of a [`Flow`]; see [`crate::flows`].
pub mod flow_state {
    /// The slot is empty.
    pub const FREE: u8 = 0;
    /// Somebody is writing the slot.
    pub const BUSY: u8 = 1;
    /// TCP: the client sent a SYN, or a segment of a flow nobody knows; nothing from the backend yet.
    pub const OPENING: u8 = 2;
    /// TCP: the backend answered a SYN; `expected` is what the client's acknowledgment has to say.
    pub const ANSWERED: u8 = 3;
    /// TCP: both ends have spoken.
    pub const ESTABLISHED: u8 = 4;
    /// TCP: the client sent FIN, the backend did not.
    pub const CLIENT_CLOSED: u8 = 5;
    /// TCP: the backend sent FIN, the client did not.
    pub const BACKEND_CLOSED: u8 = 6;
    /// TCP: FIN from both ends, or the backend's RST.
    pub const CLOSED: u8 = 7;
    /// TCP: RST from the client, or from somebody in its name; a backend that goes on takes it back.
    pub const RESET: u8 = 8;
    /// UDP: the backend has not answered.
    pub const UDP_OPENING: u8 = 9;
    /// UDP: both ends have spoken.
    pub const UDP: u8 = 10;
}

/// One flow of a backend on this node, in `FLOWS`. The reply path reads it by (client, pod).
///
/// `client_port..state` is the control word: claimed by compare-and-swap, written last.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// The client.
    pub client: Address,
    /// The backend.
    pub pod: Address,
    /// The address the client talks to.
    pub vip: Address,
    /// Client's port, network order.
    pub client_port: [u8; 2],
    /// Backend's port, network order.
    pub pod_port: [u8; 2],
    /// The VIP's port, network order.
    pub vip_port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
    /// See [`flow_state`].
    pub state: u8,
    /// Tick (64 jiffies) of the last packet from either end.
    pub last_seen: u32,
    /// In [`flow_state::ANSWERED`]: the acknowledgment number of a client that got the backend's SYN-ACK, native order.
    pub expected: u32,
}

/// Value of `FLOWS`: the flows that share a hash.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowBucket {
    /// In no order.
    pub flows: [Flow; FLOW_WAYS],
}

/// One entry of `FLOW_CACHE`: which backend of a row in transition a flow belongs to, or a client with affinity.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct CacheEntry {
    /// Keyed hash of the flow; 0 is an empty entry.
    pub tag: u64,
    /// Backend id in the lower [`BACKEND_ID_BITS`] bits; above them some of a hash of what the id stood for.
    pub backend: u32,
    /// Tick of the last use.
    pub last_seen: u32,
}

/// Value of `FLOW_CACHE`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct CacheBucket {
    /// In no order.
    pub entries: [CacheEntry; CACHE_WAYS],
}

/// The ports of one fragmented datagram, in `FRAGMENTS`: learnt from its first fragment.
///
/// `source_port..stamp` is the control word: claimed by compare-and-swap, written last.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Fragment {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Identification as in the packet (IPv4's 16 bits first, then zeros).
    pub id: [u8; 4],
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
    /// Tick of the first fragment in the upper 24 bits, number of the writing in the lower 8; 0 is an empty entry.
    pub stamp: u32,
}

/// Value of `FRAGMENTS`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FragmentBucket {
    /// In no order.
    pub fragments: [Fragment; FRAGMENT_WAYS],
}

/// What stands before a frame that the agent brings again, as XDP metadata.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Again {
    /// [`Again::MARK`]; what another program left there is not ours.
    pub mark: u32,
    /// How often the frame was held, at least 1.
    pub tries: u32,
}

impl Again {
    /// Tells our metadata from another program's.
    pub const MARK: u32 = 0x7765_6972;
}

/// One record of `HELD`: a later fragment that came before its first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Held {
    /// Interface it came in by.
    pub ifindex: u32,
    /// How often it was held before.
    pub tries: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// The frame, followed by what was in the ring before.
    pub frame: [u8; HELD_FRAME],
}

/// `MONITOR`, one entry: what is sampled into `SAMPLES`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Monitor {
    /// Second of the kernel's monotonic clock from which on nothing is sampled any more, so that a monitor that died costs
    /// nothing; 0 is off.
    pub until: u32,
    /// Of how many packets one is sampled, at least 1.
    pub every: u32,
}

/// Bytes of a frame in a [`Sample`]; a power of two.
pub const SAMPLED_BYTES: usize = 256;

/// What a [`Sample`] says was done.
pub mod sampled {
    /// Handed to the stack.
    pub const PASS: u32 = 0;
    /// Dropped.
    pub const DROP: u32 = 1;
    /// Sent back out.
    pub const TRANSMIT: u32 = 2;
    /// Sent out of another interface.
    pub const REDIRECT: u32 = 3;
    /// Seen on its way out, which goes on.
    pub const LEAVES: u32 = 4;
}

/// One record of the ring buffer `SAMPLES`: a frame as it is after the verdict.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sample {
    /// Nanoseconds of the kernel's monotonic clock.
    pub time: u64,
    /// Number of the [`crate::verdict::Reason`].
    pub reason: u32,
    /// See [`sampled`].
    pub action: u32,
    /// Interface it came in by, or leaves by.
    pub ifindex: u32,
    /// Interface it is redirected to, else 0.
    pub out: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// Bytes of `frame` that are the frame's.
    pub captured: u32,
    /// Of a packet delivered to a backend here: the address that its client sent it to, no more to be seen in the frame.
    pub vip: Address,
    /// The port to that, network order.
    pub vip_port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 6],
    /// The frame's first bytes.
    pub frame: [u64; SAMPLED_BYTES / 8],
}

/// Value of `REASONS`, by [`crate::verdict::Reason`], per CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as received.
    pub bytes: u64,
}

/// Value of `BACKEND_COUNTERS`, by backend id, per CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BackendCounter {
    /// Packets that this node, as the one that chooses, gave to it or sent to its node.
    pub packets: u64,
    /// Their bytes from the IP header on, as received.
    pub bytes: u64,
    /// For a backend of this node: flows that were noted for it, whoever chose.
    pub flows: u64,
}

/// Value of `FRONTEND_COUNTERS`, by frontend id, per CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FrontendCounter {
    /// Packets from clients.
    pub packets: u64,
    /// Bytes from the IP header on, as received.
    pub bytes: u64,
    /// TCP SYNs without ACK among them.
    pub syns: u64,
}
