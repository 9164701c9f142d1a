//! What is known of the network, and the [`Network`] that follows from it. Pure: no socket, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_core::links::{Interface, Links, NextHop};

/// What the source is to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Tunnel addresses of other nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// Addresses by `can_reach:` name as written; the interface that leads there is published under that name.
    pub reach: BTreeMap<String, IpAddr>,
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
    pub fn reaches_all(&self, nodes: &BTreeSet<IpAddr>) -> bool {
        nodes.iter().all(|node| self.links.next_hops.contains_key(node))
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
            links: Links { interfaces, next_hops },
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
mod tests {
    use super::*;

    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn link(name: &str, ifindex: u32, vlan: Option<(u32, u16)>) -> Link {
        Link {
            name: name.into(),
            ifindex,
            mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
            mtu: 1500,
            vlan,
            bond: None,
            xdp: None,
        }
    }

    fn slave(name: &str, ifindex: u32, bond: u32) -> Link {
        Link {
            bond: Some(bond),
            ..link(name, ifindex, None)
        }
    }

    fn neighbour(ifindex: u32, resolution: Resolution) -> Neighbour {
        Neighbour {
            ifindex,
            address: GATEWAY,
            resolution,
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            nodes: [NODE].into(),
            reach: BTreeMap::new(),
        }
    }

    fn view(links: Vec<Link>, over: u32, resolution: Resolution) -> View {
        let mut view = View::default();
        view.replace(links, vec![neighbour(over, resolution)]);
        view.set_routes(vec![(
            NODE,
            Route {
                ifindex: over,
                neighbour: GATEWAY,
                source: SOURCE,
                mtu: None,
            },
        )]);
        view
    }

    #[test]
    fn a_next_hop_has_the_gateways_mac() {
        let network = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6])).network(&wanted());
        let hop = &network.links.next_hops[&NODE];
        assert_eq!(
            (hop.ifindex, hop.vlan, hop.destination_mac, hop.source),
            (2, 0, [9; 6], SOURCE)
        );
        assert!(network.reaches_all(&[NODE].into()));
    }

    #[test]
    fn a_vlan_device_leads_to_its_parent() {
        let links = vec![link("eth0", 2, None), link("eth0.7", 3, Some((2, 7)))];
        let network = view(links, 3, Resolution::Confirmed([9; 6])).network(&wanted());
        let hop = &network.links.next_hops[&NODE];
        assert_eq!((hop.ifindex, hop.vlan, hop.source_mac), (2, 7, [2, 0, 0, 0, 0, 3]));
        assert_eq!(
            network.device_of("eth0.7").map(|device| device.name.as_str()),
            Some("eth0")
        );
        assert!(!network.devices.contains_key("eth0.7"));
    }

    #[test]
    fn vlan_devices_on_vlan_devices_are_not_taken() {
        let links = vec![
            link("eth0", 2, None),
            link("eth0.7", 3, Some((2, 7))),
            link("eth0.7.8", 4, Some((3, 8))),
        ];
        let network = view(links, 2, Resolution::None).network(&wanted());
        assert!(network.device_of("eth0.7.8").is_none() && network.device_of("eth0.7").is_some());
    }

    #[test]
    fn a_bond_stands_for_its_slaves_and_its_packets_may_show_up_on_them() {
        let mut links = vec![link("bond0", 5, None), slave("eth0", 2, 5), slave("eth1", 3, 5)];
        links.push(link("bond0.7", 6, Some((5, 7))));
        let mut view = view(links, 6, Resolution::Confirmed([9; 6]));
        let network = view.network(&wanted());
        for name in ["bond0", "bond0.7", "eth0", "eth1"] {
            assert_eq!(
                network.device_of(name).map(|device| &*device.name),
                Some("bond0"),
                "{name}"
            );
            assert_eq!(network.links.interfaces[name].slaves, [2, 3].into(), "{name}");
        }
        assert!(!network.devices.contains_key("eth0"));
        let hop = &network.links.next_hops[&NODE];
        assert_eq!((hop.ifindex, hop.vlan), (5, 7));

        assert!(view.set_link(link("eth1", 3, None)), "it was let go");
        assert!(view.set_link(slave("eth9", 9, 5)), "and another one taken");
        let network = view.network(&wanted());
        assert_eq!(network.links.interfaces["bond0"].slaves, [2, 9].into());
        assert_eq!(network.device_of("eth1").map(|device| &*device.name), Some("eth1"));
        assert!(view.remove_link(9));
        assert_eq!(view.network(&wanted()).links.interfaces["bond0"].slaves, [2].into());
    }

    #[test]
    fn a_bond_that_is_not_known_yet_gives_nothing_to_attach_to() {
        let network = view(vec![slave("eth0", 2, 5)], 2, Resolution::None).network(&wanted());
        assert!(network.device_of("eth0").is_none() && network.devices.is_empty());
    }

    #[test]
    fn without_a_mac_there_is_no_next_hop_and_it_is_asked_for() {
        let view = view(vec![link("eth0", 2, None)], 2, Resolution::None);
        assert!(view.network(&wanted()).links.next_hops.is_empty());
        assert_eq!(view.to_resolve(false), [(2, GATEWAY)].into());
    }

    #[test]
    fn a_stale_mac_is_used_and_confirmed_now_and_then() {
        let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6]));
        assert!(view.to_resolve(false).is_empty());
        assert_eq!(view.to_resolve(true), [(2, GATEWAY)].into());
        assert!(
            !view.set_neighbour(neighbour(2, Resolution::Confirmed([9; 6]))),
            "the MAC is the same"
        );
        assert!(view.set_neighbour(neighbour(2, Resolution::Confirmed([8; 6]))));
        assert!(view.to_resolve(true).is_empty());
    }

    #[test]
    fn a_mac_is_used_until_the_kernel_knows_better() {
        let mac = |view: &View| {
            let network = view.network(&wanted());
            network.links.next_hops.get(&NODE).map(|hop| hop.destination_mac)
        };
        let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Confirmed([9; 6]));
        assert!(
            view.remove_neighbour(&neighbour(2, Resolution::None)),
            "it is to be asked for"
        );
        assert_eq!(
            (mac(&view), view.to_resolve(false)),
            (Some([9; 6]), [(2, GATEWAY)].into())
        );
        assert!(!view.set_neighbour(neighbour(2, Resolution::Pending)));
        assert_eq!(mac(&view), Some([9; 6]));
        assert!(view.set_neighbour(neighbour(2, Resolution::Confirmed([8; 6]))));
        assert_eq!(mac(&view), Some([8; 6]));
        assert!(view.set_neighbour(neighbour(2, Resolution::None)));
        assert_eq!(mac(&view), None);
        assert!(
            !view.set_neighbour(neighbour(2, Resolution::Pending)),
            "nothing is known to go on with"
        );
        assert_eq!(mac(&view), None);
    }

    #[test]
    fn neighbours_that_are_no_next_hop_change_nothing() {
        let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6]));
        let other = Neighbour {
            ifindex: 2,
            address: SOURCE,
            resolution: Resolution::Confirmed([7; 6]),
        };
        assert!(!view.set_neighbour(other));
    }

    #[test]
    fn a_removed_interface_takes_its_next_hops_along() {
        let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6]));
        assert!(view.remove_link(2));
        let network = view.network(&wanted());
        assert!(network.links.next_hops.is_empty() && network.devices.is_empty());
    }

    #[test]
    fn can_reach_names_the_interface_that_leads_there() {
        let reach = Wanted {
            nodes: BTreeSet::new(),
            reach: [("can_reach: 192.0.2.9".into(), NODE)].into(),
        };
        let network = view(vec![link("eth0", 2, None)], 2, Resolution::None).network(&reach);
        assert_eq!(network.links.interfaces["can_reach: 192.0.2.9"].ifindex, 2);
        assert_eq!(Wanted::parse_reach("can_reach: 192.0.2.9"), Some(NODE));
        assert_eq!(Wanted::parse_reach("eth0"), None);
    }
}
