//! The tunnel between nodes: Geneve (RFC 8926) around the client's untouched IP packet, with one option that names the
//! chosen backend and, where it matters, a second one with its node: the backend that the row had before, the backend to
//! come back to of who is asked for a flow, or the one to be asked next.

use crate::{
    abi::Node,
    addr::Address,
    checksum,
    packet::{Ethernet, Geneve, Ipv4, Ipv6, Packet, Udp, Vlan, WireAddress, ethertype},
};
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// Option class of ours, memory order (RFC 8926 §7: 0xff00 to 0xffff are for experiments).
pub const OPTION_CLASS: u16 = 0xffe1_u16.to_be();
/// Option type of ours; the upper bit says that who does not know it must drop the packet (RFC 8926 §3.5).
pub const OPTION_TYPE: u8 = 0x81;
/// Nodes that may be asked for a flow, one after the other.
pub const MAX_HOPS: u8 = 12;
/// [`Choice::flags`]: who does not know the flow sends the packet back, to the [`Second`].
pub const FLAG_RETURN: u8 = 1;
/// [`Choice::flags`], with [`FLAG_RETURN`] or [`FLAG_BACK`]: who is asked is the first to be, whatever its place in the order.
pub const FLAG_AHEAD: u8 = 4;
/// [`Choice::flags`]: the packet comes back from who does not know the flow; the [`Second`] is whom that one would ask next.
pub const FLAG_BACK: u8 = 8;
/// [`Choice::flags`]: somebody that may know the flow cannot be asked.
pub const FLAG_BLOCKED: u8 = 16;
/// Geneve flag: a critical option is present.
const CRITICAL: u8 = 0x40;
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// The option's first 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Choice {
    /// Chosen backend.
    pub backend: WireAddress,
    /// Its port, memory order.
    pub port: u16,
    /// Nodes that were asked so far.
    pub hops: u8,
    /// [`FLAG_RETURN`], [`FLAG_AHEAD`], [`FLAG_BACK`] and [`FLAG_BLOCKED`].
    pub flags: u8,
}

/// The option's other 36 bytes: of a packet for a row in transition, or one that is to come back.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Second {
    /// The other backend.
    pub backend: WireAddress,
    /// Its port, memory order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// Tunnel address of its node.
    pub node: WireAddress,
}

/// UDP, Geneve and option header, with the choice.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// UDP.
    pub udp: Udp,
    /// Geneve.
    pub geneve: Geneve,
    /// Option class, memory order.
    pub class: u16,
    /// Option type.
    pub kind: u8,
    /// Length of the option's data in words.
    pub words: u8,
    /// Its first part.
    pub choice: Choice,
}

const SHORT_WORDS: u8 = (size_of::<Choice>() / 4) as u8;
const LONG_WORDS: u8 = SHORT_WORDS + (size_of::<Second>() / 4) as u8;

impl Header {
    /// Whether this is a tunnel packet of ours, and if so whether a [`Second`] follows. `Err(true)`: ours, but broken;
    /// `Err(false)`: somebody else's Geneve.
    #[inline(always)]
    pub fn check(&self) -> Result<bool, bool> {
        if self.class != OPTION_CLASS || self.kind != OPTION_TYPE {
            return Err(false);
        }
        let consistent =
            self.geneve.version_options == self.words + 1 && (self.words == SHORT_WORDS || self.words == LONG_WORDS);
        if consistent {
            Ok(self.words == LONG_WORDS)
        } else {
            Err(true)
        }
    }
}

/// Bytes in front of the inner IP packet without its link layer, for an outer packet of this family.
#[inline(always)]
#[must_use]
pub const fn overhead(v6: bool, long: bool) -> usize {
    let ip = if v6 { size_of::<Ipv6>() } else { size_of::<Ipv4>() };
    ip + size_of::<Header>() + if long { size_of::<Second>() } else { 0 }
}

/// Whether an address is an IPv6 one.
#[inline(always)]
#[must_use]
pub fn is_v6(address: &Address) -> bool {
    let WireAddress { words } = WireAddress::from(*address);
    [words[0], words[1], words[2]] != [0, 0, 0x0000_ffff_u32.to_be()]
}

/// The shape of the outer headers towards a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Over IPv6 rather than IPv4.
    pub v6: bool,
    /// Bytes of the link layer: 14, or 18 with a tag.
    pub l3: usize,
}

impl Outer {
    /// As the node's address and VLAN ask for.
    #[inline(always)]
    #[must_use]
    pub fn towards(node: &Node) -> Self {
        let tag = if node.vlan == [0, 0] { 0 } else { size_of::<Vlan>() };
        Self {
            v6: is_v6(&node.address),
            l3: size_of::<Ethernet>() + tag,
        }
    }

    /// Bytes of the IP header.
    #[inline(always)]
    #[must_use]
    pub const fn ip_len(&self) -> usize {
        if self.v6 { size_of::<Ipv6>() } else { size_of::<Ipv4>() }
    }
}

/// What the tunnel has to know about the IP packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its offset in the frame.
    pub l3: usize,
    /// Its length.
    pub len: usize,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// DSCP and ECN.
    pub tos: u8,
}

/// What [`Second`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// The backend.
    pub backend: &'a Address,
    /// Its port, memory order.
    pub port: u16,
    /// Tunnel address of its node.
    pub node: &'a Address,
}

