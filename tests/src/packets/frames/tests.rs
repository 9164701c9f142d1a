//! The builder against etherparse: what one writes the other reads, and both compute the same checksums.

use super::{Icmp, Ip, Link, Tcp, Udp, flag};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use std::net::IpAddr;

const V4: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9)),
];
const V6: [IpAddr; 2] = [
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9)),
];

/// (checksum in the segment, checksum etherparse computes) of every layer that has one.
fn checksums(frame: &[u8]) -> Vec<(u16, u16)> {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let mut found = Vec::new();
    match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(v4) => {
            let header = v4.header();
            found.push((header.header_checksum(), header.to_header().calc_header_checksum()));
            let (source, destination) = (header.source(), header.destination());
            match sliced.transport.as_ref().unwrap() {
                TransportSlice::Tcp(tcp) => {
                    found.push((tcp.checksum(), tcp.calc_checksum_ipv4(source, destination).unwrap()));
                }
                TransportSlice::Udp(udp) => {
                    let expected = udp
                        .to_header()
                        .calc_checksum_ipv4_raw(source, destination, udp.payload());
                    found.push((udp.checksum(), expected.unwrap()));
                }
                TransportSlice::Icmpv4(icmp) => {
                    found.push((icmp.header().checksum, icmp.icmp_type().calc_checksum(icmp.payload())));
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Ipv6(v6) => {
            let (source, destination) = (v6.header().source(), v6.header().destination());
            match sliced.transport.as_ref().unwrap() {
                TransportSlice::Tcp(tcp) => {
                    found.push((tcp.checksum(), tcp.calc_checksum_ipv6(source, destination).unwrap()));
                }
                TransportSlice::Udp(udp) => {
                    let expected = udp
                        .to_header()
                        .calc_checksum_ipv6_raw(source, destination, udp.payload());
                    found.push((udp.checksum(), expected.unwrap()));
                }
                TransportSlice::Icmpv6(icmp) => {
                    let expected = icmp.icmp_type().calc_checksum(source, destination, icmp.payload());
                    found.push((icmp.header().checksum, expected.unwrap()));
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Arp(arp) => panic!("{arp:?}"),
    }
    found
}

#[test]
fn etherparse_agrees_on_lengths_and_checksums() {
    let link = Link::between([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let tagged = link.tagged(&[(0x88a8, 0x2005), (0x8100, 0x0064)]);
    for [source, destination] in [V4, V6] {
        let mut ip = Ip::between(source, destination);
        let kind = if source.is_ipv6() { 128 } else { 8 };
        let echo = Icmp::new(kind, &[0, 1, 0, 2, b'p', b'i', b'n', b'g', b'!']);
        let tcp = Tcp::new(40_000, 80, flag::SYN)
            .options(&[2, 4, 5, 0xb4])
            .payload(b"odd");
        for _ in 0..2 {
            for frame in [
                link.carry(&ip.carry(&tcp)),
                tagged.carry(&ip.carry(&tcp)),
                link.carry(&ip.carry(&Udp::new(5, 53, b"query"))),
                link.carry(&ip.carry(&echo)),
            ] {
                for (written, computed) in checksums(&frame) {
                    assert_eq!(written, computed, "{frame:02x?}");
                }
            }
            ip.options = vec![1, 1, 1, 0];
            ip.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
        }
    }
}
