//! What packets leave behind for later ones: `FLOWS`, `FLOW_CACHE`, `FRAGMENTS`, `HELD`, `STACK_FLOWS`.

use super::{Address, CACHE_WAYS, FLOW_WAYS, FRAGMENT_WAYS, HELD_FRAME};
use bytemuck::{Pod, Zeroable};

/// States of a [`Flow`]; see [`crate::flows`].
pub mod flow_state {
    /// The slot is empty.
    pub const FREE: u8 = 0;
    /// Somebody is writing the slot.
    pub const BUSY: u8 = 1;
    /// TCP: the client sent a SYN, or a segment of a flow nobody knows; nothing from the backend yet.
    pub const OPENING: u8 = 2;
    /// TCP: the backend answered a SYN; `number` is what the client's acknowledgment has to say.
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
    /// Native order. In [`flow_state::ANSWERED`]: of the acknowledgment numbers of clients that got the backend's last two
    /// SYN-ACKs the upper halves, the last one's first. Of a TCP flow from [`flow_state::ESTABLISHED`] on: a sequence number of
    /// the client's that the backend has acknowledged lately; 0 is unknown.
    pub number: u32,
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
    /// Backend id in the lower [`super::BACKEND_ID_BITS`] bits; above them some of a hash of what the id stood for.
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

/// Key of `STACK_FLOWS`: a flow that the stack had (kube-proxy, that is) before the program drew its frontend's packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct StackFlow {
    /// The client.
    pub client: Address,
    /// The address it talks to.
    pub vip: Address,
    /// Client's port, network order.
    pub client_port: [u8; 2],
    /// The VIP's port, network order.
    pub vip_port: [u8; 2],
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
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
