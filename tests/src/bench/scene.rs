//! The network the benches run in: tables as the agent would fill them, and frames of its clients.
//!
//! One node with one NIC (interface 1, which is what `BPF_PROG_TEST_RUN` says), one other node, and one VIP per family
//! whose frontends differ by [`port`]. Flow number 0 is that of the frames made here; the wrapper makes the others of it.

mod many;
pub mod old;

use crate::packets::{
    frames::{Arp, Icmp, Ip, Link, Mac, Tcp, flag, solicitation},
    image::Image,
    world::Family,
};
use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map},
};
use bytemuck::{Pod, must_cast};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};
use weir::apply::bpf::mapped::Mapped;
use weir_common::abi::{
    Address, BACKEND_LOCAL, Backend, CACHE_BUCKETS, Config, DirectoryEntry, FLOW_BUCKETS, Node, Responder,
    ResponderKey, Row, RowRange, kind, protocol,
};

/// Ports of the VIP, one frontend each.
pub mod port {
    /// Its row has never changed; the backend is on the other node.
    pub const UNCHANGED: u16 = 80;
    /// Its row is in transition, from one backend of the other node to another.
    pub const CHANGED: u16 = 81;
    /// The backend is on this node.
    pub const LOCAL: u16 = 82;
    /// The backend is behind a tunnel that ends at this very node, which makes tunnel packets to decapsulate.
    pub const OURSELVES: u16 = 83;
    /// As [`CHANGED`], but no flow of it is in the cache.
    pub const UNKNOWN: u16 = 84;
    /// Its row is in transition, to the backend on this node from one of the other node.
    pub const HERE_NOW: u16 = 85;
}

/// Where the last four bytes of the client's address, and its port, stand in a frame from a client.
#[must_use]
pub fn client_offsets(family: Family) -> (u64, u64) {
    match family {
        Family::V4 => (14 + 12, 14 + 20),
        Family::V6 => (14 + 8 + 12, 14 + 40),
    }
}

const INTERFACE: u32 = 1;
const ROUTER: Mac = [2, 0, 0, 0, 0, 1];
const NODE: Mac = [2, 0, 0, 0, 0, 2];
const CLIENT_PORT: u16 = 0xc000;
const POD_PORT: u16 = 8080;
const TUNNEL_PORT: u16 = 6081;
const ETHERNET: usize = 14;
const TCP: usize = 20;

/// Last part of the addresses of this network; the client's last 24 bits are the flow's number.
#[derive(Clone, Copy)]
enum Host {
    Client,
    Foreign,
    Vip,
    Pod,
    RemotePod,
    FormerPod,
    Node,
    OtherNode,
}

fn address(family: Family, host: Host) -> IpAddr {
    let number = host as u8;
    match (family, host) {
        (Family::V4, Host::Client) => Ipv4Addr::new(10, 0, 0, 0).into(),
        (Family::V4, _) => Ipv4Addr::new(192, 0, 2, number).into(),
        (Family::V6, Host::Client) => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0x0a00, 0).into(),
        (Family::V6, _) => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number.into()).into(),
    }
}

fn wire(family: Family, host: Host) -> Address {
    match address(family, host) {
        IpAddr::V4(v4) => Address::from_v4(v4.octets()),
        IpAddr::V6(v6) => Address { octets: v6.octets() },
    }
}

/// A segment of flow 0 to the VIP, `length` bytes with its Ethernet header.
#[must_use]
pub fn client(family: Family, port: u16, flags: u8, length: usize) -> Vec<u8> {
    segment(family, (Host::Client, CLIENT_PORT), (Host::Vip, port), flags, length)
}

/// A segment to an address that is not ours.
#[must_use]
pub fn foreign(family: Family) -> Vec<u8> {
    let length = super::settings::SHORT_FRAME;
    segment(
        family,
        (Host::Client, CLIENT_PORT),
        (Host::Foreign, port::UNCHANGED),
        flag::ACK,
        length,
    )
}

/// What the local pod answers to flow 0.
#[must_use]
pub fn reply(family: Family) -> Vec<u8> {
    let length = super::settings::SHORT_FRAME;
    segment(
        family,
        (Host::Pod, POD_PORT),
        (Host::Client, CLIENT_PORT),
        flag::ACK,
        length,
    )
}

/// A segment of flow 0 to the first of many VIPs.
#[must_use]
pub fn client_of_many(family: Family, flags: u8) -> Vec<u8> {
    let length = super::settings::SHORT_FRAME;
    let tcp =
        Tcp::new(CLIENT_PORT, port::UNCHANGED, flags).payload(&vec![0; length - ETHERNET - family.header() - TCP]);
    let ip = Ip::between(address(family, Host::Client), many::vip(family, 0));
    Link::between(ROUTER, NODE).carry(&ip.carry(&tcp))
}

