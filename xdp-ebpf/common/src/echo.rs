//! Echo requests to a VIP (RFC 792, RFC 4443 §4.1), answered in place whatever their length: every node that gets one
//! answers, as every node serves every VIP.

use crate::{
    checksum,
    packet::{Ethernet, Icmp, Ipv4, Ipv6, Packet},
    parse::{ICMP, ICMPV6, Ip},
};

const _: () = assert!(
    core::mem::offset_of!(Ipv4, ttl) % 2 == 0,
    "the TTL is the first byte of its checksum word"
);

/// Hop limit of our answers (RFC 1700's default).
const TTL: u8 = 64;

/// Bytes of an echo message without data.
const SHORTEST: usize = 8;

/// Answers the packet if it is an echo request, and says whether it was. `ip.destination` must be a VIP. Not inlined, as
/// [`crate::ndp::respond`].
#[inline(never)]
pub fn respond<P: Packet>(packet: &mut P, ip: &Ip) -> bool {
    let (Some(icmp), Some(ethernet)) = (packet.load::<Icmp>(ip.l4), packet.load::<Ethernet>(0)) else {
        return false;
    };
    let (request, reply) = if ip.v6 { (128, 129) } else { (8, 0) };
    if ip.protocol != if ip.v6 { ICMPV6 } else { ICMP } || (icmp.kind, icmp.code) != (request, 0) {
        return false;
    }
    // What looks like a request may stand in the padding behind the packet.
    if ip.l3 + ip.len < ip.l4 + SHORTEST {
        return false;
    }
    let before = u16::from_ne_bytes([request, 0]);
    let after = u16::from_ne_bytes([reply, 0]);
    let checksum = match checksum::updated(icmp.checksum, checksum::replaced16(before, after)) {
        // Of the two zeros only this one is right for a message of nothing but zeros, and it is right for every other.
        0 => 0xffff,
        other => other,
    };
    if ip.v6 {
        let Some(header) = packet.load::<Ipv6>(ip.l3) else {
            return false;
        };
        let answer = Ipv6 {
            hop_limit: TTL,
            source: header.destination,
            destination: header.source,
            ..header
        };
        packet.store(ip.l3, answer);
    } else {
        let Some(header) = packet.load::<Ipv4>(ip.l3) else {
            return false;
        };
        let difference = checksum::replaced16(
            u16::from_ne_bytes([header.ttl, header.protocol]),
            u16::from_ne_bytes([TTL, header.protocol]),
        );
        let answer = Ipv4 {
            ttl: TTL,
            checksum: checksum::updated(header.checksum, difference),
            source: header.destination,
            destination: header.source,
            ..header
        };
        packet.store(ip.l3, answer);
    }
    packet.store(
        0,
        Ethernet {
            destination: ethernet.source,
            source: ethernet.destination,
            ..ethernet
        },
    );
    packet.store(
        ip.l4,
        Icmp {
            kind: reply,
            checksum,
            ..icmp
        },
    );
    true
}
