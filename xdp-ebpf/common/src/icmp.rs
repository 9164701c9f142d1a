//! ICMP errors (RFC 792, RFC 4443): those that arrive about a flow through a VIP, those that a backend sends about one, and
//! the one that this node sends of its own.
//!
//! An error quotes the packet it is about, so its inner header stands in the direction opposite to its own. One that
//! arrives at a VIP quotes a reply, from the VIP to the client: it is steered as a packet of that client would be, and on
//! the backend's node VIP becomes pod inside as well as outside. One that a backend sends quotes a packet from the client
//! to the pod, and the pod becomes the VIP in both.

use crate::{
    abi::protocol,
    addr::Address,
    checksum,
    forward::unwrap,
    packet::{Ethernet, Icmp, Ipv4, Ipv6, Packet, WireAddress, ethertype},
    parse::{ICMP, ICMPV6, Ip},
    rewrite::End,
    scratch::{Part, Scratch},
    tables::Tables,
    verdict::Reason,
};
use core::mem::offset_of;

/// Bytes of an error in front of what it quotes.
const HEADER: usize = 8;
/// Where the checksum stands behind a quoted transport header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const TTL: u8 = 64;

/// Whether it is an error: destination unreachable, time exceeded, parameter problem; too big over IPv6.
#[inline(always)]
fn is_error(icmp: &Icmp, v6: bool) -> bool {
    if v6 {
        matches!(icmp.kind, 1..=4)
    } else {
        matches!(icmp.kind, 3 | 11 | 12)
    }
}

/// Reads the error at `s.ip` into `s`: which flow it is about, as if the client had sent it. `quoted` says which end of the
/// quoted packet is ours. False when it is no error, or about nothing we can know.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, s: &mut Scratch, quoted: End) -> bool {
    let Some(icmp) = packet.load::<Icmp>(s.ip.l4) else {
        return false;
    };
    if !carries(&s.ip) || !is_error(&icmp, s.ip.v6) {
        return false;
    }
    let at = s.ip.l4 + HEADER;
    let Some((source, destination, protocol, l4)) = quoted_ip(packet, at, s.ip.v6) else {
        return false;
    };
    // All of what is rewritten has to be there: addresses, ports, and UDP's checksum.
    if !matches!(protocol, protocol::TCP | protocol::UDP) || l4 + 8 > s.ip.l3 + s.ip.len {
        return false;
    }
    let Some([from, to]) = packet.load::<[u16; 2]>(l4) else {
        return false;
    };
    let (ours, theirs, our_port, their_port) = match quoted {
        End::Source => (source, destination, from, to),
        End::Destination => (destination, source, to, from),
    };
    let outer = match quoted {
        End::Source => &s.ip.destination,
        End::Destination => &s.ip.source,
    };
    if ours.words() != outer.words() {
        return false;
    }
    s.part = Part::Error;
    s.client = theirs;
    s.protocol = protocol;
    s.quoted_l3 = at;
    s.quoted_l4 = l4;
    s.transport.source_port = their_port;
    s.transport.destination_port = our_port;
    s.transport.flags = 0;
    s.transport.udp = protocol == protocol::UDP;
    true
}

/// Source, destination, protocol and offset of the transport header of a quoted packet, which may be cut short.
#[inline(always)]
fn quoted_ip<P: Packet>(packet: &P, at: usize, v6: bool) -> Option<(Address, Address, u8, usize)> {
    if v6 {
        let header: Ipv6 = packet.load(at)?;
        (u32::from_be(header.version_class_flow) >> 28 == 6).then_some((
            header.source.address(),
            header.destination.address(),
            header.next_header,
            at + size_of::<Ipv6>(),
        ))
    } else {
        let header: Ipv4 = packet.load(at)?;
        // A later fragment has no ports.
        (header.version_ihl == 0x45 && header.fragment & 0x1fff_u16.to_be() == 0).then_some((
            Address::from_v4_word(header.source),
            Address::from_v4_word(header.destination),
            header.protocol,
            at + size_of::<Ipv4>(),
        ))
    }
}

/// An error with one end replaced inside and outside, computed before the first write.
struct Rewritten {
    outer_end: End,
    address: Address,
    ip_checksum: u16,
    quoted_end: End,
    quoted_ip_checksum: u16,
    port: u16,
    /// Offset of the quoted transport checksum and its new value.
    transport_checksum: Option<(usize, u16)>,
    checksum: u16,
}

