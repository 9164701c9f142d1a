//! What the directory is asked about, and what a backend is known by: address, port and protocol.

use super::LivePod;
use super::SourceKey;
use crate::{
    model::Protocol,
    plan::{BackendKey, FrontendKey},
};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};
use weir_common::{
    abi::{Address, Backend, DirectoryEntry, SourcePrefix, protocol},
    hash,
};

/// A key of `DIRECTORY`, and the identity of a backend. Ordered by address bytes, then port, then protocol.
///
/// A backend's node is not part of it: a pod address is in one place at a time, so a backend that turns up on another
/// node is the same entry with another way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub address: Address,
    /// Network order.
    pub port: [u8; 2],
    pub protocol: u8,
}

impl Key {
    /// The first in order.
    pub const FIRST: Self = Self {
        address: Address::UNSPECIFIED,
        port: [0; 2],
        protocol: 0,
    };

    /// The addresses it may be of: an IPv4 address can also be written as IPv6.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = Ipv6Addr::from(self.address.octets);
        v6.to_ipv4_mapped().map(IpAddr::from).into_iter().chain([v6.into()])
    }

    /// The names a frontend with this key may have.
    pub fn names(&self) -> impl Iterator<Item = FrontendKey> {
        let protocol = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|it| number(*it) == self.protocol);
        let port = u16::from_be_bytes(self.port);
        let named = protocol
            .into_iter()
            .flat_map(|protocol| self.addresses().map(move |address| (address, protocol)));
        named.map(move |(address, protocol)| FrontendKey {
            address,
            port,
            protocol,
        })
    }

    /// The key that stands for an address itself.
    pub fn address(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            port: [0; 2],
            protocol: protocol::ANY,
        }
    }

    /// The key of a socket.
    pub fn socket(address: IpAddr, port: u16, protocol: u8) -> Self {
        Self {
            address: Address::from(address),
            port: port.to_be_bytes(),
            protocol,
        }
    }

    /// An entry of `DIRECTORY` without rows and policies.
    pub fn entry(&self, kind: u8, id: u32) -> DirectoryEntry {
        DirectoryEntry {
            address: self.address,
            port: self.port,
            protocol: self.protocol,
            kind,
            id,
            ..DirectoryEntry::default()
        }
    }

    /// The hash the kernel looks the key up by.
    pub fn hash(&self) -> u64 {
        hash::directory(
            hash::address(&self.address),
            u16::from_ne_bytes(self.port),
            self.protocol,
        )
    }
}

impl From<&FrontendKey> for Key {
    fn from(key: &FrontendKey) -> Self {
        Self::socket(key.address, key.port, number(key.protocol))
    }
}

impl From<&BackendKey> for Key {
    fn from(key: &BackendKey) -> Self {
        Self::socket(key.address, key.port, number(key.protocol))
    }
}

impl From<&Backend> for Key {
    fn from(backend: &Backend) -> Self {
        Self {
            address: backend.address,
            port: backend.port,
            protocol: backend.protocol,
        }
    }
}

impl From<&LivePod> for Key {
    fn from(pod: &LivePod) -> Self {
        Self {
            address: pod.address,
            port: pod.port,
            protocol: pod.protocol,
        }
    }
}

impl From<&DirectoryEntry> for Key {
    fn from(entry: &DirectoryEntry) -> Self {
        Self {
            address: entry.address,
            port: entry.port,
            protocol: entry.protocol,
        }
    }
}

impl SourceKey {
    /// Bits of the frontend id.
    const FRONTEND_BITS: u32 = 32;

    /// The key of a frontend's prefix.
    pub(super) fn new(frontend: u32, prefix: &IpNet) -> Self {
        // IPv4 is mapped into the 16 bytes.
        let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
        let key = Self {
            length: Self::FRONTEND_BITS + mapped + u32::from(prefix.prefix_len()),
            prefix: SourcePrefix {
                frontend: frontend.to_be_bytes(),
                address: Address::from(prefix.addr()).octets,
            },
        };
        key.masked()
    }

    /// With the bits that do not count cleared: to the kernel the same key.
    pub(super) fn masked(mut self) -> Self {
        let bytes = (0..).zip(self.prefix.frontend.iter_mut().chain(&mut self.prefix.address));
        for (index, byte) in bytes {
            let counting = self.length.saturating_sub(index * 8).min(8);
            *byte &= !(0xff_u32 >> counting) as u8;
        }
        self
    }

    /// The frontend id, if all of it counts.
    pub(super) fn frontend(&self) -> Option<u32> {
        (self.length >= Self::FRONTEND_BITS).then(|| u32::from_be_bytes(self.prefix.frontend))
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_key_counts_the_bits_of_frontend_and_mapped_address() {
        let key = SourceKey::new(0x0102_0304, &"192.0.2.0/25".parse().unwrap());
        let mut address = [0; 16];
        address[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 0]);
        let prefix = SourcePrefix {
            frontend: [1, 2, 3, 4],
            address,
        };
        assert_eq!((key.length, key.prefix), (32 + 96 + 25, prefix));
        assert_eq!(SourceKey::new(7, &"2001:db8::/32".parse().unwrap()).length, 32 + 32);
        assert_eq!(key.frontend(), Some(0x0102_0304));
    }

    #[test]
    fn bits_beyond_the_length_do_not_tell_two_keys_apart() {
        let key = |length, last| SourceKey {
            length,
            prefix: SourcePrefix {
                frontend: [0xff; 4],
                address: [last; 16],
            },
        };
        assert_eq!(key(35, 0b1011_1111).masked(), key(35, 0b1010_0000).masked());
        assert_ne!(key(36, 0b1011_1111).masked(), key(36, 0b1010_0000).masked());
        assert_eq!(key(160, 0xff).masked(), key(160, 0xff));
        assert_eq!(key(31, 0).masked().prefix.frontend, [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(key(31, 0).frontend(), None);
    }
}
