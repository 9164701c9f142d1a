//! TCP, UDP, ICMP and anything else above IP.

use super::{Upper, checksum};
use std::net::IpAddr;

/// TCP flags (RFC 9293 §3.1).
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// Checksum of `segment` with the pseudo header of RFC 9293 §3.1 or RFC 8200 §8.1 before it.
fn with_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut covered = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => covered.extend(v4.octets()),
            IpAddr::V6(v6) => covered.extend(v6.octets()),
        }
    }
    covered.extend((segment.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(segment);
    checksum(&covered)
}

/// A TCP segment.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// See [`flag`].
    pub flags: u8,
    /// A multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
    /// Replaces the data offset, in words.
    pub offset: Option<u8>,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number, where the flags have ACK.
    pub acknowledgment: u32,
}

impl Tcp {
    /// A segment with these flags, no options and no data.
    #[must_use]
    pub fn new(source: u16, destination: u16, flags: u8) -> Self {
        Self {
            source,
            destination,
            flags,
            options: Vec::new(),
            payload: Vec::new(),
            offset: None,
            sequence: 0x0102_0304,
            acknowledgment: 0x0506_0708,
        }
    }

    /// The same segment from another place in the stream.
    #[must_use]
    pub fn sequence(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    /// The same segment with another acknowledgment number.
    #[must_use]
    pub fn acknowledging(self, acknowledgment: u32) -> Self {
        Self { acknowledgment, ..self }
    }

    /// The same segment with data.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// The same segment with options.
    #[must_use]
    pub fn options(self, options: &[u8]) -> Self {
        assert_eq!(options.len() % 4, 0, "options fill words");
        Self {
            options: options.to_vec(),
            ..self
        }
    }

    /// The same segment between other ports.
    #[must_use]
    pub fn ports(&self, source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            ..self.clone()
        }
    }
}

impl Upper for Tcp {
    fn protocol(&self, _v6: bool) -> u8 {
        6
    }

    fn bytes(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let words = self.offset.unwrap_or((5 + self.options.len() / 4) as u8);
        let mut segment = self.source.to_be_bytes().to_vec();
        segment.extend(self.destination.to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(if self.flags & flag::ACK == 0 {
            [0; 4]
        } else {
            self.acknowledgment.to_be_bytes()
        });
        segment.extend([words << 4, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        segment.extend(&self.options);
        segment.extend(&self.payload);
        let sum = with_pseudo_header(source, destination, 6, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }
}

/// A UDP datagram.
#[derive(Clone, Debug)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Data.
    pub payload: Vec<u8>,
    /// Whether the checksum field is zero: "not computed".
    pub unchecked: bool,
    /// Added to the length field, to make it lie.
    pub length_error: i32,
}

impl Udp {
    /// A datagram with a checksum.
    #[must_use]
    pub fn new(source: u16, destination: u16, payload: &[u8]) -> Self {
        Self {
            source,
            destination,
            payload: payload.to_vec(),
            unchecked: false,
            length_error: 0,
        }
    }

    /// The same datagram without a checksum.
    #[must_use]
    pub fn unchecked(self) -> Self {
        Self {
            unchecked: true,
            ..self
        }
    }

    /// The same datagram between other ports.
    #[must_use]
    pub fn ports(&self, source: u16, destination: u16) -> Self {
        Self {
            source,
            destination,
            ..self.clone()
        }
    }
}

impl Upper for Udp {
    fn protocol(&self, _v6: bool) -> u8 {
        17
    }

    fn bytes(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let length = ((8 + self.payload.len()) as i32 + self.length_error) as u16;
        let mut datagram = self.source.to_be_bytes().to_vec();
        datagram.extend(self.destination.to_be_bytes());
        datagram.extend(length.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(&self.payload);
        if !self.unchecked {
            // RFC 768: a computed zero is sent as all ones.
            let sum = match with_pseudo_header(source, destination, 17, &datagram) {
                0 => 0xffff,
                sum => sum,
            };
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        datagram
    }
}

/// An ICMP or ICMPv6 message; the family decides the protocol and what the checksum covers.
#[derive(Clone, Debug)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Everything after the checksum.
    pub body: Vec<u8>,
    /// Added to the checksum, to make it wrong.
    pub checksum_error: u16,
}

impl Icmp {
    /// A message with code 0.
    #[must_use]
    pub fn new(kind: u8, body: &[u8]) -> Self {
        Self {
            kind,
            code: 0,
            body: body.to_vec(),
            checksum_error: 0,
        }
    }
}

impl Upper for Icmp {
    fn protocol(&self, v6: bool) -> u8 {
        if v6 { 58 } else { 1 }
    }

    fn bytes(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut message = vec![self.kind, self.code, 0, 0];
        message.extend(&self.body);
        let sum = if source.is_ipv6() {
            with_pseudo_header(source, destination, 58, &message)
        } else {
            checksum(&message)
        };
        message[2..4].copy_from_slice(&sum.wrapping_add(self.checksum_error).to_be_bytes());
        message
    }
}

/// Bytes of any protocol, as they are.
#[derive(Clone, Debug)]
pub struct Raw(pub u8, pub Vec<u8>);

impl Upper for Raw {
    fn protocol(&self, _v6: bool) -> u8 {
        self.0
    }

    fn bytes(&self, _source: IpAddr, _destination: IpAddr) -> Vec<u8> {
        self.1.clone()
    }
}
