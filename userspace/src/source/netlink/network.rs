//! What the source is asked for, and what it publishes. Pure: no socket, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_core::links::Links;

/// What the source is to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Tunnel addresses of other nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// Addresses by `can_reach:` name as written; the interface that leads there is published under that name.
    pub reach: BTreeMap<String, IpAddr>,
    /// Interfaces that the agent is to take; the devices that see their packets are published.
    pub interfaces: BTreeSet<String>,
}

impl Wanted {
    /// Every address whose route matters.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.nodes.iter().chain(self.reach.values()).copied().collect()
    }

    /// The address in an Eip's `can_reach:<ip>`.
    #[must_use]
    pub fn parse_reach(interface: &str) -> Option<IpAddr> {
        interface.strip_prefix("can_reach:")?.trim().parse().ok()
    }
}

/// The network, complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Interfaces and next hops, as the core takes them.
    pub links: Links,
    /// Interfaces that can run programs, by name.
    pub devices: BTreeMap<String, Device>,
    /// What this was made for.
    pub wanted: Wanted,
}

impl Network {
    /// Whether every node asked for has a next hop.
    #[must_use]
    pub fn reaches_all(&self) -> bool {
        let mut nodes = self.wanted.nodes.iter();
        nodes.all(|node| self.links.next_hops.contains_key(node))
    }

    /// The device whose programs see the packets of `interface`: itself, the parent of a VLAN device, or the bond of a
    /// slave.
    #[must_use]
    pub fn device_of(&self, interface: &str) -> Option<&Device> {
        let ifindex = self.links.interfaces.get(interface)?.ifindex;
        self.devices.values().find(|device| device.ifindex == ifindex)
    }
}

/// An interface that programs can be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The XDP program it runs.
    pub xdp: Option<XdpState>,
}

/// What the kernel says about XDP on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpState {
    /// Run by the driver (or the card), not by the network stack.
    pub native: bool,
    /// Id of the program.
    pub program: u32,
}
