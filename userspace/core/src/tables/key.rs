//! What the directory is asked about, and what a backend is known by: address, port and protocol.

use crate::{
    model::Protocol,
    plan::{BackendKey, FrontendKey},
};
use std::net::IpAddr;
use weir_common::{
    abi::{Address, Backend, DirectoryEntry, protocol},
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

    /// The key that stands for an address itself.
    pub fn address(address: Address) -> Self {
        Self {
            address,
            port: [0; 2],
            protocol: protocol::ANY,
        }
    }

    /// The key of a socket.
    pub fn socket(address: IpAddr, port: u16, protocol: u8) -> Self {
        Self {
            address: address_of(address),
            port: port.to_be_bytes(),
            protocol,
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

impl From<&DirectoryEntry> for Key {
    fn from(entry: &DirectoryEntry) -> Self {
        Self {
            address: entry.address,
            port: entry.port,
            protocol: entry.protocol,
        }
    }
}

/// The sixteen bytes the kernel knows an address by.
pub(super) fn address_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::from_v4(v4.octets()),
        IpAddr::V6(v6) => Address { octets: v6.octets() },
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}
