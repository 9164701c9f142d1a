//! Who has rows, where that is and how it is reached: `ROWS`, `HISTORY`, `BACKENDS`, `NODES`, `RESPONDERS`.

use super::{Address, PAST_OWNERS};
use bytemuck::{Pod, Zeroable};

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
