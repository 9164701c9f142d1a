//! ARP (RFC 826) and Neighbour Discovery (RFC 4861).

use super::{Icmp, Mac};
use std::net::{Ipv4Addr, Ipv6Addr};

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Debug)]
pub struct Arp {
    /// Hardware type; 1 is Ethernet.
    pub hardware: u16,
    /// Protocol type; 0x0800 is IPv4.
    pub protocol: u16,
    /// Length of a hardware address.
    pub hardware_length: u8,
    /// Length of a protocol address.
    pub protocol_length: u8,
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Sender's MAC.
    pub sender_mac: Mac,
    /// Sender's address.
    pub sender: Ipv4Addr,
    /// Target's MAC; zero in a request.
    pub target_mac: Mac,
    /// Target's address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// A request by (`sender_mac`, `sender`) for `target`.
    #[must_use]
    pub fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            hardware: 1,
            protocol: 0x0800,
            hardware_length: 6,
            protocol_length: 4,
            operation: 1,
            sender_mac,
            sender,
            target_mac: [0; 6],
            target,
        }
    }

    /// The answer to this request by `mac`.
    #[must_use]
    pub fn reply(&self, mac: Mac) -> Self {
        Self {
            operation: 2,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
            ..self.clone()
        }
    }

    /// The 28 bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.hardware.to_be_bytes().to_vec();
        bytes.extend(self.protocol.to_be_bytes());
        bytes.extend([self.hardware_length, self.protocol_length]);
        bytes.extend(self.operation.to_be_bytes());
        bytes.extend(self.sender_mac);
        bytes.extend(self.sender.octets());
        bytes.extend(self.target_mac);
        bytes.extend(self.target.octets());
        bytes
    }
}

/// A neighbour solicitation for `target`; with the source link-layer address option if a MAC is given.
#[must_use]
pub fn solicitation(target: Ipv6Addr, source_mac: Option<Mac>) -> Icmp {
    let mut body = vec![0; 4];
    body.extend(target.octets());
    if let Some(mac) = source_mac {
        body.extend([1, 1]);
        body.extend(mac);
    }
    Icmp::new(135, &body)
}

/// A neighbour advertisement of `target` at `mac`, with the override flag (RFC 4861 §4.4).
#[must_use]
pub fn advertisement(target: Ipv6Addr, mac: Mac, solicited: bool) -> Icmp {
    let mut body = vec![if solicited { 0x60 } else { 0x20 }, 0, 0, 0];
    body.extend(target.octets());
    body.extend([2, 1]);
    body.extend(mac);
    Icmp::new(136, &body)
}
