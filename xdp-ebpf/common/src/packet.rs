//! How the packet path reaches a frame's bytes, and the headers it reads.
//!
//! Header structs hold native integers whose memory is in network order ("memory order" below): that is how the bytes
//! lie in the frame, how map keys hold them, and how they are compared; [`u16::from_be`] makes a number of them. Fields
//! are as wide as the protocol allows, because LLVM splits a load from a struct of byte arrays into single bytes on BPF.
//! That the offsets are right is checked against `network-types` at compile time.

use crate::addr::Address;
use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use core::mem::offset_of;
use network_types::{
    arp::ArpHdr, eth::EthHdr, geneve::GeneveHdr, icmp::Icmpv6Hdr, ip::Ipv4Hdr, ip::Ipv6Hdr, tcp::TcpHdr, udp::UdpHdr,
};

/// One frame, from its Ethernet header on. Offsets are bytes from there.
///
/// A store after a successful load or [`Packet::holds`] of the same bytes cannot fail; stores elsewhere are ignored.
pub trait Packet {
    /// The `T` at `at`, if the frame's directly reachable part holds it.
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T>;
    /// Overwrites the bytes at `at`; does nothing when they are not all there.
    fn store<T: NoUninit>(&mut self, at: usize, value: T);
    /// Whether the frame, including parts not directly reachable, has at least `end` bytes.
    fn holds(&self, end: usize) -> bool;
    /// Bytes of a frame that the kernel is still to cut into segments. Its IP header says 0 for a length beyond 16 bits
    /// (BIG TCP). `None` for a frame that leaves or came as it is.
    fn uncut_len(&self) -> Option<usize> {
        None
    }
    /// Moves the start of the frame by `by` bytes: forward (cutting off) when positive, backward (new bytes, undefined)
    /// when negative. False, and nothing changed, when there is no room.
    fn adjust_head(&mut self, by: i32) -> bool;
    /// Cuts or extends the frame to `len` bytes. False, and nothing changed, when that cannot be done.
    fn set_len(&mut self, len: usize) -> bool;
    /// Gives the agent a copy of the frame, to be brought again a little later, where there is an agent.
    fn hold(&self) -> Hold {
        Hold::NoRoom
    }
    /// Brings the TCP or UDP checksum at `at` up to date after a change: `pseudo` is the ones-complement difference of
    /// what its pseudo-header covers, `body` that of bytes of the segment itself, as [`crate::checksum`] makes them.
    /// `old` is the field as it stood; `udp` keeps an unused checksum unused (RFC 768) and never makes a used one 0.
    fn update_l4_checksum(&mut self, at: usize, old: u16, pseudo: u64, body: u64, udp: bool) {
        if let Some(new) = crate::checksum::updated_l4(old, pseudo + body, udp) {
            self.store(at, new);
        }
    }
}

/// What became of a frame that was to be held.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// There is no room, or the frame is too long.
    NoRoom = 0,
    /// It will be brought again.
    Held = 1,
    /// It has been brought often enough.
    Over = 2,
}

/// EtherTypes in memory order (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806_u16.to_be();
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// 802.1ad tag.
    pub const QINQ: u16 = 0x88a8_u16.to_be();
}

/// Ethernet II.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ethernet {
    /// Destination MAC.
    pub destination: [u16; 3],
    /// Source MAC.
    pub source: [u16; 3],
    /// EtherType, memory order.
    pub ethertype: u16,
}

/// What follows a VLAN EtherType.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Vlan {
    /// Tag control information, memory order.
    pub tci: u16,
    /// EtherType of what follows, memory order.
    pub ethertype: u16,
}

/// IPv4 without options (RFC 791 §3.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4 {
    /// Version and header length in words.
    pub version_ihl: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Total length, memory order.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, memory order.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub protocol: u8,
    /// Header checksum, memory order.
    pub checksum: u16,
    /// Source, memory order.
    pub source: u32,
    /// Destination, memory order.
    pub destination: u32,
}

/// IPv6 (RFC 8200 §3). Addresses are words of 32 bits: two of them would make the struct's alignment 8, and a frame's
/// header never has that.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv6 {
    /// Version, traffic class, flow label, memory order.
    pub version_class_flow: u32,
    /// Payload length, memory order.
    pub payload_len: u16,
    /// Next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub source: WireAddress,
    /// Destination.
    pub destination: WireAddress,
}

/// Sixteen address bytes inside a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct WireAddress {
    /// In memory order.
    pub words: [u32; 4],
}