/// Replaces the end of `s` that is ours, `old`, by `address` and `port` (memory order): `quoted_end` inside, the opposite end
/// outside.
#[inline(always)]
fn rewritten<P: Packet>(
    packet: &P,
    s: &Scratch,
    quoted_end: End,
    old: Address,
    address: Address,
    port: u16,
) -> Option<Rewritten> {
    let icmp: Icmp = packet.load(s.ip.l4)?;
    let [from, to] = packet.load::<[u16; 2]>(s.quoted_l4)?;
    let (outer_end, old_port) = match quoted_end {
        End::Source => (End::Destination, from),
        End::Destination => (End::Source, to),
    };
    let moved = checksum::replaced_address(&old, &address);
    let renumbered = checksum::replaced16(old_port, port);
    // What the error's own checksum covers: the quoted addresses and ports, the quoted checksums, and over IPv6 the
    // outer addresses.
    let mut body = moved + renumbered;
    let mut quoted_ip_checksum = 0;
    if s.ip.v6 {
        body += moved;
    } else {
        let header: Ipv4 = packet.load(s.quoted_l3)?;
        quoted_ip_checksum = checksum::updated(header.checksum, moved);
        body += checksum::replaced16(header.checksum, quoted_ip_checksum);
    }
    let at = s.quoted_l4 + if s.transport.udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
    let mut transport_checksum = None;
    if at + 2 <= s.ip.l3 + s.ip.len
        && let Some(before) = packet.load::<u16>(at)
        && let Some(after) = checksum::updated_l4(before, moved + renumbered, s.transport.udp)
    {
        body += checksum::replaced16(before, after);
        transport_checksum = Some((at, after));
    }
    Some(Rewritten {
        outer_end,
        address,
        ip_checksum: checksum::updated(s.ip.checksum, moved),
        quoted_end,
        quoted_ip_checksum,
        port,
        transport_checksum,
        checksum: checksum::updated(icmp.checksum, body),
    })
}

impl Rewritten {
    /// Carries it out on a packet that now stands `back` bytes nearer to the frame's start.
    #[inline(always)]
    fn apply<P: Packet>(&self, packet: &mut P, s: &Scratch, back: usize) {
        let (l3, quoted_l3, quoted_l4) = (s.ip.l3 - back, s.quoted_l3 - back, s.quoted_l4 - back);
        put_address(packet, l3, s.ip.v6, self.outer_end, self.address);
        put_address(packet, quoted_l3, s.ip.v6, self.quoted_end, self.address);
        if !s.ip.v6 {
            packet.store(l3 + offset_of!(Ipv4, checksum), self.ip_checksum);
            packet.store(quoted_l3 + offset_of!(Ipv4, checksum), self.quoted_ip_checksum);
        }
        let port_at = match self.quoted_end {
            End::Source => quoted_l4,
            End::Destination => quoted_l4 + 2,
        };
        packet.store(port_at, self.port);
        if let Some((at, value)) = self.transport_checksum {
            packet.store(at - back, value);
        }
        packet.store(s.ip.l4 - back + offset_of!(Icmp, checksum), self.checksum);
    }
}

#[inline(always)]
fn put_address<P: Packet>(packet: &mut P, l3: usize, v6: bool, end: End, address: Address) {
    match (v6, end) {
        (true, End::Source) => packet.store(l3 + offset_of!(Ipv6, source), WireAddress::from(address)),
        (true, End::Destination) => packet.store(l3 + offset_of!(Ipv6, destination), WireAddress::from(address)),
        (false, End::Source) => packet.store(l3 + offset_of!(Ipv4, source), WireAddress::from(address).words[3]),
        (false, End::Destination) => {
            packet.store(l3 + offset_of!(Ipv4, destination), WireAddress::from(address).words[3]);
        }
    }
}

/// Rewrites an error about a flow of `s.chosen`, a backend on this node, for its pod, out of the tunnel if it came in one.
/// False, and nothing changed, when that cannot be done.
#[inline(always)]
pub fn deliver<P: Packet>(packet: &mut P, s: &mut Scratch) -> bool {
    let (vip, pod, port) = (s.ip.destination, s.chosen.address, s.chosen.port);
    let Some(rewritten) = rewritten(packet, s, End::Source, vip, pod, port) else {
        s.reason = Reason::Truncated;
        return false;
    };
    let Some(back) = unwrap(packet, s) else {
        s.reason = Reason::NoHeadroom;
        return false;
    };
    rewritten.apply(packet, s, back);
    true
}

/// Rewrites an error that a backend sends about a flow of its own: from the VIP, about the VIP.
#[inline(always)]
pub fn depart<P: Packet>(packet: &mut P, s: &Scratch, vip: Address, port: u16) -> bool {
    let pod = s.ip.source;
    match rewritten(packet, s, End::Destination, pod, vip, port) {
        Some(rewritten) => {
            rewritten.apply(packet, s, 0);
            true
        }
        None => false,
    }
}

/// Bytes quoted in an error of our own: the IP header, with options or extension headers, and enough to tell the flow
/// (RFC 792, RFC 4443 §2.4 want no less).
const QUOTED: usize = 128;
/// Of these, what a transport header has to have: the ports, and what of TCP the sender may check (RFC 5927 §4.1).
const QUOTED_TRANSPORT: usize = 8;

