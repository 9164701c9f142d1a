//! What the bench tells its wrapper programs, in the words of `SETTINGS`. Compiled into both.

/// Length of a short frame, in bytes: a neighbour solicitation, and long enough for TCP over IPv6.
pub const SHORT_FRAME: usize = 86;
/// Length of a long frame: room for TCP over IPv6 in the tunnel over IPv6.
pub const LONG_FRAME: usize = 192;
/// Words of the longer.
pub const FRAME_WORDS: usize = LONG_FRAME / 8;
/// Offsets are below this, so that the verifier knows a bound.
pub const OFFSET_LIMIT: u64 = 64;

/// Every packet is of the same flow.
pub const ONE_FLOW: u64 = 0;
/// Every packet is of one of `flow_mask + 1` flows, chosen pseudo-randomly.
pub const RANDOM_FLOW: u64 = 1;
/// Every packet is of the flow after the last one's, below `flow_mask + 1` and then from the start.
pub const NEXT_FLOW: u64 = 2;

/// The one entry of `SETTINGS`. Only words, so that both sides agree about the layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The frame as every run of the program under test shall find it.
    pub frame: [u64; FRAME_WORDS],
    /// Its last eight bytes, which stand across two words when its length is no multiple of eight.
    pub tail: u64,
    /// [`ONE_FLOW`], [`RANDOM_FLOW`] or [`NEXT_FLOW`].
    pub choice: u64,
    /// Number of flows minus one; the number is a power of two up to 2^32.
    pub flow_mask: u64,
    /// Where the last four bytes of the client's address stand; a multiple of two.
    pub address_offset: u64,
    /// Where the client's port stands.
    pub port_offset: u64,
    /// Where the last two bytes of the VIP stand; a multiple of two.
    pub vip_offset: u64,
    /// Number of VIPs minus one, which replaces as many of those bytes' lower bits; 0 leaves the VIP alone.
    pub vip_mask: u64,
}
