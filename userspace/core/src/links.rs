//! This node's network as netlink describes it: interfaces, and how other nodes are reached.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What the netlink source publishes, complete each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Interfaces by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Indexes of the devices that the program is on, or is to be: those of the interfaces that the agent was told to take.
    pub taken: BTreeSet<u32>,
    /// How each other node is reached, by its tunnel address; an address that is missing is not reachable now.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
}

/// One interface of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Index of the device the XDP program is on: the interface itself, the parent of a VLAN device, or the bond of a
    /// slave.
    pub ifindex: u32,
    /// VLAN identifier on it, 0 for untagged.
    pub vlan: u16,
    /// MAC address.
    pub mac: [u8; 6],
    /// MTU in bytes.
    pub mtu: u16,
    /// Indexes of the slaves when that device is a bond: with native XDP its packets arrive under theirs.
    pub slaves: BTreeSet<u32>,
}

/// How packets to one address leave this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Interface to send on, as in [`Interface::ifindex`].
    pub ifindex: u32,
    /// VLAN identifier to tag with, 0 for untagged.
    pub vlan: u16,
    /// MAC of the next hop.
    pub destination_mac: [u8; 6],
    /// MAC of our interface.
    pub source_mac: [u8; 6],
    /// The address the kernel would send from.
    pub source: IpAddr,
    /// MTU of the way, in bytes: the interface's, or less when the route says so.
    pub mtu: u16,
}