/// An error of our own about a packet that is too big for the tunnel, as a whole.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct TooBig {
    kind: u8,
    code: u8,
    checksum: u16,
    /// Over IPv4 two bytes of zeros and the MTU; over IPv6 the MTU in 32 bits.
    mtu: [u16; 2],
}

/// Turns the packet in `s` into an answer to its sender that it is too big: fragmentation needed (RFC 1191 §4) or packet too
/// big (RFC 4443 §3.2), from the VIP, with `s.mtu`. False when the packet is shorter than what is quoted, its ports are not among
/// that, or there is no room; then `s.reason` stays.
#[inline(always)]
pub fn too_big<P: Packet>(packet: &mut P, s: &Scratch) -> bool {
    let l3 = s.ip.l3;
    if s.ip.l4 + QUOTED_TRANSPORT > l3 + QUOTED {
        return false;
    }
    let (Some(ethernet), Some(quoted), Some(tags)) = (
        packet.load::<Ethernet>(0),
        packet.load::<[u32; QUOTED / 4]>(l3),
        packet.load::<[u32; 2]>(12),
    ) else {
        return false;
    };
    let ip_len = if s.ip.v6 { size_of::<Ipv6>() } else { size_of::<Ipv4>() };
    let mut sum = 0_u64;
    for word in quoted {
        sum += u64::from(word);
    }
    let mut answer = TooBig {
        kind: if s.ip.v6 { 2 } else { 3 },
        code: if s.ip.v6 { 0 } else { 4 },
        checksum: 0,
        mtu: [0, s.mtu.to_be()],
    };
    let [first, second]: [u32; 2] = bytemuck::must_cast(answer);
    sum += u64::from(first) + u64::from(second);
    if s.ip.v6 {
        // Both addresses change places, which the sum does not see (RFC 8200 §8.1).
        for word in [s.ip.source.words(), s.ip.destination.words()].as_flattened() {
            sum += checksum::halves(*word);
        }
        sum += u64::from(((size_of::<TooBig>() + QUOTED) as u32).to_be()) + u64::from(u32::from(ICMPV6).to_be());
    }
    answer.checksum = !checksum::folded(sum);
    let head = ip_len + size_of::<TooBig>();
    if !packet.adjust_head(-(head as i32)) {
        return false;
    }
    if !packet.set_len(l3 + head + QUOTED) {
        packet.adjust_head(head as i32);
        return false;
    }
    packet.store(
        0,
        Ethernet {
            destination: ethernet.source,
            source: ethernet.destination,
            ..ethernet
        },
    );
    if l3 >= 18 {
        packet.store(12, tags[0]);
    }
    if l3 >= 22 {
        packet.store(16, tags[1]);
    }
    packet.store(l3 - 2, if s.ip.v6 { ethertype::IPV6 } else { ethertype::IPV4 });
    put_own_ip(packet, s, (head + QUOTED) as u16);
    packet.store(l3 + ip_len, answer);
    true
}

/// The IP header of an error of our own, from the VIP to the packet's sender, `len` bytes with what follows.
#[inline(always)]
fn put_own_ip<P: Packet>(packet: &mut P, s: &Scratch, len: u16) {
    if s.ip.v6 {
        packet.store(
            s.ip.l3,
            Ipv6 {
                version_class_flow: (6_u32 << 28).to_be(),
                payload_len: (len - size_of::<Ipv6>() as u16).to_be(),
                next_header: ICMPV6,
                hop_limit: TTL,
                source: s.ip.destination.into(),
                destination: s.ip.source.into(),
            },
        );
        return;
    }
    let mut header = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_len: len.to_be(),
        id: 0,
        fragment: 0x4000_u16.to_be(),
        ttl: TTL,
        protocol: ICMP,
        checksum: 0,
        source: WireAddress::from(s.ip.destination).words[3],
        destination: WireAddress::from(s.ip.source).words[3],
    };
    let words: [u32; 5] = bytemuck::must_cast(header);
    let mut sum = 0_u64;
    for word in words {
        sum += u64::from(word);
    }
    header.checksum = !checksum::folded(sum);
    packet.store(s.ip.l3, header);
}

/// Whether this node may send another error of its own now.
#[inline(always)]
pub fn may_answer<T: Tables>(tables: &T) -> bool {
    let (Some(config), Some(used)) = (tables.config(), tables.answered()) else {
        return false;
    };
    tables.read_only() || crate::policy::take(used, tables.jiffies() << 20, config.answer_interval, config).is_some()
}

/// Whether `ip` carries ICMP of its family.
#[inline(always)]
#[must_use]
pub fn carries(ip: &Ip) -> bool {
    ip.protocol == if ip.v6 { ICMPV6 } else { ICMP }
}
