//! The one network that every golden case runs in: addresses, nodes, backends and frontends, for both families.
//!
//! This node has one NIC (interface 1: what `BPF_PROG_TEST_RUN` says the packet came in by). Every frontend of the VIP
//! stands for one situation and is told apart by its port; its backends are [`Target`]s. [`image`] turns it into tables.

mod fill;

pub use fill::image;

use super::frames::{Link, Mac, Previous, Steering};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use weir_common::abi::{Address, StackFlow};

/// The interface every frame arrives on or leaves by: loopback, as the kernel's test run has it.
pub const INTERFACE: u32 = 1;
/// Another interface of this node.
pub const OTHER_INTERFACE: u32 = 7;
/// VLAN identifier the VIPs are also owned on.
pub const VLAN: u16 = 100;
/// VLAN identifier of the way to [`Target::Tagged`]'s node.
pub const NODE_VLAN: u16 = 0x0321;
/// Seed of the selection hash.
pub const SELECTION_SEED: u64 = 0x5eed_0001;
/// The tunnel's UDP port.
pub const TUNNEL_PORT: u16 = 6081;
/// Largest MSS the egress program leaves in a SYN-ACK, IPv4 and IPv6.
pub const MSS: [u16; 2] = [1380, 1360];

/// Largest MSS the ingress program leaves in a SYN, both families.
pub const SYN_MSS: u16 = 1460;

/// The router (and so the clients, as this node sees them).
pub const ROUTER_MAC: Mac = [0x02, 0, 0, 0, 0xaa, 0x01];
/// This node's NIC.
pub const NODE_MAC: Mac = [0x02, 0, 0, 0, 0xbb, 0x01];
/// What this node answers with on [`VLAN`].
pub const VLAN_MAC: Mac = [0x02, 0, 0, 0, 0xbb, 0x64];
/// This node's other NIC.
pub const OTHER_MAC: Mac = [0x02, 0, 0, 0, 0xbb, 0x02];

/// Address family of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Suffix of case names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_v6(self) -> bool {
        self == Self::V6
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// Bytes of its header without options.
    #[must_use]
    pub fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    fn address(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from(v4)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(v6)),
        }
    }

    /// A client behind the router.
    #[must_use]
    pub fn client(self) -> IpAddr {
        self.address([203, 0, 113, 77], [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x77])
    }

    /// The VIP with all the frontends, owned on [`INTERFACE`] untagged and on [`VLAN`].
    #[must_use]
    pub fn vip(self) -> IpAddr {
        self.address([10, 10, 1, 2], [0xfd10, 0, 0, 0, 0, 0, 1, 2])
    }

    /// A VIP owned only on [`OTHER_INTERFACE`].
    #[must_use]
    pub fn vip_elsewhere(self) -> IpAddr {
        self.address([10, 10, 1, 3], [0xfd10, 0, 0, 0, 0, 0, 1, 3])
    }

    /// An address of nobody here, on the VIP's subnet.
    #[must_use]
    pub fn stranger(self) -> IpAddr {
        self.address([10, 10, 1, 250], [0xfd10, 0, 0, 0, 0, 0, 1, 0xfa])
    }

    /// This node's tunnel address.
    #[must_use]
    pub fn tunnel(self) -> IpAddr {
        self.address([10, 0, 0, 1], [0xfd00, 0, 0, 0, 0, 0, 0, 1])
    }

    /// An address that is no node.
    #[must_use]
    pub fn impostor(self) -> IpAddr {
        self.address([10, 0, 0, 200], [0xfd00, 0, 0, 0, 0, 0, 0, 0xc8])
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Where a backend runs. There is one backend for each target, family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On this node.
    Local,
    /// Also on this node.
    Neighbor,
    /// On a node on the same interface.
    Near,
    /// On another node on the same interface.
    Older,
    /// On a node on another interface.
    Far,
    /// On a node that cannot be reached now.
    Unreachable,
    /// On a node behind a small MTU.
    Narrow,
    /// On a node behind a VLAN tag.
    Tagged,
    /// On a node whose tunnel address is of the other family.
    Crossed,
}