/// Both fragments of one segment of flow 0, the first one first.
#[must_use]
pub fn fragments(family: Family) -> [Vec<u8>; 2] {
    let tcp = Tcp::new(CLIENT_PORT, port::UNCHANGED, flag::ACK).payload(&[0; TCP + 2 * 4]);
    let ip = Ip::between(address(family, Host::Client), address(family, Host::Vip));
    let cut = |packet: &Vec<u8>| {
        let mut frame = Link::between(ROUTER, NODE).carry(packet);
        frame.resize(super::settings::SHORT_FRAME, 0);
        frame
    };
    let pieces = ip.cut(1, &tcp, &[TCP + 4]);
    [cut(&pieces[0]), cut(&pieces[1])]
}

/// A router says that a segment of the VIP's, to the client of flow 0, was too big; as long as a long frame.
#[must_use]
pub fn icmp_error(family: Family) -> Vec<u8> {
    let quoted = segment(
        family,
        (Host::Vip, port::UNCHANGED),
        (Host::Client, CLIENT_PORT),
        flag::ACK,
        super::settings::LONG_FRAME,
    );
    let (kind, code) = if family.is_v6() { (2, 0) } else { (3, 4) };
    // Ethernet, IP and eight bytes of ICMP are in front of what is quoted.
    let room = super::settings::LONG_FRAME - ETHERNET - family.header() - 8;
    let body = [&[0, 0, 5, 0], &quoted[ETHERNET..ETHERNET + room]].concat();
    let error = Icmp {
        code,
        ..Icmp::new(kind, &body)
    };
    let ip = Ip::between(address(family, Host::Foreign), address(family, Host::Vip));
    Link::between(ROUTER, NODE).carry(&ip.carry(&error))
}

/// What the local pod answers to flow 0's SYN; the client's segments acknowledge it.
#[must_use]
pub fn answer(family: Family) -> Vec<u8> {
    let tcp = Tcp::new(POD_PORT, CLIENT_PORT, flag::SYN | flag::ACK);
    // Builders acknowledge by default what follows this number.
    let acknowledged = tcp.acknowledgment;
    let tcp = tcp.sequence(acknowledged.wrapping_sub(1));
    let ip = Ip::between(address(family, Host::Pod), address(family, Host::Client));
    Link::between(NODE, ROUTER).carry(&ip.carry(&tcp))
}

fn segment(family: Family, from: (Host, u16), to: (Host, u16), flags: u8, length: usize) -> Vec<u8> {
    let payload = vec![0; length - ETHERNET - family.header() - TCP];
    let tcp = Tcp::new(from.1, to.1, flags).payload(&payload);
    Link::between(ROUTER, NODE).carry(&Ip::between(address(family, from.0), address(family, to.0)).carry(&tcp))
}

/// An ARP request, or a neighbour solicitation, for the VIP.
#[must_use]
pub fn question(family: Family) -> Vec<u8> {
    let link = Link::between(ROUTER, [0xff; 6]);
    let mut frame = match (address(family, Host::OtherNode), address(family, Host::Vip)) {
        (IpAddr::V4(asker), IpAddr::V4(vip)) => link.carry_as(0x0806, &Arp::request(ROUTER, asker, vip).bytes()),
        (asker, IpAddr::V6(vip)) => {
            let ip = Ip {
                ttl: 255,
                ..Ip::between(asker, vip.into())
            };
            link.carry(&ip.carry(&solicitation(vip, Some(ROUTER))))
        }
        (asker, vip) => unreachable!("{asker} and {vip} are of one family"),
    };
    frame.resize(super::settings::SHORT_FRAME, 0);
    frame
}

/// Fills the maps of the product's object.
pub fn fill(product: &mut Ebpf) -> Result<()> {
    let config = Config {
        selection_seed: 0x5eed,
        flow_seed: 0xf10f,
        flow_mask: FLOW_BUCKETS - 1,
        cache_mask: CACHE_BUCKETS - 1,
        half_open_ticks: 1 << 16,
        established_ticks: 1 << 16,
        udp_ticks: 1 << 16,
        closed_ticks: 1 << 16,
        fragment_ticks: 1 << 16,
        tunnel_port: TUNNEL_PORT.to_be_bytes(),
        mss_v4: 1380,
        mss_v6: 1360,
        ..Config::default()
    };
    put(product, "CONFIG", 0, must_cast::<Config, [u64; 8]>(config))?;
    let mut image = Image::new(config);
    for family in Family::BOTH {
        fill_family(product, &mut image, family)?;
    }
    put_directory(product, image)
}

/// Ids within a family; those of the second family follow those of the first.
const BACKENDS_OF_A_FAMILY: u32 = 4;
const FRONTENDS_OF_A_FAMILY: u32 = 6;
/// Rows of a frontend, all alike.
const ROWS: u32 = 1024;

