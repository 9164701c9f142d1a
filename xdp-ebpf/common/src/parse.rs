//! From a frame to what the packet path decides by: link layer, IP layer, ports.

use crate::{
    abi::protocol,
    addr::Address,
    fragments::Piece,
    packet::{Ethernet, FragmentHeader, Ipv4, Ipv6, Packet, Tcp, Udp, Vlan, ethertype, tcp_flag},
    tunnel::is_v6,
    verdict::Reason,
};
use core::mem::offset_of;

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// No header that is looked at starts further into the frame: link layer, two IP layers with all the options or
/// extension headers followed, the tunnel's headers and a TCP header with options.
pub const MAX_OFFSET: usize = 22 + 2 * MAX_IP_HEADERS + 96 + 60;
/// Longest IPv6 header with extension headers that is followed, in bytes.
const MAX_IP_HEADERS: usize = 512;
/// Extension headers followed before we give up; a chain of all that RFC 8200 §4.1 recommends is four.
const MAX_EXTENSION_HEADERS: usize = 4;

/// The link layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Offset of what follows the Ethernet header and its tags: 14, 18 or 22.
    pub l3: usize,
    /// EtherType of that, memory order.
    pub ethertype: u16,
    /// VLAN identifier, memory order; 0 when untagged, [`TWO_TAGS`] behind two.
    pub vlan: u16,
}

/// What stands for the VLAN identifier of a segment that two tags name. It is none, so no responder is for it.
const TWO_TAGS: u16 = u16::MAX;

/// Ethernet and up to two tags.
#[inline(always)]
pub fn link<P: Packet>(packet: &P) -> Option<Link> {
    let ethernet: Ethernet = packet.load(0)?;
    let tagged = |t: u16| t == ethertype::VLAN || t == ethertype::QINQ;
    if !tagged(ethernet.ethertype) {
        return Some(Link {
            l3: 14,
            ethertype: ethernet.ethertype,
            vlan: 0,
        });
    }
    let outer: Vlan = packet.load(14)?;
    let vlan = outer.tci & 0x0fff_u16.to_be();
    if !tagged(outer.ethertype) {
        return Some(Link {
            l3: 18,
            ethertype: outer.ethertype,
            vlan,
        });
    }
    let inner: Vlan = packet.load(18)?;
    Some(Link {
        l3: 22,
        ethertype: inner.ethertype,
        vlan: TWO_TAGS,
    })
}

/// The IP layer of a packet, after its lengths were checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub source: Address,
    /// Destination.
    pub destination: Address,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of what follows IP options or extension headers.
    pub l4: usize,
    /// Length of the whole IP packet in bytes.
    pub len: usize,
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Protocol of what is at `l4`.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv4 header checksum, memory order; 0 for IPv6.
    pub checksum: u16,
    /// Whether it is a fragment, and which.
    pub fragment: Fragment,
    /// Identification of a fragment, memory order (IPv4's 16 bits, then zeros); 0 for a whole packet.
    pub fragment_id: u32,
    /// Offset of a fragment in bytes.
    pub fragment_offset: u16,
    /// IPv4's "don't fragment"; true for IPv6, whose routers never do.
    pub dont_fragment: bool,
}

/// What part of a packet is in hand.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole = 0,
    /// The first fragment, which has the transport header.
    First = 1,
    /// Another one.
    Later = 2,
    /// One that no honest sender makes: see [`Piece::is_sound`].
    Unsound = 3,
}