impl Target {
    /// All, in the order of their ids.
    pub const ALL: [Self; 9] = [
        Self::Local,
        Self::Neighbor,
        Self::Near,
        Self::Older,
        Self::Far,
        Self::Unreachable,
        Self::Narrow,
        Self::Tagged,
        Self::Crossed,
    ];

    /// Whether it runs on this node.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Local | Self::Neighbor)
    }

    /// Its backend id.
    #[must_use]
    pub fn id(self, family: Family, protocol: Protocol) -> u32 {
        1 + self as u32 * 4 + u32::from(family.is_v6()) * 2 + u32::from(protocol == Protocol::Udp)
    }

    /// Where it listens.
    #[must_use]
    pub fn backend(self, family: Family, protocol: Protocol) -> SocketAddr {
        let n = self as u8;
        let port = match protocol {
            Protocol::Tcp => 8080,
            Protocol::Udp => 5353,
        };
        let address = family.address([10, 244, n, 10 + n], [0xfd24, 0x4400, u16::from(n), 0, 0, 0, 0, 0x10]);
        SocketAddr::new(address, port)
    }

    /// Family of the tunnel address of its node.
    #[must_use]
    pub fn underlay(self, family: Family) -> Family {
        if self == Self::Crossed { family.other() } else { family }
    }

    /// Id of its node; 0 on this node. Each node has a tunnel address of one family, so they come in pairs.
    #[must_use]
    pub fn node_id(self, family: Family) -> u32 {
        match self {
            Self::Local | Self::Neighbor => 0,
            Self::Crossed => Self::Near.node_id(family.other()),
            _ => 1 + self as u32 * 2 + u32::from(family.is_v6()),
        }
    }

    /// Tunnel address of its node.
    #[must_use]
    pub fn node(self, family: Family) -> IpAddr {
        match self {
            Self::Local | Self::Neighbor => family.tunnel(),
            Self::Crossed => Self::Near.node(family.other()),
            _ => {
                let n = self as u8 + 1;
                family.address([10, 0, 0, n], [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)])
            }
        }
    }

    /// MAC of the next hop to its node.
    #[must_use]
    pub fn next_hop(self, family: Family) -> Mac {
        match self {
            Self::Crossed => Self::Near.next_hop(family.other()),
            _ => [0x02, 0, 0, if family.is_v6() { 6 } else { 4 }, 0xcc, self as u8],
        }
    }

    /// The link header of a tunnel packet to its node.
    #[must_use]
    pub fn link(self, family: Family) -> Link {
        match self {
            Self::Far => Link::between(OTHER_MAC, self.next_hop(family)),
            Self::Tagged => Link::between(NODE_MAC, self.next_hop(family)).tagged(&[(0x8100, NODE_VLAN)]),
            _ => Link::between(NODE_MAC, self.next_hop(family)),
        }
    }

    /// MTU of the way to its node.
    #[must_use]
    pub fn mtu(self) -> u16 {
        if self == Self::Narrow { 640 } else { 1500 }
    }

    /// What a tunnel packet to it says.
    #[must_use]
    pub fn steering(self, family: Family, protocol: Protocol, hops: u8) -> Steering {
        Steering::to(self.backend(family, protocol), hops)
    }

    /// What a tunnel packet says about it as the previous backend.
    #[must_use]
    pub fn as_previous(self, family: Family, protocol: Protocol) -> Previous {
        Previous {
            backend: self.backend(family, protocol),
            node: self.node(family),
        }
    }
}

/// A port of the VIP, over TCP and over UDP, and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The port.
    pub port: u16,
    /// Its row's current backend.
    pub current: Option<Target>,
    /// Its row's previous backend.
    pub previous: Option<Target>,
}

