//! Netlink messages into the few facts the view keeps. Pure.

use super::{
    network::XdpState,
    view::{Link, Neighbour, Resolution, Route},
};
use rtnetlink::packet_route::{
    AddressFamily,
    link::{
        InfoData, InfoPortKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, VlanProtocol, XdpAttached,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use std::net::IpAddr;

/// Whether the message is about an interface as such. A bridge tells of its ports in messages of its own family: they
/// leave out most of the interface, and "removed" says that it is no port any more.
pub fn is_of_interface(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// An interface; `None` when the message has no name, or is about something else.
pub fn link(message: &LinkMessage) -> Option<Link> {
    if !is_of_interface(message) {
        return None;
    }
    let mut link = Link {
        ifindex: message.header.index,
        ..Link::default()
    };
    let mut parent = None;
    let mut vlan = None;
    let mut controller = None;
    let mut bonded = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX),
            LinkAttribute::Link(ifindex) => parent = Some(*ifindex),
            LinkAttribute::Controller(ifindex) => controller = Some(*ifindex),
            LinkAttribute::LinkInfo(infos) => {
                vlan = infos.iter().find_map(vlan_id);
                bonded = infos.contains(&LinkInfo::PortKind(InfoPortKind::Bond));
            }
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
            _ => {}
        }
    }
    link.vlan = parent.zip(vlan);
    link.bond = controller.filter(|_| bonded);
    (!link.name.is_empty()).then_some(link)
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else {
        return None;
    };
    let foreign = attributes
        .iter()
        .any(|attribute| matches!(attribute, InfoVlan::Protocol(protocol) if *protocol != VlanProtocol::Ieee8021Q));
    let id = attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    });
    id.filter(|_| !foreign)
}

fn xdp(attributes: &[LinkXdp]) -> Option<XdpState> {
    let native = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::None) => None,
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(false),
        LinkXdp::Attached(_) => Some(true),
        _ => None,
    })?;
    let program = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })?;
    Some(XdpState { native, program })
}

/// A neighbour; `None` when it is no IP neighbour.
pub fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let resolution = match (message.header.state, mac) {
        (NeighbourState::Permanent | NeighbourState::Noarp | NeighbourState::Reachable, Some(mac)) => {
            Resolution::Confirmed(mac)
        }
        (NeighbourState::Delay | NeighbourState::Probe, Some(mac)) => Resolution::Asking(mac),
        (NeighbourState::Stale, Some(mac)) => Resolution::Stale(mac),
        (NeighbourState::Incomplete, _) => Resolution::Pending,
        _ => Resolution::None,
    };
    Some(Neighbour {
        ifindex: message.header.ifindex,
        address: address?,
        resolution,
    })
}

/// The way to `destination` that the kernel chose; `None` when it is this node or leads nowhere.
pub fn route(message: &RouteMessage, destination: IpAddr) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut ifindex = None;
    let mut gateway = None;
    let mut source = None;
    let mut mtu = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok().filter(|mtu| *mtu > 0),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route {
        ifindex: ifindex?,
        neighbour: gateway.unwrap_or(destination),
        source: source?,
        mtu,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::InfoKind;
    use std::net::Ipv4Addr;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    fn link_with(attributes: Vec<LinkAttribute>) -> Option<Link> {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = attributes;
        link(&message)
    }

    #[test]
    fn a_vlan_device_names_its_parent() {
        let vlan = InfoData::Vlan(vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Q), InfoVlan::Id(5)]);
        let found = link_with(vec![
            LinkAttribute::IfName("eth0.5".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Mtu(70_000),
            LinkAttribute::Link(2),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(vlan)]),
        ])
        .unwrap();
        assert_eq!((found.ifindex, found.vlan, found.mtu), (7, Some((2, 5)), u16::MAX));
        assert_eq!(found.mac, Some([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn a_veth_has_a_peer_and_no_parent() {
        let found = link_with(vec![LinkAttribute::IfName("veth0".into()), LinkAttribute::Link(3)]).unwrap();
        assert_eq!((found.vlan, found.mac), (None, None));
    }

    #[test]
    fn a_slave_names_its_bond_and_the_port_of_a_bridge_is_no_slave() {
        let found = |kind| {
            let info = LinkInfo::PortKind(kind);
            let attributes = vec![
                LinkAttribute::IfName("eth0".into()),
                LinkAttribute::Controller(5),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), info]),
            ];
            link_with(attributes).unwrap().bond
        };
        assert_eq!(found(InfoPortKind::Bond), Some(5));
        assert_eq!(found(InfoPortKind::Bridge), None);
    }

    #[test]
    fn what_a_bridge_says_of_its_ports_is_not_about_interfaces() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes = vec![LinkAttribute::IfName("eth0".into())];
        assert!(!is_of_interface(&message) && link(&message).is_none());
    }

    #[test]
    fn xdp_modes_are_told_apart() {
        let state = |attached| xdp(&[LinkXdp::Attached(attached), LinkXdp::ProgId(9)]);
        assert_eq!(
            state(XdpAttached::Driver),
            Some(XdpState {
                native: true,
                program: 9
            })
        );
        assert_eq!(
            state(XdpAttached::SocketBuffer),
            Some(XdpState {
                native: false,
                program: 9
            })
        );
        assert_eq!(state(XdpAttached::None), None);
        assert_eq!(xdp(&[]), None);
    }

    #[test]
    fn a_failed_neighbour_has_no_mac_even_if_it_had_one() {
        let resolution = |state| {
            let mut message = NeighbourMessage::default();
            message.header.ifindex = 2;
            message.header.state = state;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ADDRESS)),
                NeighbourAttribute::LinkLayerAddress(vec![9; 6]),
            ];
            neighbour(&message).unwrap().resolution
        };
        assert_eq!(resolution(NeighbourState::Failed), Resolution::None);
        assert_eq!(resolution(NeighbourState::Incomplete), Resolution::Pending);
        assert_eq!(resolution(NeighbourState::Reachable), Resolution::Confirmed([9; 6]));
        assert_eq!(resolution(NeighbourState::Probe), Resolution::Asking([9; 6]));
        assert_eq!(resolution(NeighbourState::Stale), Resolution::Stale([9; 6]));
    }

    #[test]
    fn a_route_leads_over_its_gateway_or_straight_there() {
        let destination = IpAddr::V4(ADDRESS);
        let route_with = |kind, gateway: Option<Ipv4Addr>| {
            let mut message = RouteMessage::default();
            message.header.kind = kind;
            message.attributes = vec![
                RouteAttribute::Oif(2),
                RouteAttribute::PrefSource(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 2))),
                RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
            ];
            message
                .attributes
                .extend(gateway.map(|v4| RouteAttribute::Gateway(RouteAddress::Inet(v4))));
            route(&message, destination)
        };
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let over = route_with(RouteType::Unicast, Some(gateway)).unwrap();
        assert_eq!((over.neighbour, over.mtu), (IpAddr::V4(gateway), Some(1400)));
        assert_eq!(route_with(RouteType::Unicast, None).unwrap().neighbour, destination);
        assert_eq!(route_with(RouteType::Local, None), None);
    }
}
