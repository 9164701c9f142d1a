//! Which address everything in the lab has. Both families follow one scheme.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | client | 10.99.0.2/24 | fd10:99::2/64 |
//! | router, client side | 10.99.0.1 | fd10:99::1 |
//! | stranger | 10.10.0.99 | fd10:10::99 |
//! | router, LAN side | 10.10.0.1/24 | fd10:10::1/64 |
//! | control plane | 10.10.0.5 | fd10:10::5 |
//! | node N | 10.10.0.1N | fd10:10::1N |
//! | router, second LAN | 10.11.0.1/24 | fd10:11::1/64 |
//! | node N, second LAN | 10.11.0.1N | fd10:11::1N |
//! | pod P of node N | 10.244.N.1P | fd10:244:N::1P |
//! | VIPs | 10.10.1.0/24 | fd10:10:1::/112 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
pub use weir_core::model::Family;

/// Both families, for what must hold in both.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Prefix length of one address.
pub fn host_length(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The network VIPs are taken from; the router treats it as directly connected to the LAN.
pub const fn vip_network(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.10.1.0/24",
        Family::V6 => "fd10:10:1::/112",
    }
}

/// Address number `host` of the VIP network.
pub fn vip(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 10, 1, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd10, 0x10, 1, 0, 0, 0, 0, host.into()).into(),
    }
}

/// The client.
pub fn client(family: Family) -> IpAddr {
    outside(family, 2)
}

/// Another address of the client's network, which the client may take besides its own.
pub fn second_client(family: Family) -> IpAddr {
    outside(family, 3)
}

/// The router on the client's side.
pub fn router_outside(family: Family) -> IpAddr {
    outside(family, 1)
}

/// The router on the LAN.
pub fn router(family: Family) -> IpAddr {
    lan(family, 1)
}

/// The Kubernetes control plane, where there is one.
pub fn control_plane(family: Family) -> IpAddr {
    lan(family, 5)
}

/// Node `number` on the LAN.
pub fn node(family: Family, number: u8) -> IpAddr {
    lan(family, own_host(family, number))
}

/// The router on the second LAN; see [`super::cable`].
pub fn second_router(family: Family) -> IpAddr {
    second_lan(family, 1)
}

/// Node `number` on the second LAN.
pub fn second(family: Family, number: u8) -> IpAddr {
    second_lan(family, own_host(family, number))
}

/// Somebody else on the LAN.
pub fn stranger(family: Family) -> IpAddr {
    lan(family, if family == Family::V4 { 99 } else { 0x99 })
}

/// MAC of the stranger.
pub const STRANGER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0xaa, 0xaa];

/// MAC of node `number`'s `eth0`.
pub const fn node_mac_bytes(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, number]
}

/// The same as `ip` prints it.
pub fn node_mac(number: u8) -> String {
    node_mac_bytes(number).map(|byte| format!("{byte:02x}")).join(":")
}

/// Pod `number` of node `node`.
pub fn pod(family: Family, node: u8, number: u8) -> IpAddr {
    in_pod_network(family, node, own_host(family, number))
}

/// What the pods of node `node` use as their gateway.
pub fn pod_gateway(family: Family, node: u8) -> IpAddr {
    match family {
        Family::V4 => in_pod_network(family, node, 1),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The network of node `node`'s pods, as a prefix.
pub fn pod_network(family: Family, node: u8) -> String {
    format!("{}/{}", in_pod_network(family, node, 0), network_length(family))
}

/// What holds the networks of all nodes' pods.
pub const fn all_pods(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "fd10:244::/32",
    }
}

/// Prefix length of the lab's networks.
pub fn network_length(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Host part of the address of node or pod `number`, so that it reads 1N in both notations.
fn own_host(family: Family, number: u8) -> u8 {
    match family {
        Family::V4 => 10 + number,
        Family::V6 => 0x10 + number,
    }
}

fn outside(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd10, 0x99, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

fn lan(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 10, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd10, 0x10, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

fn second_lan(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 11, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd10, 0x11, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

fn in_pod_network(family: Family, node: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, node, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd10, 0x244, node.into(), 0, 0, 0, 0, host.into()).into(),
    }
}