impl WireAddress {
    /// As a map's address.
    #[inline(always)]
    #[must_use]
    pub fn address(self) -> Address {
        let [a, b, c, d] = self.words;
        Address::from_words(bytemuck::must_cast([[a, b], [c, d]]))
    }
}

impl From<Address> for WireAddress {
    #[inline(always)]
    fn from(address: Address) -> Self {
        Self {
            words: bytemuck::must_cast(address.words()),
        }
    }
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Arp {
    /// Hardware type, memory order.
    pub hardware: u16,
    /// Protocol type, memory order.
    pub protocol: u16,
    /// Hardware and protocol address lengths, as the two bytes `6 4` in memory order.
    pub lengths: u16,
    /// Operation, memory order.
    pub operation: u16,
    /// Sender's MAC.
    pub sender_mac: [u16; 3],
    /// Sender's address.
    pub sender: [u16; 2],
    /// Target's MAC.
    pub target_mac: [u16; 3],
    /// Target's address.
    pub target: [u16; 2],
}

/// UDP (RFC 768).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Udp {
    /// Source port, memory order.
    pub source: u16,
    /// Destination port, memory order.
    pub destination: u16,
    /// Length with header, memory order.
    pub len: u16,
    /// Checksum, memory order; 0 is none.
    pub checksum: u16,
}

/// TCP without options (RFC 9293 §3.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Tcp {
    /// Source port, memory order.
    pub source: u16,
    /// Destination port, memory order.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Data offset in the upper four bits.
    pub offset: u8,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Checksum, memory order.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

/// TCP flag bits.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 0x10;
}

/// IPv6 fragment header (RFC 8200 §4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FragmentHeader {
    /// Protocol of what was cut into fragments.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in the upper 13 bits, "more fragments" in the lowest; memory order.
    pub offset: u16,
    /// Identification, in halves because the header need not stand at a multiple of four.
    pub id: [u16; 2],
}

/// The first four bytes of ICMP and ICMPv6 (RFC 792, RFC 4443 §2.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum, memory order.
    pub checksum: u16,
}

/// Geneve base header (RFC 8926 §3.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Geneve {
    /// Version in the upper two bits, length of options in words in the lower six.
    pub version_options: u8,
    /// Control and critical bits.
    pub flags: u8,
    /// EtherType of what is inside, memory order.
    pub protocol: u16,
    /// Virtual network identifier, and a reserved byte.
    pub vni: u32,
}

/// Every header above against `network-types`, which the world reads these protocols with.
const _: () = {
    assert!(size_of::<Ethernet>() == EthHdr::LEN && offset_of!(Ethernet, ethertype) == offset_of!(EthHdr, ether_type));
    assert!(size_of::<Ipv4>() == Ipv4Hdr::LEN && offset_of!(Ipv4, fragment) == offset_of!(Ipv4Hdr, frags));
    assert!(offset_of!(Ipv4, protocol) == offset_of!(Ipv4Hdr, proto));
    assert!(offset_of!(Ipv4, checksum) == offset_of!(Ipv4Hdr, check));
    assert!(offset_of!(Ipv4, source) == offset_of!(Ipv4Hdr, src_addr));
    assert!(offset_of!(Ipv4, destination) == offset_of!(Ipv4Hdr, dst_addr));
    assert!(size_of::<Ipv6>() == Ipv6Hdr::LEN && offset_of!(Ipv6, next_header) == offset_of!(Ipv6Hdr, next_hdr));
    assert!(offset_of!(Ipv6, hop_limit) == offset_of!(Ipv6Hdr, hop_limit));
    assert!(offset_of!(Ipv6, source) == offset_of!(Ipv6Hdr, src_addr));
    assert!(offset_of!(Ipv6, destination) == offset_of!(Ipv6Hdr, dst_addr));
    assert!(size_of::<Arp>() == size_of::<ArpHdr>() && offset_of!(Arp, sender_mac) == offset_of!(ArpHdr, sha));
    assert!(offset_of!(Arp, sender) == offset_of!(ArpHdr, spa) && offset_of!(Arp, target) == offset_of!(ArpHdr, tpa));
    assert!(size_of::<Udp>() == UdpHdr::LEN && offset_of!(Udp, checksum) == offset_of!(UdpHdr, check));
    assert!(size_of::<Tcp>() == TcpHdr::LEN && offset_of!(Tcp, checksum) == offset_of!(TcpHdr, check));
    assert!(offset_of!(Icmp, checksum) == offset_of!(Icmpv6Hdr, check));
    assert!(
        size_of::<Geneve>() == GeneveHdr::LEN && offset_of!(Geneve, protocol) == offset_of!(GeneveHdr, protocol_type)
    );
};
