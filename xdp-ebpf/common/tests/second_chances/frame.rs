//! The client's frame, over plain memory, and the addresses in it.

use bytemuck::{AnyBitPattern, NoUninit, bytes_of};
use weir_common::{
    abi::protocol,
    addr::Address,
    packet::{Ethernet, Ipv4, Packet, Tcp, Udp, ethertype, tcp_flag},
};

/// The client.
pub const CLIENT: Address = Address::from_v4([192, 0, 2, 1]);
/// Its port, memory order.
pub const CLIENT_PORT: u16 = 40_000_u16.to_be();
/// The address it talks to.
pub const VIP: Address = Address::from_v4([10, 10, 1, 2]);
/// The port of VIP and backends, memory order.
pub const SERVICE_PORT: u16 = 80_u16.to_be();

const NODES: [u8; 3] = [10, 0, 0];
const BACKENDS: [u8; 3] = [10, 1, 0];

/// The tunnel address of a node.
pub fn node_address(number: u32) -> Address {
    address(NODES, number)
}

/// The address of a backend.
pub fn backend_address(id: u32) -> Address {
    address(BACKENDS, id)
}

fn address([a, b, c]: [u8; 3], last: u32) -> Address {
    Address::from_v4([a, b, c, u8::try_from(last).expect("there are few")])
}

/// What the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A segment in the midst of a TCP connection.
    Segment,
    /// A bare SYN.
    Syn,
    /// A datagram.
    Datagram,
}

impl Sent {
    /// Its IP protocol.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Segment | Self::Syn => protocol::TCP,
            Self::Datagram => protocol::UDP,
        }
    }
}

/// An Ethernet frame with any amount of room before it.
#[derive(Debug)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// Bytes of each IP packet of the client.
    pub const IP_LEN: usize = size_of::<Ipv4>() + size_of::<Tcp>();

    /// As it comes from the client. Checksums are left out: nobody on the way looks at them.
    pub fn from_client(sent: Sent) -> Self {
        let [.., source] = words(CLIENT);
        let [.., destination] = words(VIP);
        let ethernet = Ethernet {
            destination: [0; 3],
            source: [0; 3],
            ethertype: ethertype::IPV4,
        };
        let ip = Ipv4 {
            version_ihl: 0x45,
            tos: 0,
            total_len: (Self::IP_LEN as u16).to_be(),
            id: 0,
            fragment: 0,
            ttl: 64,
            protocol: sent.protocol(),
            checksum: 0,
            source,
            destination,
        };
        let mut bytes = [bytes_of(&ethernet), bytes_of(&ip)].concat();
        match sent {
            Sent::Datagram => bytes.extend(bytes_of(&Udp {
                source: CLIENT_PORT,
                destination: SERVICE_PORT,
                len: ((Self::IP_LEN - size_of::<Ipv4>()) as u16).to_be(),
                checksum: 0,
            })),
            Sent::Segment | Sent::Syn => bytes.extend(bytes_of(&Tcp {
                source: CLIENT_PORT,
                destination: SERVICE_PORT,
                flags: if sent == Sent::Syn {
                    tcp_flag::SYN
                } else {
                    tcp_flag::ACK
                },
                offset: 0x50,
                ..bytemuck::Zeroable::zeroed()
            })),
        }
        bytes.resize(size_of::<Ethernet>() + Self::IP_LEN, 0);
        Self(bytes)
    }

    /// The node that it is sent to, by its outermost header.
    pub fn node(&self) -> u32 {
        self.last_byte_of_destination(NODES)
    }

    /// The backend that it is for, by its outermost header.
    pub fn backend(&self) -> u32 {
        self.last_byte_of_destination(BACKENDS)
    }

    fn last_byte_of_destination(&self, network: [u8; 3]) -> u32 {
        let ip: Ipv4 = self.load(size_of::<Ethernet>()).expect("the path sends no less");
        let [a, b, c, last] = ip.destination.to_ne_bytes();
        assert_eq!([a, b, c], network);
        last.into()
    }
}

fn words(address: Address) -> [u32; 4] {
    bytemuck::must_cast(address)
}

impl Packet for Frame {
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T> {
        self.0.get(at..at + size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }

    fn store<T: NoUninit>(&mut self, at: usize, value: T) {
        if let Some(bytes) = self.0.get_mut(at..at + size_of::<T>()) {
            bytes.copy_from_slice(bytes_of(&value));
        }
    }

    fn holds(&self, end: usize) -> bool {
        end <= self.0.len()
    }

    fn adjust_head(&mut self, by: i32) -> bool {
        let size = by.unsigned_abs() as usize;
        if by < 0 {
            self.0.splice(0..0, std::iter::repeat_n(u8::MAX, size));
        } else {
            self.0.drain(..size);
        }
        true
    }

    fn set_len(&mut self, len: usize) -> bool {
        self.0.resize(len, 0);
        true
    }
}
