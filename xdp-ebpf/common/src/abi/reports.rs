//! What the programs tell user space: `MONITOR`, `SAMPLES` and the counters.

use super::Address;
use bytemuck::{Pod, Zeroable};

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
