//! The short way, which most packets take: a plain TCP or UDP packet for a row whose backends, the one it has and the one it
//! had before, are on other nodes.
//!
//! Everything stays in registers, and nothing is written before all is decided. Whatever is out of the ordinary (a tag,
//! options, a fragment, a frontend with policies, a backend of this node, a node that cannot be reached) gives `None`, and
//! the long way of [`crate::ingress`], which knows all cases, starts over. The golden packets hold both to one answer.

use crate::{
    abi::{BACKEND_LOCAL, Backend, Node, kind, protocol},
    addr::Address,
    hash::{self, Tuple},
    lookup::Hashed,
    packet::{Ethernet, Ipv4, Ipv6, Packet, Tcp, Udp, tcp_flag},
    steer,
    tables::Tables,
    tunnel::{self, Encapsulation, Inner, Other, Outer},
    verdict::{Action, Reason, Verdict},
};

const L3: usize = size_of::<Ethernet>();

/// Takes an untagged IPv4 packet for `destination`.
#[inline(always)]
pub fn v4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    header: &Ipv4,
    destination: &Hashed,
) -> Option<Verdict> {
    // Anything but "don't fragment" and the reserved bit makes a fragment.
    if header.version_ihl != 0x45 || header.fragment & 0x3fff_u16.to_be() != 0 {
        return None;
    }
    let len = usize::from(u16::from_be(header.total_len));
    let inner = Inner {
        l3: L3,
        len,
        v6: false,
        tos: header.tos,
    };
    let source = Address::from_v4_word(header.source);
    send(packet, tables, ifindex, destination, source, header.protocol, &inner)
}

/// Takes an untagged IPv6 packet for `destination`.
#[inline(always)]
pub fn v6<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    header: &Ipv6,
    destination: &Hashed,
) -> Option<Verdict> {
    let first = u32::from_be(header.version_class_flow);
    let source = header.source.address();
    if first >> 28 != 6 || !tunnel::is_v6(&source) || !tunnel::is_v6(&destination.address) {
        return None;
    }
    let len = size_of::<Ipv6>() + usize::from(u16::from_be(header.payload_len));
    let inner = Inner {
        l3: L3,
        len,
        v6: true,
        tos: (first >> 20) as u8,
    };
    send(packet, tables, ifindex, destination, source, header.next_header, &inner)
}

/// `inner` is without options or extension headers, and from `source`.
#[inline(always)]
fn send<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    destination: &Hashed,
    source: Address,
    protocol: u8,
    inner: &Inner,
) -> Option<Verdict> {
    let ip_len = if inner.v6 { size_of::<Ipv6>() } else { size_of::<Ipv4>() };
    let l4 = L3 + ip_len;
    let (source_port, destination_port, l4_len, syn) = match protocol {
        protocol::TCP => {
            let tcp: Tcp = packet.load(l4)?;
            let syn = tcp.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
            (tcp.source, tcp.destination, size_of::<Tcp>(), syn)
        }
        protocol::UDP => {
            let udp: Udp = packet.load(l4)?;
            (udp.source, udp.destination, size_of::<Udp>(), false)
        }
        _ => return None,
    };
    // A group's link-layer address, and lengths that lie, are the long way's to tell.
    if packet.load::<u8>(0)? & 1 != 0 || inner.len < ip_len + l4_len || !packet.holds(L3 + inner.len) {
        return None;
    }
    let config = tables.config()?;
    let entry = destination.entry_of(tables, destination_port, protocol, kind::FRONTEND)?;
    if entry.policies != 0 || tables.read_only() {
        return None;
    }
    let tuple = Tuple {
        source,
        destination: destination.address,
        source_port,
        destination_port,
        protocol,
    };
    let hash = hash::tuple(config.selection_seed, &tuple);
    let row = tables.row(entry.rows.base.wrapping_add(hash as u32 & entry.rows.mask))?;
    // Nodes of the packets' own family, so that every length below is a constant.
    let outer = Outer { v6: inner.v6, l3: L3 };
    let (mut id, mut way) = (row.current, elsewhere(tables, row.current, outer)?);
    let mut second = None;
    if row.previous != 0 {
        let former = elsewhere(tables, row.previous, outer)?;
        if inner.len + tunnel::overhead(outer.v6, true) > usize::from(way.1.mtu.min(former.1.mtu)) {
            return None;
        }
        let mut previous = row.previous;
        if protocol == protocol::TCP {
            (id, previous) = steer::noted(tables, config, hash, syn, (id, previous));
        }
        if id == row.previous {
            way = former;
        }
        if previous != 0 {
            second = Some(Other {
                backend: &former.0.address,
                port: u16::from_ne_bytes(former.0.port),
                node: &former.1.address,
            });
        }
    }
    let (backend, node) = way;
    let encapsulation = Encapsulation {
        backend: backend.address.into(),
        backend_port: u16::from_ne_bytes(backend.port),
        node,
        outer,
        second,
        hops: 0,
        flags: 0,
        hash,
        port: u16::from_ne_bytes(config.tunnel_port),
    };
    if inner.len + encapsulation.overhead() > usize::from(node.mtu) {
        return None;
    }
    let action = if node.ifindex == ifindex {
        Action::Transmit
    } else {
        Action::Redirect(node.ifindex)
    };
    tables.count_frontend(entry.id, inner.len as u64, syn);
    if !encapsulation.apply(packet, inner) {
        // As in the long way: a segment of a connection is not for the stack.
        let continues = protocol == protocol::TCP && !syn;
        return Some(if continues {
            Verdict::drop(Reason::NoHeadroom)
        } else {
            Verdict::pass(Reason::NoHeadroom)
        });
    }
    tables.count_backend(id, inner.len as u64);
    Some(Verdict {
        action,
        reason: Reason::Tunnel,
    })
}

/// The backend with this id and its node, if it is on another node that can be reached with these outer headers.
#[inline(always)]
fn elsewhere<T: Tables>(tables: &T, id: u32, outer: Outer) -> Option<(&Backend, &Node)> {
    let backend = tables.backend(id).filter(|_| id != 0)?;
    if backend.protocol == protocol::ANY || backend.flags & BACKEND_LOCAL != 0 {
        return None;
    }
    let node = tables.node(backend.node)?;
    (node.ifindex != 0 && Outer::towards(node) == outer).then_some((backend, node))
}
