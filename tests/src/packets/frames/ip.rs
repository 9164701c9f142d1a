//! IPv4 with options and fragments, IPv6 with extension headers.

use super::{Raw, checksum};
use std::net::IpAddr;

/// IPv6's fragment header (RFC 8200 §4.5).
const FRAGMENT_HEADER: u8 = 44;

/// What an IP packet carries.
pub trait Upper {
    /// Its IP protocol number in a packet of this family.
    fn protocol(&self, v6: bool) -> u8;
    /// Its bytes, with a checksum that covers the pseudo header of these addresses.
    fn bytes(&self, source: IpAddr, destination: IpAddr) -> Vec<u8>;
}

/// An IP header; the family is the addresses'.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv6 only.
    pub flow_label: u32,
    /// IPv4 only.
    pub id: u16,
    /// IPv4 only.
    pub dont_fragment: bool,
    /// IPv4 only: (offset in units of 8 bytes, more fragments). In IPv6 a fragment is an extension.
    pub fragment: (u16, bool),
    /// IPv4 only: a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 only: (header's own type, its bytes from the second on; a multiple of 8 bytes less one).
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Added to the length field, to make it lie.
    pub length_error: i32,
    /// IPv4 only: replaces version and header length.
    pub first_byte: Option<u8>,
}

impl Ip {
    /// TTL 64, no options, DF as Linux sets it.
    #[must_use]
    pub fn between(source: IpAddr, destination: IpAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family a packet");
        Self {
            source,
            destination,
            ttl: 64,
            tos: 0,
            flow_label: 0,
            id: 0x1234,
            dont_fragment: true,
            fragment: (0, false),
            options: Vec::new(),
            extensions: Vec::new(),
            length_error: 0,
            first_byte: None,
        }
    }

    /// One fragment of the datagram `id`: `bytes` of `protocol` at `offset` (a multiple of 8), `more` to follow.
    #[must_use]
    pub fn piece(&self, id: u16, protocol: u8, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
        let mut ip = self.clone();
        if self.source.is_ipv4() {
            (ip.id, ip.dont_fragment, ip.fragment) = (id, false, (offset as u16 / 8, more));
        } else {
            let [high, low] = (offset as u16 | u16::from(more)).to_be_bytes();
            let [id_high, id_low] = id.to_be_bytes();
            // Of the identification's 32 bits the upper ones count, too.
            ip.extensions
                .push((FRAGMENT_HEADER, vec![0, high, low, 0xf1, 0x02, id_high, id_low]));
        }
        ip.carry(&Raw(protocol, bytes.to_vec()))
    }

    /// The fragments of the datagram `id` that carries `upper`, cut at these offsets (multiples of 8).
    #[must_use]
    pub fn cut(&self, id: u16, upper: &dyn Upper, at: &[usize]) -> Vec<Vec<u8>> {
        let bytes = upper.bytes(self.source, self.destination);
        let protocol = upper.protocol(self.source.is_ipv6());
        let starts = std::iter::once(0).chain(at.iter().copied());
        let ends = at.iter().copied().chain([bytes.len()]);
        starts
            .zip(ends)
            .map(|(start, end)| self.piece(id, protocol, start, end < bytes.len(), &bytes[start..end]))
            .collect()
    }

    /// The same header for the way back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ..self.clone()
        }
    }

    /// The same header to another destination.
    #[must_use]
    pub fn to(&self, destination: IpAddr) -> Self {
        Self {
            destination,
            ..self.clone()
        }
    }

    /// The same header from another source.
    #[must_use]
    pub fn from(&self, source: IpAddr) -> Self {
        Self { source, ..self.clone() }
    }

    /// The packet from this header on.
    #[must_use]
    pub fn carry(&self, upper: &dyn Upper) -> Vec<u8> {
        let payload = upper.bytes(self.source, self.destination);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.v4(source.octets(), destination.octets(), upper.protocol(false), &payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.v6(source.octets(), destination.octets(), upper.protocol(true), &payload)
            }
            _ => unreachable!("`between` checks the families"),
        }
    }

    fn v4(&self, source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let words = (header / 4) as u8;
        let length = ((header + payload.len()) as i32 + self.length_error) as u16;
        let (offset, more) = self.fragment;
        let fragment = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13 | offset;
        let mut packet = vec![self.first_byte.unwrap_or(0x40 | words), self.tos];
        packet.extend(length.to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        packet.extend([self.ttl, protocol, 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn v6(&self, source: [u8; 16], destination: [u8; 16], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let chain: usize = self.extensions.iter().map(|(_, bytes)| bytes.len() + 1).sum();
        let length = ((chain + payload.len()) as i32 + self.length_error) as u16;
        let mut following = self.extensions.iter().map(|(kind, _)| *kind).chain([protocol]);
        let word = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
        let mut packet = word.to_be_bytes().to_vec();
        packet.extend(length.to_be_bytes());
        packet.extend([following.next().unwrap_or(protocol), self.ttl]);
        packet.extend(source);
        packet.extend(destination);
        for (_, bytes) in &self.extensions {
            packet.push(following.next().unwrap_or(protocol));
            packet.extend(bytes);
        }
        packet.extend(payload);
        packet
    }
}
