//! What is known of the network, and the [`Network`] that follows from it. Pure: no socket, no clock.

use super::network::{Device, Network, Wanted, XdpState};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_core::links::{Interface, Links, NextHop};

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub ifindex: u32,
    pub mac: Option<[u8; 6]>,
    pub mtu: u16,
    /// Parent's index and VLAN identifier of a VLAN device.
    pub vlan: Option<(u32, u16)>,
    /// Index of the bond it is a slave of.
    pub bond: Option<u32>,
    pub xdp: Option<XdpState>,
}

impl Link {
    /// The interface as something to attach to.
    pub fn device(&self) -> Device {
        Device {
            name: self.name.clone(),
            ifindex: self.ifindex,
            xdp: self.xdp,
        }
    }
}

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub ifindex: u32,
    pub address: IpAddr,
    pub resolution: Resolution,
}

/// What is known of a neighbour's MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Nothing, and the kernel has given up asking.
    None,
    /// Nothing yet: the kernel is asking.
    Pending,
    /// Known, and confirmed not long ago, or configured.
    Confirmed([u8; 6]),
    /// Known; the kernel is about to confirm it.
    Asking([u8; 6]),
    /// Known, not confirmed lately.
    Stale([u8; 6]),
    /// Known until the kernel began anew, as it does for all neighbours when our own MAC changes. Good until it is told
    /// another, or gives up: whoever has just been reached so is hardly gone.
    Former([u8; 6]),
}

impl Resolution {
    const fn mac(self) -> Option<[u8; 6]> {
        match self {
            Self::None | Self::Pending => None,
            Self::Confirmed(mac) | Self::Asking(mac) | Self::Stale(mac) | Self::Former(mac) => Some(mac),
        }
    }
}

/// The kernel's choice of way to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub ifindex: u32,
    /// Whose MAC to send to: the gateway, or the address itself.
    pub neighbour: IpAddr,
    pub source: IpAddr,
    /// The route's own MTU, if it has one.
    pub mtu: Option<u16>,
}

/// Everything the kernel has told us.
#[derive(Debug, Default)]
pub struct View {
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<(u32, IpAddr), Resolution>,
    routes: BTreeMap<IpAddr, Route>,
}

impl View {
    /// Starts over from a complete listing.
    pub fn replace(&mut self, links: Vec<Link>, neighbours: Vec<Neighbour>) {
        self.links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        self.neighbours = neighbours
            .into_iter()
            .map(|n| ((n.ifindex, n.address), n.resolution))
            .collect();
    }

    /// Whether anything changed.
    pub fn set_link(&mut self, link: Link) -> bool {
        let former = self.links.insert(link.ifindex, link.clone());
        former != Some(link)
    }

    /// Whether anything changed.
    pub fn remove_link(&mut self, ifindex: u32) -> bool {
        self.neighbours.retain(|(on, _), _| *on != ifindex);
        self.links.remove(&ifindex).is_some()
    }

    /// Whether what is published may change.
    pub fn set_neighbour(&mut self, neighbour: Neighbour) -> bool {
        let key = (neighbour.ifindex, neighbour.address);
        let former = self.neighbours.get(&key).copied().and_then(Resolution::mac);
        let resolution = match (neighbour.resolution, former) {
            (Resolution::Pending, Some(mac)) => Resolution::Former(mac),
            (resolution, _) => resolution,
        };
        self.neighbours.insert(key, resolution);
        former != resolution.mac() && self.is_next_hop(key)
    }

    /// Whether it is a next hop, which is then to be asked for.
    pub fn remove_neighbour(&mut self, neighbour: &Neighbour) -> bool {
        let key = (neighbour.ifindex, neighbour.address);
        let mac = self.neighbours.remove(&key).and_then(Resolution::mac);
        let next_hop = self.is_next_hop(key);
        if let (true, Some(mac)) = (next_hop, mac) {
            self.neighbours.insert(key, Resolution::Former(mac));
        }
        next_hop
    }