macro_rules! frontends {
    ($($(#[doc = $doc:literal])+ $name:ident = $port:literal: $current:expr, $previous:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: Frontend =
            Frontend { port: $port, current: $current, previous: $previous };)+

        /// Every frontend of the VIP; the index is half the frontend id (TCP even, UDP odd), plus 96 for IPv6.
        pub const FRONTENDS: &[Frontend] = &[$($name),+];
    };
}

frontends! {
    /// A backend on this node.
    LOCAL = 80: Some(Target::Local), None;
    /// A backend on another node.
    REMOTE = 81: Some(Target::Near), None;
    /// A backend on a node on another interface.
    REDIRECTED = 82: Some(Target::Far), None;
    /// A backend on a node behind a VLAN tag.
    TAGGED = 83: Some(Target::Tagged), None;
    /// A backend on a node with a tunnel address of the other family.
    CROSSED = 84: Some(Target::Crossed), None;
    /// No backend.
    EMPTY = 85: None, None;
    /// A backend on a node that cannot be reached.
    UNREACHABLE = 86: Some(Target::Unreachable), None;
    /// A backend on a node behind a small MTU.
    NARROW = 87: Some(Target::Narrow), None;
    /// From one remote backend to another.
    MOVED = 88: Some(Target::Near), Some(Target::Older);
    /// From a remote backend to a local one.
    MOVED_HERE = 89: Some(Target::Local), Some(Target::Older);
    /// From a local backend to a remote one.
    MOVED_AWAY = 90: Some(Target::Near), Some(Target::Local);
    /// From one local backend to another.
    MOVED_INSIDE = 91: Some(Target::Local), Some(Target::Neighbor);
    /// The previous backend's node cannot be reached.
    MOVED_FROM_UNREACHABLE = 92: Some(Target::Near), Some(Target::Unreachable);
    /// From an unreachable node's backend to a local one.
    MOVED_HERE_FROM_UNREACHABLE = 93: Some(Target::Local), Some(Target::Unreachable);
    /// The last backend is gone.
    GONE = 94: None, Some(Target::Older);
    /// Changed several times: see [`PASTS`].
    DEEP = 95: Some(Target::Local), Some(Target::Older);
    /// The same, and one of those it had is on this node.
    DEEP_INSIDE = 96: Some(Target::Local), None;
    /// The same, behind one that cannot be reached.
    DEEP_BEHIND = 97: Some(Target::Local), Some(Target::Unreachable);
    /// This node's backend had it before the others.
    EARLIEST = 98: Some(Target::Near), Some(Target::Older);
    /// With affinity.
    AFFINE = 100: Some(Target::Near), None;
    /// With affinity, and a backend that takes no new flows.
    AFFINE_DRAINING = 101: Some(Target::Older), None;
    /// See [`POLICIES`] for these.
    ALLOWED = 102: Some(Target::Near), None;
    /// The client is not on the list.
    NOT_ALLOWED = 103: Some(Target::Near), None;
    /// The client is taken out of the list.
    ALL_BUT_ONE = 104: Some(Target::Near), None;
    /// The client is on the list.
    DENIED = 105: Some(Target::Near), None;
    /// The client is not on the list.
    NOT_DENIED = 106: Some(Target::Near), None;
    /// Few new flows.
    FEW_FLOWS = 107: Some(Target::Near), None;
    /// Few packets.
    FEW_PACKETS = 108: Some(Target::Near), None;
    /// Few new flows of each source.
    FEW_FLOWS_EACH = 109: Some(Target::Near), None;
    /// Few packets of each source.
    FEW_PACKETS_EACH = 110: Some(Target::Near), None;
    /// The stack has the flows of one client. No bit away from a port with limits, which mutants would use up.
    TAKEN_OVER = 144: Some(Target::Near), None;
    /// The stack has all of it for now.
    STANDING_BY = 160: Some(Target::Near), None;
}

/// What `HISTORY` has for the row of a frontend, by its port.
pub const PASTS: &[(u16, &[Target])] = &[
    (DEEP.port, &[Target::Unreachable, Target::Far, Target::Tagged]),
    (DEEP_INSIDE.port, &[Target::Near, Target::Neighbor]),
    (DEEP_BEHIND.port, &[Target::Far]),
    (EARLIEST.port, &[Target::Local]),
];

/// What a frontend is to refuse, or to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A client stays with its backend for so many ticks.
    Affinity(u32),
    /// Only these sources: the client, or somebody else.
    Allow(Source),
    /// Not these.
    Deny(Source),
    /// Two new flows at once.
    Flows,
    /// Two packets at once.
    Packets,
    /// Two new flows at once of one source.
    SourceFlows,
    /// Two packets at once of one source.
    SourcePackets,
    /// Some flows are the stack's.
    StackFlows,
    /// Everything is the stack's.
    Standby,
}

