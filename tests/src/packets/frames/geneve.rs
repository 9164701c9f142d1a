//! Geneve (RFC 8926) with Weir's steering option.

use std::net::{IpAddr, SocketAddr};

/// The backend that had the row before, and the node it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Previous {
    /// Address and port of the backend.
    pub backend: SocketAddr,
    /// Tunnel address of its node; unspecified if unknown.
    pub node: IpAddr,
}

/// Weir's option: where the inner packet is to be delivered.
#[derive(Clone, Copy, Debug)]
pub struct Steering {
    /// The backend chosen.
    pub backend: SocketAddr,
    /// How often the packet may still be passed on.
    pub hops: u8,
    /// Reserved.
    pub flags: u8,
    /// Makes the long form.
    pub previous: Option<Previous>,
}

impl Steering {
    /// The short form.
    #[must_use]
    pub fn to(backend: SocketAddr, hops: u8) -> Self {
        Self {
            backend,
            hops,
            flags: 0,
            previous: None,
        }
    }

    /// The option with its header.
    #[must_use]
    pub fn option(&self) -> Vec<u8> {
        let words = if self.previous.is_some() { 14 } else { 5 };
        let mut option = vec![0xff, 0xe1, 0x81, words];
        option.extend(mapped(self.backend.ip()));
        option.extend(self.backend.port().to_be_bytes());
        option.extend([self.hops, self.flags]);
        if let Some(previous) = self.previous {
            option.extend(mapped(previous.backend.ip()));
            option.extend(previous.backend.port().to_be_bytes());
            option.extend([0, 0]);
            option.extend(mapped(previous.node));
        }
        option
    }
}

/// 16 bytes; IPv4 as IPv4-mapped IPv6, except the unspecified address, which is all zero.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => [0; 16],
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A Geneve header and what it carries: the payload of a UDP datagram.
#[derive(Clone, Debug)]
pub struct Geneve {
    /// Version (2 bits) and length of the options in words (6 bits); computed if absent.
    pub first_byte: Option<u8>,
    /// O, C and reserved bits. C is set because the option is critical.
    pub flags: u8,
    /// Protocol type of the inner packet; computed if absent.
    pub protocol: Option<u16>,
    /// Virtual network identifier, 24 bits, and the reserved byte after it.
    pub network: u32,
    /// All options.
    pub options: Vec<u8>,
    /// From the inner IP header on.
    pub inner: Vec<u8>,
}

impl Geneve {
    /// As Weir sends it.
    #[must_use]
    pub fn new(steering: &Steering, inner: Vec<u8>) -> Self {
        Self {
            first_byte: None,
            flags: 0x40,
            protocol: None,
            network: 0,
            options: steering.option(),
            inner,
        }
    }

    /// The bytes after the UDP header.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let v6 = self.inner.first().is_some_and(|byte| byte >> 4 == 6);
        let protocol = self.protocol.unwrap_or(if v6 { 0x86dd } else { 0x0800 });
        let mut bytes = vec![self.first_byte.unwrap_or((self.options.len() / 4) as u8), self.flags];
        bytes.extend(protocol.to_be_bytes());
        bytes.extend(self.network.to_be_bytes());
        bytes.extend(&self.options);
        bytes.extend(&self.inner);
        bytes
    }
}
