//! The frame that is asked about, and frames as the packet path edits them. Pure.

use bytemuck::{AnyBitPattern, NoUninit, Zeroable, bytes_of};
use std::net::SocketAddr;
use weir_common::{
    abi::{Address, protocol},
    checksum,
    packet::{Ethernet, Ipv4, Ipv6, Packet, Tcp, Udp, WireAddress, ethertype, tcp_flag},
};

/// Bytes free before a frame, as XDP has it.
const HEADROOM: usize = 256;

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub from: SocketAddr,
    /// The VIP; of the same family.
    pub to: SocketAddr,
    /// [`protocol::TCP`] or [`protocol::UDP`].
    pub protocol: u8,
    /// Whether a TCP segment begins a connection; if not, it is one of its middle.
    pub syn: bool,
    /// Sequence number of a TCP segment; one of a known flow is not any.
    pub sequence: u32,
}

impl Question {
    /// The frame, without payload. Only headers are decided by, so transport checksums are left out.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let transport = self.transport();
        let (source, destination) = (self.from.ip(), self.to.ip());
        let v4 = destination.is_ipv4();
        // Locally administered, from one host to another.
        let [to_mac, from_mac] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
        let link = Ethernet {
            destination: bytemuck::must_cast::<[u8; 6], [u16; 3]>(to_mac),
            source: bytemuck::must_cast::<[u8; 6], [u16; 3]>(from_mac),
            ethertype: if v4 { ethertype::IPV4 } else { ethertype::IPV6 },
        };
        let mut frame = bytes_of(&link).to_vec();
        let (source, destination) = (
            WireAddress::from(Address::from(source)),
            WireAddress::from(Address::from(destination)),
        );
        if v4 {
            let mut header = Ipv4 {
                version_ihl: 0x45,
                total_len: ((size_of::<Ipv4>() + transport.len()) as u16).to_be(),
                ttl: 64,
                protocol: self.protocol,
                source: source.words[3],
                destination: destination.words[3],
                ..Ipv4::zeroed()
            };
            let words: [u32; size_of::<Ipv4>() / 4] = bytemuck::must_cast(header);
            header.checksum = !checksum::folded(words.iter().map(|word| u64::from(*word)).sum());
            frame.extend(bytes_of(&header));
        } else {
            let header = Ipv6 {
                version_class_flow: (6_u32 << 28).to_be(),
                payload_len: (transport.len() as u16).to_be(),
                next_header: self.protocol,
                hop_limit: 64,
                source,
                destination,
            };
            frame.extend(bytes_of(&header));
        }
        frame.extend(transport);
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let [source, destination] = [self.from, self.to].map(|end| end.port().to_be());
        if self.protocol == protocol::UDP {
            let header = Udp {
                source,
                destination,
                len: (size_of::<Udp>() as u16).to_be(),
                checksum: 0,
            };
            return bytes_of(&header).to_vec();
        }
        let header = Tcp {
            source,
            destination,
            sequence: self.sequence.to_be(),
            offset: 5 << 4,
            flags: if self.syn { tcp_flag::SYN } else { tcp_flag::ACK },
            window: u16::MAX,
            ..Tcp::zeroed()
        };
        bytes_of(&header).to_vec()
    }
}

/// A frame in memory with room before it.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    /// Where the frame begins in `bytes`.
    start: usize,
}

impl Frame {
    /// With these bytes.
    #[must_use]
    pub fn new(frame: &[u8]) -> Self {
        let mut bytes = vec![0; HEADROOM];
        bytes.extend(frame);
        Self { bytes, start: HEADROOM }
    }

    /// The frame now.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl Packet for Frame {
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T> {
        let bytes = self.bytes().get(at..at.checked_add(size_of::<T>())?)?;
        bytemuck::try_pod_read_unaligned(bytes).ok()
    }

    fn store<T: NoUninit>(&mut self, at: usize, value: T) {
        let at = self.start + at;
        if let Some(bytes) = self.bytes.get_mut(at..at + size_of::<T>()) {
            bytes.copy_from_slice(bytes_of(&value));
        }
    }

    fn holds(&self, end: usize) -> bool {
        end <= self.bytes().len()
    }

    fn adjust_head(&mut self, by: i32) -> bool {
        let start = self.start.checked_add_signed(by as isize);
        match start.filter(|start| start + size_of::<Ethernet>() <= self.bytes.len()) {
            Some(start) => self.start = start,
            None => return false,
        }
        true
    }

    fn set_len(&mut self, len: usize) -> bool {
        self.bytes.resize(self.start + len, 0);
        true
    }
}