    /// The kernel's choice of way to each wanted address; one that is missing has none.
    pub fn set_routes(&mut self, routes: Vec<(IpAddr, Route)>) {
        self.routes = routes.into_iter().collect();
    }

    fn is_next_hop(&self, key: (u32, IpAddr)) -> bool {
        self.routes
            .values()
            .any(|route| (route.ifindex, route.neighbour) == key)
    }

    /// Next hops whose MAC is missing, and with `confirm` those that nobody has confirmed lately.
    pub fn to_resolve(&self, confirm: bool) -> BTreeSet<(u32, IpAddr)> {
        let keys = self.routes.values().map(|route| (route.ifindex, route.neighbour));
        keys.filter(|key| match self.neighbours.get(key) {
            None | Some(Resolution::None | Resolution::Pending | Resolution::Former(_)) => true,
            Some(Resolution::Stale(_)) => confirm,
            Some(Resolution::Confirmed(_) | Resolution::Asking(_)) => false,
        })
        .collect()
    }

    /// What to publish.
    pub fn network(&self, wanted: &Wanted) -> Network {
        let mut interfaces: BTreeMap<String, Interface> = self
            .links
            .values()
            .filter_map(|link| Some((link.name.clone(), self.interface(link)?)))
            .collect();
        for (name, address) in &wanted.reach {
            let link = self
                .routes
                .get(address)
                .and_then(|route| self.links.get(&route.ifindex));
            if let Some(interface) = link.and_then(|link| self.interface(link)) {
                interfaces.insert(name.clone(), interface);
            }
        }
        let next_hops = wanted
            .nodes
            .iter()
            .filter_map(|address| Some((*address, self.next_hop(*address)?)))
            .collect();
        let devices = self
            .links
            .values()
            .filter(|link| link.vlan.is_none() && link.bond.is_none())
            .map(|link| (link.name.clone(), link.device()))
            .collect();
        Network {
            links: Links {
                taken: wanted
                    .interfaces
                    .iter()
                    .filter_map(|name| Some(interfaces.get(name)?.ifindex))
                    .collect(),
                interfaces,
                next_hops,
            },
            devices,
            wanted: wanted.clone(),
        }
    }

    /// `None` for what has no MAC, and for VLAN devices on VLAN devices.
    fn interface(&self, link: &Link) -> Option<Interface> {
        let (ifindex, vlan) = self.seen_on(link)?;
        let slaves = self.links.values().filter(|slave| slave.bond == Some(ifindex));
        Some(Interface {
            ifindex,
            vlan,
            mac: link.mac?,
            mtu: link.mtu,
            slaves: slaves.map(|slave| slave.ifindex).collect(),
        })
    }

    /// Index of the device whose programs see the link's packets, and the VLAN identifier they have there.
    fn seen_on(&self, link: &Link) -> Option<(u32, u16)> {
        let (carrier, vlan) = match link.vlan {
            None => (link, 0),
            Some((parent, vlan)) => (self.links.get(&parent)?, vlan),
        };
        if vlan != 0 && carrier.vlan.is_some() {
            return None;
        }
        let ifindex = match carrier.bond {
            None => carrier.ifindex,
            Some(bond) => self.links.get(&bond)?.ifindex,
        };
        Some((ifindex, vlan))
    }

    fn next_hop(&self, address: IpAddr) -> Option<NextHop> {
        let route = self.routes.get(&address)?;
        let interface = self.interface(self.links.get(&route.ifindex)?)?;
        let destination_mac = self.neighbours.get(&(route.ifindex, route.neighbour))?.mac()?;
        Some(NextHop {
            ifindex: interface.ifindex,
            vlan: interface.vlan,
            destination_mac,
            source_mac: interface.mac,
            source: route.source,
            mtu: route.mtu.map_or(interface.mtu, |mtu| mtu.min(interface.mtu)),
        })
    }
}

#[cfg(test)]
mod tests;