/// Where a tunnel packet goes and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Encapsulation<'a> {
    /// The chosen backend.
    pub backend: WireAddress,
    /// Its port, memory order.
    pub backend_port: u16,
    /// Its node.
    pub node: &'a Node,
    /// Headers towards it.
    pub outer: Outer,
    /// The other backend.
    pub second: Option<Other<'a>>,
    /// Nodes that were asked so far.
    pub hops: u8,
    /// Flags of the option.
    pub flags: u8,
    /// Hash of the flow: gives the outer source port, and the flow label over IPv6.
    pub hash: u64,
    /// UDP port of the tunnel, memory order.
    pub port: u16,
}

impl Encapsulation<'_> {
    /// Bytes added in front of the inner IP packet.
    #[inline(always)]
    #[must_use]
    pub fn overhead(&self) -> usize {
        overhead(self.outer.v6, self.second.is_some())
    }

    /// Puts the IP packet into the tunnel, in place of whatever is in front of it: a link layer, or another tunnel's
    /// headers. False, and nothing changed, when the kernel has no room.
    #[inline(always)]
    pub fn apply<P: Packet>(&self, packet: &mut P, inner: &Inner) -> bool {
        let (outer, overhead) = (self.outer, self.overhead());
        if !packet.adjust_head(inner.l3 as i32 - (outer.l3 + overhead) as i32) {
            return false;
        }
        let len = (inner.len + overhead) as u16;
        store_link(packet, self.node, outer);
        // Without the congestion marks: the other side does not take them over (RFC 6040 §4.1, compatibility mode).
        store_ip(packet, self.node, outer, len, inner.tos & 0xfc, self.hash);
        let words = if self.second.is_some() { LONG_WORDS } else { SHORT_WORDS };
        let at = outer.l3 + outer.ip_len();
        packet.store(
            at,
            Header {
                udp: Udp {
                    source: source_port(self.hash),
                    destination: self.port,
                    len: (len - outer.ip_len() as u16).to_be(),
                    checksum: 0,
                },
                geneve: Geneve {
                    version_options: words + 1,
                    flags: CRITICAL,
                    protocol: if inner.v6 { ethertype::IPV6 } else { ethertype::IPV4 },
                    vni: 0,
                },
                class: OPTION_CLASS,
                kind: OPTION_TYPE,
                words,
                choice: Choice {
                    backend: self.backend,
                    port: self.backend_port,
                    hops: self.hops,
                    flags: self.flags,
                },
            },
        );
        if let Some(second) = self.second {
            // Piece by piece: the whole would have to stand on the stack.
            let at = at + size_of::<Header>();
            packet.store(at, WireAddress::from(*second.backend));
            packet.store(at + offset_of!(Second, port), [second.port, 0]);
            packet.store(at + offset_of!(Second, node), WireAddress::from(*second.node));
        }
        true
    }
}

/// The link layer towards a node, over the frame's first 14 or 18 bytes.
#[inline(always)]
pub fn store_link<P: Packet>(packet: &mut P, node: &Node, outer: Outer) {
    /// Where both MACs stand in a node, in the order of a frame, as an index of words: one copy instead of six.
    const MACS: usize = offset_of!(Node, destination_mac) / 4;
    const _: () = assert!(offset_of!(Node, destination_mac) % 4 == 0);
    const _: () = assert!(offset_of!(Node, source_mac) == offset_of!(Node, destination_mac) + 6);
    let words: &[u32; size_of::<Node>() / 4] = bytemuck::must_cast_ref(node);
    let ethertype = if outer.v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    packet.store(0, [words[MACS], words[MACS + 1], words[MACS + 2]]);
    if outer.l3 == size_of::<Ethernet>() {
        packet.store(offset_of!(Ethernet, ethertype), ethertype);
    } else {
        packet.store(offset_of!(Ethernet, ethertype), ethertype::VLAN);
        packet.store(
            size_of::<Ethernet>(),
            Vlan {
                tci: u16::from_ne_bytes(node.vlan),
                ethertype,
            },
        );
    }
}

/// The outer IP header, from us to `node`, `len` bytes long with what follows.
#[inline(always)]
pub fn store_ip<P: Packet>(packet: &mut P, node: &Node, outer: Outer, len: u16, tos: u8, hash: u64) {
    let l3 = outer.l3;
    if outer.v6 {
        let flow_label = (hash >> 20) as u32 & 0x000f_ffff;
        packet.store(
            l3,
            Ipv6 {
                version_class_flow: (6 << 28 | u32::from(tos) << 20 | flow_label).to_be(),
                payload_len: (len - size_of::<Ipv6>() as u16).to_be(),
                next_header: crate::abi::protocol::UDP,
                hop_limit: TTL,
                source: node.source.into(),
                destination: node.address.into(),
            },
        );
    } else {
        let mut header = Ipv4 {
            version_ihl: 0x45,
            tos,
            total_len: len.to_be(),
            id: 0,
            fragment: DONT_FRAGMENT,
            ttl: TTL,
            protocol: crate::abi::protocol::UDP,
            checksum: 0,
            source: WireAddress::from(node.source).words[3],
            destination: WireAddress::from(node.address).words[3],
        };
        let words: [u32; 5] = bytemuck::must_cast(header);
        let sum: u64 =
            u64::from(words[0]) + u64::from(words[1]) + u64::from(words[2]) + u64::from(words[3]) + u64::from(words[4]);
        header.checksum = !checksum::folded(sum);
        packet.store(l3, header);
    }
}

/// A port of the dynamic range (RFC 6335 §6), memory order, that spreads flows over queues and paths.
#[inline(always)]
#[must_use]
pub fn source_port(hash: u64) -> u16 {
    (0xc000 | (hash >> 50) as u16).to_be()
}