fn fill_family(product: &mut Ebpf, image: &mut Image, family: Family) -> Result<()> {
    let index = u32::from(family.is_v6());
    let (other, ourselves) = (1 + 2 * index, 2 + 2 * index);
    let (node_address, other_address) = (wire(family, Host::Node), wire(family, Host::OtherNode));
    for (id, source, address) in [
        (other, node_address, other_address),
        (ourselves, other_address, node_address),
    ] {
        let node = Node {
            address,
            source,
            destination_mac: ROUTER,
            source_mac: NODE,
            ifindex: INTERFACE,
            mtu: 1500,
            ..Node::default()
        };
        put(product, "NODES", id, must_cast::<Node, [u64; 8]>(node))?;
    }

    let first = 1 + index * BACKENDS_OF_A_FAMILY;
    let (remote, former, local, looped) = (first, first + 1, first + 2, first + 3);
    for (id, host, node) in [
        (remote, Host::RemotePod, other),
        (former, Host::FormerPod, other),
        (local, Host::Pod, 0),
        (looped, Host::Pod, ourselves),
    ] {
        let backend = Backend {
            address: wire(family, host),
            port: POD_PORT.to_be_bytes(),
            protocol: protocol::TCP,
            flags: if node == 0 { BACKEND_LOCAL } else { 0 },
            node,
            reserved: [0; 8],
        };
        put(product, "BACKENDS", id, must_cast::<Backend, [u64; 4]>(backend))?;
    }

    let vip = wire(family, Host::Vip);
    let frontends = [
        (
            port::UNCHANGED,
            Row {
                current: remote,
                previous: 0,
            },
        ),
        (
            port::CHANGED,
            Row {
                current: remote,
                previous: former,
            },
        ),
        (
            port::LOCAL,
            Row {
                current: local,
                previous: 0,
            },
        ),
        (
            port::OURSELVES,
            Row {
                current: looped,
                previous: 0,
            },
        ),
        (
            port::UNKNOWN,
            Row {
                current: remote,
                previous: former,
            },
        ),
        (
            port::HERE_NOW,
            Row {
                current: local,
                previous: former,
            },
        ),
    ];
    for (id, (port, row)) in (index * FRONTENDS_OF_A_FAMILY..).zip(frontends) {
        let rows = RowRange {
            base: id * ROWS,
            mask: ROWS - 1,
        };
        for number in rows.base..=rows.base + rows.mask {
            put(product, "ROWS", number, must_cast::<Row, u64>(row))?;
        }
        image.add(vip, port, protocol::TCP, kind::FRONTEND, id, rows);
    }
    many::fill(product, image, family, remote)?;
    let none = RowRange::default();
    image.add(vip, 0, protocol::ANY, kind::VIP, 0, none);
    image.add(node_address, TUNNEL_PORT, protocol::UDP, kind::TUNNEL, 0, none);
    image.add(other_address, 0, protocol::ANY, kind::PEER, other, none);
    image.add(
        wire(family, Host::Pod),
        POD_PORT,
        protocol::TCP,
        kind::BACKEND,
        local,
        none,
    );

    let key = ResponderKey {
        address: vip,
        ifindex: INTERFACE,
        vlan: [0; 2],
        reserved: [0; 2],
    };
    let responder = Responder {
        mac: NODE,
        reserved: [0; 2],
    };
    let map = product
        .map_mut("RESPONDERS")
        .context("the object has no map RESPONDERS")?;
    let mut responders = HashMap::<_, [u64; 3], u64>::try_from(map)?;
    responders.insert(
        must_cast::<ResponderKey, [u64; 3]>(key),
        must_cast::<Responder, u64>(responder),
        0,
    )?;
    Ok(())
}

/// Writes the directory, its displacements and the filter.
fn put_directory(product: &mut Ebpf, mut image: Image) -> Result<()> {
    image.place();
    for (index, &word) in (0..).zip(&image.filter).filter(|(_, word)| **word != 0) {
        put(product, "FILTER", index, word)?;
    }
    for (index, &value) in (0..).zip(&image.displacement).filter(|(_, value)| **value != 0) {
        put(product, "DISPLACEMENT", index, value)?;
    }
    for (slot, entry) in (0..)
        .zip(&image.directory)
        .filter(|(_, entry)| entry.kind != kind::FREE)
    {
        put(
            product,
            "DIRECTORY",
            slot,
            must_cast::<DirectoryEntry, [u64; 8]>(*entry),
        )?;
    }
    Ok(())
}

fn put<V: aya::Pod>(product: &mut Ebpf, name: &str, index: u32, value: V) -> Result<()> {
    let map = product
        .map_mut(name)
        .with_context(|| format!("the object has no map {name}"))?;
    let mut array = Array::<_, V>::try_from(map).with_context(|| format!("map {name}"))?;
    array
        .set(index, value, 0)
        .with_context(|| format!("entry {index} of map {name}"))
}

/// An array of `entries` values of `T`, as memory.
fn mapped<T: Pod>(product: &Ebpf, name: &'static str, entries: u32) -> Result<Mapped<T>> {
    let map = product
        .map(name)
        .with_context(|| format!("the object has no map {name}"))?;
    let Map::Array(data) = map else {
        bail!("{name} is no array");
    };
    Ok(Mapped::open(name, data.fd().as_fd(), entries)?)
}
