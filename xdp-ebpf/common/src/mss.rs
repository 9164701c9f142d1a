//! Clamping the maximum segment size a backend offers (RFC 9293 §3.7.1), so that the client's packets fit the tunnel.

use crate::{
    checksum,
    packet::{Packet, Tcp},
    parse::{Ip, Transport},
};

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Options looked at; stacks put this one first.
const MAX_OPTIONS: usize = 10;

/// The MSS option of a segment, to be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// Offset of the value.
    pub at: usize,
    /// The new value, memory order.
    pub value: u16,
    /// What it does to the checksum.
    pub difference: u64,
}

/// The change to make to the segment at `ip.l4` so that it offers at most `limit` bytes; `None` if it already does.
#[inline(always)]
pub fn clamp<P: Packet>(packet: &P, ip: &Ip, transport: &Transport, limit: u16) -> Option<Clamp> {
    if transport.udp || limit == 0 {
        return None;
    }
    let tcp: Tcp = packet.load(ip.l4)?;
    // Not beyond the packet, whatever the header says: what follows is padding.
    let end = (ip.l4 + usize::from(tcp.offset >> 4) * 4).min(ip.l3 + ip.len);
    let mut at = ip.l4 + size_of::<Tcp>();
    for _ in 0..MAX_OPTIONS {
        if at + 4 > end {
            return None;
        }
        let [kind, len]: [u8; 2] = packet.load(at)?;
        match kind {
            END => return None,
            NO_OPERATION => at += 1,
            MAXIMUM_SEGMENT_SIZE if len == 4 => return lowered(packet, at + 2, at - ip.l4, limit),
            _ if len < 2 => return None,
            _ => at += usize::from(len),
        }
    }
    None
}

#[inline(always)]
fn lowered<P: Packet>(packet: &P, at: usize, from_l4: usize, limit: u16) -> Option<Clamp> {
    let old: u16 = packet.load(at)?;
    if u16::from_be(old) <= limit {
        return None;
    }
    let value = limit.to_be();
    // At an odd place the value's bytes stand in the other halves of two checksum words.
    let odd = from_l4 % 2 == 1;
    let (before, after) = if odd {
        (old.swap_bytes(), value.swap_bytes())
    } else {
        (old, value)
    };
    Some(Clamp {
        at,
        value,
        difference: checksum::replaced16(before, after),
    })
}