impl Ip {
    #[inline(always)]
    fn set_fragment(&mut self, id: u32, offset: u16, more: bool) {
        let piece = Piece {
            protocol: self.protocol,
            offset: usize::from(offset),
            len: self.l3 + self.len - self.l4,
            more,
        };
        self.fragment = match (offset, more) {
            (0, false) => Fragment::Whole,
            _ if !piece.is_sound() => Fragment::Unsound,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        self.fragment_id = if self.fragment == Fragment::Whole { 0 } else { id };
        self.fragment_offset = offset;
    }
}

/// Reads the IP packet at `l3` of this EtherType (memory order) into `ip`. In place rather than returned: the kernel's
/// stack has no room for a copy.
#[inline(always)]
pub fn ip<P: Packet>(packet: &P, l3: usize, ethertype: u16, ip: &mut Ip) -> Result<(), Reason> {
    ip.l3 = l3;
    ip.fragment = Fragment::Whole;
    ip.fragment_id = 0;
    ip.fragment_offset = 0;
    match ethertype {
        ethertype::IPV4 => ipv4(packet, l3, ip),
        ethertype::IPV6 => ipv6(packet, l3, ip),
        _ => Err(Reason::Malformed),
    }
}

/// Length of an IP packet at `l3` whose header says 0: up to the frame's end, if the kernel is to cut it; else 0.
#[inline(always)]
fn uncut<P: Packet>(packet: &P, l3: usize) -> usize {
    packet.uncut_len().map_or(0, |len| len.saturating_sub(l3))
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, l3: usize, ip: &mut Ip) -> Result<(), Reason> {
    let header: Ipv4 = packet.load(l3).ok_or(Reason::Truncated)?;
    let header_len = usize::from(header.version_ihl & 0x0f) * 4;
    let len = match usize::from(u16::from_be(header.total_len)) {
        0 => uncut(packet, l3),
        len => len,
    };
    if header.version_ihl >> 4 != 4 || header_len < size_of::<Ipv4>() || len < header_len {
        return Err(Reason::Malformed);
    }
    if !packet.holds(l3 + len) {
        return Err(Reason::Truncated);
    }
    ip.source = Address::from_v4_word(header.source);
    ip.destination = Address::from_v4_word(header.destination);
    ip.l4 = l3 + header_len;
    ip.len = len;
    ip.v6 = false;
    ip.protocol = header.protocol;
    ip.tos = header.tos;
    ip.checksum = header.checksum;
    let fragment = u16::from_be(header.fragment);
    ip.dont_fragment = fragment & 0x4000 != 0;
    let id = u32::from_ne_bytes(bytemuck::must_cast([header.id, 0]));
    ip.set_fragment(id, fragment << 3, fragment & 0x2000 != 0);
    Ok(())
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, l3: usize, ip: &mut Ip) -> Result<(), Reason> {
    let header: Ipv6 = packet.load(l3).ok_or(Reason::Truncated)?;
    let first = u32::from_be(header.version_class_flow);
    if first >> 28 != 6 {
        return Err(Reason::Malformed);
    }
    // Older kernels say the length in a hop-by-hop option (RFC 2675), which is followed like any.
    let len = match usize::from(u16::from_be(header.payload_len)) {
        0 => uncut(packet, l3).max(size_of::<Ipv6>()),
        len => size_of::<Ipv6>() + len,
    };
    if !packet.holds(l3 + len) {
        return Err(Reason::Truncated);
    }
    ip.source = header.source.address();
    ip.destination = header.destination.address();
    // In the tables these are IPv4 addresses; on the wire nobody has them (RFC 4038 §4.2).
    if !is_v6(&ip.source) || !is_v6(&ip.destination) {
        return Err(Reason::Malformed);
    }
    ip.l4 = l3 + size_of::<Ipv6>();
    ip.len = len;
    ip.v6 = true;
    ip.protocol = header.next_header;
    ip.tos = (first >> 20) as u8;
    ip.checksum = 0;
    ip.dont_fragment = true;
    if is_extension(ip.protocol) {
        extensions(packet, ip)
    } else {
        Ok(())
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

#[inline(never)]
fn extensions<P: Packet>(packet: &P, ip: &mut Ip) -> Result<(), Reason> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        if ip.protocol == FRAGMENT {
            let header: FragmentHeader = packet.load(ip.l4).ok_or(Reason::Truncated)?;
            let offset = u16::from_be(header.offset);
            ip.l4 += size_of::<FragmentHeader>();
            ip.protocol = header.next_header;
            if ip.l4 > ip.l3 + ip.len {
                return Err(Reason::Malformed);
            }
            ip.set_fragment(bytemuck::must_cast(header.id), offset & !7, offset & 1 != 0);
            // Only behind a whole packet's header (RFC 6946) does another one mean anything.
            if ip.fragment != Fragment::Whole || !is_extension(ip.protocol) {
                return Ok(());
            }
            continue;
        }
        // The checksum is made with the last destination of a route (RFC 8200 §8.1), which may not be the header's.
        if ip.protocol == ROUTING {
            return Err(Reason::ExtensionHeaders);
        }
        let [next, units]: [u8; 2] = packet.load(ip.l4).ok_or(Reason::Truncated)?;
        ip.l4 += (usize::from(units) + 1) * 8;
        ip.protocol = next;
        if ip.l4 > ip.l3 + ip.len {
            return Err(Reason::Malformed);
        }
        if ip.l4 > ip.l3 + MAX_IP_HEADERS {
            return Err(Reason::ExtensionHeaders);
        }
        if !is_extension(next) {
            return Ok(());
        }
    }
    Err(Reason::ExtensionHeaders)
}

/// The transport layer of a TCP or UDP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Source port, memory order.
    pub source_port: u16,
    /// Destination port, memory order.
    pub destination_port: u16,
    /// Checksum field, memory order.
    pub checksum: u16,
    /// Its offset.
    pub checksum_at: usize,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// TCP sequence number, native order.
    pub sequence: u32,
    /// TCP acknowledgment number, native order.
    pub acknowledgment: u32,
    /// Whether it is UDP.
    pub udp: bool,
}

impl Transport {
    /// A TCP SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub fn is_bare_syn(&self) -> bool {
        self.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}

/// Reads ports, flags and checksum at `ip.l4` into `transport`; `Err` when the header does not fit the packet. Only for
/// TCP and UDP.
#[inline(always)]
pub fn transport<P: Packet>(packet: &P, ip: &Ip, transport: &mut Transport) -> Result<(), Reason> {
    let room = ip.l3 + ip.len - ip.l4;
    let (len, checksum_at) = if ip.protocol == protocol::TCP {
        let tcp: Tcp = packet.load(ip.l4).ok_or(Reason::Truncated)?;
        transport.source_port = tcp.source;
        transport.destination_port = tcp.destination;
        transport.checksum = tcp.checksum;
        transport.flags = tcp.flags;
        transport.sequence = u32::from_be(tcp.sequence);
        transport.acknowledgment = u32::from_be(tcp.acknowledgment);
        (size_of::<Tcp>(), offset_of!(Tcp, checksum))
    } else {
        let udp: Udp = packet.load(ip.l4).ok_or(Reason::Truncated)?;
        transport.source_port = udp.source;
        transport.destination_port = udp.destination;
        transport.checksum = udp.checksum;
        transport.flags = 0;
        (size_of::<Udp>(), offset_of!(Udp, checksum))
    };
    transport.checksum_at = ip.l4 + checksum_at;
    transport.udp = ip.protocol != protocol::TCP;
    if room < len { Err(Reason::Malformed) } else { Ok(()) }
}
