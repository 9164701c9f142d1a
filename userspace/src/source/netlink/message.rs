//! Netlink messages into the few facts the view keeps. Pure.

use super::view::{Link, Neighbour, Resolution, Route, XdpState};
use rtnetlink::packet_route::{
    link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, VlanProtocol, XdpAttached},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use std::net::IpAddr;

/// An interface; `None` when it has no name.
pub fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        ifindex: message.header.index,
        ..Link::default()
    };
    let mut parent = None;
    let mut vlan = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX),
            LinkAttribute::Link(ifindex) => parent = Some(*ifindex),
            LinkAttribute::LinkInfo(infos) => vlan = infos.iter().find_map(vlan_id),
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
            _ => {}
        }
    }
    link.vlan = parent.zip(vlan);
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
