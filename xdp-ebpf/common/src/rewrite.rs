//! Replacing one end of a TCP or UDP packet: VIP by pod on the way in, pod by VIP on the way out. Of a later fragment only
//! the address: it has no ports, and its first fragment has the checksum of all.

use crate::{
    addr::Address,
    checksum,
    packet::{Ipv4, Ipv6, Packet, WireAddress},
    parse::{Ip, Transport},
    scratch::Part,
};
use core::mem::offset_of;

/// Which end is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// A replacement with everything computed that has to be read before the first write.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    end: End,
    address: Address,
    port: u16,
    v6: bool,
    udp: bool,
    l3: usize,
    l4: usize,
    ip_checksum: u16,
    l4_checksum: u16,
    l4_checksum_at: usize,
    pseudo: u64,
    body: u64,
    whole: bool,
}

impl Rewrite {
    /// Replaces `end` by `address` and `port` (memory order). The families must agree; the planner sees to it.
    #[inline(always)]
    #[must_use]
    pub fn new(ip: &Ip, transport: &Transport, part: Part, end: End, address: Address, port: u16) -> Self {
        let (old_address, old_port) = match end {
            End::Source => (ip.source, transport.source_port),
            End::Destination => (ip.destination, transport.destination_port),
        };
        let pseudo = checksum::replaced_address(&old_address, &address);
        Self {
            end,
            address,
            port,
            v6: ip.v6,
            udp: transport.udp,
            l3: ip.l3,
            l4: ip.l4,
            ip_checksum: checksum::updated(ip.checksum, pseudo),
            l4_checksum: transport.checksum,
            l4_checksum_at: transport.checksum_at,
            pseudo,
            body: checksum::replaced16(old_port, port),
            whole: part == Part::Packet,
        }
    }

    /// Takes into the checksum another change to the segment, made by the caller.
    #[inline(always)]
    #[must_use]
    pub fn with_body_change(mut self, difference: u64) -> Self {
        self.body += difference;
        self
    }

    /// Carries it out on a packet whose IP header now stands `back` bytes nearer to the frame's start.
    #[inline(always)]
    pub fn apply<P: Packet>(&self, packet: &mut P, back: usize) {
        let (l3, l4) = (self.l3 - back, self.l4 - back);
        if self.v6 {
            let at = match self.end {
                End::Source => offset_of!(Ipv6, source),
                End::Destination => offset_of!(Ipv6, destination),
            };
            packet.store(l3 + at, WireAddress::from(self.address));
        } else {
            let at = match self.end {
                End::Source => offset_of!(Ipv4, source),
                End::Destination => offset_of!(Ipv4, destination),
            };
            packet.store(l3 + at, WireAddress::from(self.address).words[3]);
            packet.store(l3 + offset_of!(Ipv4, checksum), self.ip_checksum);
        }
        if !self.whole {
            return;
        }
        let port_at = match self.end {
            End::Source => l4,
            End::Destination => l4 + 2,
        };
        packet.store(port_at, self.port);
        // Last: on an skb this is a kernel helper, and offsets are all that survives it.
        packet.update_l4_checksum(
            self.l4_checksum_at - back,
            self.l4_checksum,
            self.pseudo,
            self.body,
            self.udp,
        );
    }
}
