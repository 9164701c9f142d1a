//! What a sampled frame is, read by the packet path's own parser. Pure.

use bytemuck::{AnyBitPattern, NoUninit};
use std::net::{IpAddr, SocketAddr};
use weir_common::{
    abi::{SAMPLED_BYTES, Sample, protocol},
    packet::{Packet, ethertype, tcp_flag},
    parse::{self, Fragment, Ip, Transport},
    tunnel::{Header, Second},
};

/// The first bytes of a frame of some length.
struct Sampled<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl Packet for Sampled<'_> {
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T> {
        let bytes = self.bytes.get(at..at.checked_add(size_of::<T>())?)?;
        bytemuck::try_pod_read_unaligned(bytes).ok()
    }

    fn store<T: NoUninit>(&mut self, _at: usize, _value: T) {}

    fn holds(&self, end: usize) -> bool {
        end <= self.length
    }

    fn uncut_len(&self) -> Option<usize> {
        // Nothing else is as long.
        (self.length > usize::from(u16::MAX)).then_some(self.length)
    }

    fn adjust_head(&mut self, _by: i32) -> bool {
        false
    }

    fn set_len(&mut self, _len: usize) -> bool {
        false
    }
}

/// One IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Source, port 0 where there is none.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// Whether it is part of a packet only.
    pub fragment: bool,
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// An IP packet, in our tunnel or not.
    Ip {
        /// The packet, that in the tunnel if there is one.
        packet: Layer,
        /// The tunnel around it.
        tunnel: Option<Tunnel>,
    },
    /// Something else, by EtherType.
    Other(u16),
    /// Less than headers.
    Unreadable,
}

/// The outer packet of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Node it comes from.
    pub from: IpAddr,
    /// Node it goes to.
    pub to: IpAddr,
    /// The backend it is for.
    pub backend: SocketAddr,
}

/// Reads the frame of a sample, whose tunnel has UDP port `tunnel_port`.
#[must_use]
pub fn read(sample: &Sample, tunnel_port: u16) -> Contents {
    let bytes: &[u8] = bytemuck::cast_slice(&sample.frame);
    let packet = Sampled {
        bytes: bytes
            .get(..(sample.captured as usize).min(SAMPLED_BYTES))
            .unwrap_or_default(),
        length: sample.length as usize,
    };
    contents(&packet, tunnel_port).unwrap_or(Contents::Unreadable)
}

fn contents(packet: &Sampled<'_>, tunnel_port: u16) -> Option<Contents> {
    let link = parse::link(packet)?;
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return Some(Contents::Other(u16::from_be(link.ethertype)));
    }
    let (outer, l4) = layer(packet, link.l3, link.ethertype)?;
    if outer.protocol == protocol::UDP
        && outer.destination.port() == tunnel_port
        && let Some((inner, tunnel)) = tunnel(packet, &outer, l4)
    {
        return Some(Contents::Ip {
            packet: inner,
            tunnel: Some(tunnel),
        });
    }
    Some(Contents::Ip {
        packet: outer,
        tunnel: None,
    })
}

fn tunnel(packet: &Sampled<'_>, outer: &Layer, l4: usize) -> Option<(Layer, Tunnel)> {
    let header: Header = packet.load(l4)?;
    let long = header.check().ok()?;
    let inner = l4 + size_of::<Header>() + if long { size_of::<Second>() } else { 0 };
    let (inner, _) = layer(packet, inner, header.geneve.protocol)?;
    let backend = IpAddr::from(header.choice.backend.address());
    let tunnel = Tunnel {
        from: outer.source.ip(),
        to: outer.destination.ip(),
        backend: SocketAddr::new(backend, u16::from_be(header.choice.port)),
    };
    Some((inner, tunnel))
}

/// The IP packet at `l3`, and where what it carries begins.
fn layer(packet: &Sampled<'_>, l3: usize, ethertype: u16) -> Option<(Layer, usize)> {
    let mut read = Ip::default();
    parse::ip(packet, l3, ethertype, &mut read).ok()?;
    let mut transport = Transport::default();
    let has_ports = matches!(read.protocol, protocol::TCP | protocol::UDP) && read.fragment != Fragment::Later;
    if has_ports {
        // A sample may end before: then without ports.
        let _ = parse::transport(packet, &read, &mut transport);
    }
    let layer = Layer {
        source: SocketAddr::new(IpAddr::from(read.source), u16::from_be(transport.source_port)),
        destination: SocketAddr::new(IpAddr::from(read.destination), u16::from_be(transport.destination_port)),
        protocol: read.protocol,
        flags: transport.flags,
        fragment: read.fragment != Fragment::Whole,
    };
    Some((layer, read.l4))
}

/// The TCP flags that are set, as people write them.
#[must_use]
pub fn flag_names(flags: u8) -> String {
    let names = [
        (tcp_flag::SYN, "SYN"),
        (tcp_flag::FIN, "FIN"),
        (tcp_flag::RST, "RST"),
        (tcp_flag::ACK, "ACK"),
    ];
    let set = names
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(",")
}

/// Name of an IP protocol, or its number.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn sample_of(frame: &[u8]) -> Sample {
        let mut sample = Sample::zeroed();
        let captured = frame.len().min(SAMPLED_BYTES);
        for (to, from) in bytemuck::bytes_of_mut(&mut sample.frame).iter_mut().zip(frame) {
            *to = *from;
        }
        sample.length = frame.len() as u32;
        sample.captured = captured as u32;
        sample
    }

    /// Ethernet, IPv4 and TCP with a SYN from 192.0.2.7:4000 to 10.10.1.2:80.
    const SYN: [u8; 54] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 7, 10, 10, 1,
        2, 0x0f, 0xa0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ];

    #[test]
    fn a_plain_packet_shows_its_ends_and_flags() {
        let Contents::Ip { packet, tunnel: None } = read(&sample_of(&SYN), 6081) else {
            panic!("no packet");
        };
        assert_eq!(packet.source, "192.0.2.7:4000".parse().unwrap());
        assert_eq!(packet.destination, "10.10.1.2:80".parse().unwrap());
        assert_eq!((packet.protocol, &*flag_names(packet.flags)), (protocol::TCP, "SYN"));
    }

    #[test]
    fn what_is_cut_short_is_shown_as_far_as_it_goes() {
        assert_eq!(read(&sample_of(&SYN[..12]), 6081), Contents::Unreadable);
        assert_eq!(read(&sample_of(&SYN[..20]), 6081), Contents::Unreadable);
        let mut arp = SYN;
        arp[13] = 6;
        assert_eq!(read(&sample_of(&arp), 6081), Contents::Other(0x0806));
    }
}