/// A source in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The network the client is in.
    Client,
    /// Another one.
    Stranger,
    /// The client's network, but for the client itself.
    AllButClient,
}

/// The policies of frontends, by port.
pub const POLICIES: &[(u16, Policy)] = &[
    (AFFINE.port, Policy::Affinity(5_000)),
    (AFFINE_DRAINING.port, Policy::Affinity(5_000)),
    (ALLOWED.port, Policy::Allow(Source::Client)),
    (NOT_ALLOWED.port, Policy::Allow(Source::Stranger)),
    (ALL_BUT_ONE.port, Policy::Allow(Source::AllButClient)),
    (DENIED.port, Policy::Deny(Source::Client)),
    (NOT_DENIED.port, Policy::Deny(Source::Stranger)),
    (FEW_FLOWS.port, Policy::Flows),
    (FEW_PACKETS.port, Policy::Packets),
    (FEW_FLOWS_EACH.port, Policy::SourceFlows),
    (FEW_PACKETS_EACH.port, Policy::SourcePackets),
    (TAKEN_OVER.port, Policy::StackFlows),
    (STANDING_BY.port, Policy::Standby),
];

/// The client's port in most cases. From it, it has flows to [`TAKEN_OVER`] that the stack has.
pub const CLIENT_PORT: u16 = 40_000;

/// What `STACK_FLOWS` has.
#[must_use]
pub fn stack_flows() -> BTreeSet<StackFlow> {
    let all = Family::BOTH
        .into_iter()
        .flat_map(|family| Protocol::BOTH.map(|protocol| (family, protocol)));
    all.map(|(family, protocol)| stack_flow(family, protocol, CLIENT_PORT, TAKEN_OVER))
        .collect()
}

/// The client's flow from `port` to a frontend, as `STACK_FLOWS` has it.
#[must_use]
pub fn stack_flow(family: Family, protocol: Protocol, port: u16, frontend: Frontend) -> StackFlow {
    StackFlow {
        client: address(family.client()),
        vip: address(family.vip()),
        client_port: port.to_be_bytes(),
        vip_port: frontend.port.to_be_bytes(),
        protocol: protocol.number(),
        reserved: [0; 3],
    }
}

/// What a second is in limiter units: long, so that none passes while a test runs.
pub const SECOND: u32 = 4_000_000_000;

/// A port of the VIP that is no frontend.
pub const CLOSED_PORT: u16 = 4444;

/// A frontend with several rows: its port, and the targets of its rows in order.
pub const SPREAD_PORT: u16 = 443;
/// Rows of [`SPREAD_PORT`].
pub const SPREAD: [Target; 4] = [Target::Local, Target::Near, Target::Far, Target::Older];

/// Frontend id of the frontend at `index` of [`FRONTENDS`].
#[must_use]
pub fn frontend_id(index: usize, family: Family, protocol: Protocol) -> u32 {
    index as u32 * 2 + u32::from(protocol == Protocol::Udp) + if family.is_v6() { 96 } else { 0 }
}

/// Index into `ROWS` of the first row of the frontend at `index` of [`FRONTENDS`] (one past the last: [`SPREAD_PORT`]).
#[must_use]
pub fn row_index(index: usize, family: Family, protocol: Protocol) -> u32 {
    let table = u32::from(family.is_v6()) * 2 + u32::from(protocol == Protocol::Udp);
    table * (FRONTENDS.len() + SPREAD.len()) as u32 + index as u32
}

/// An address as the maps hold it.
#[must_use]
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => Address {
            octets: v4.to_ipv6_mapped().octets(),
        },
        IpAddr::V6(v6) => Address { octets: v6.octets() },
    }
}
