//! What the packet path knows about the packet in hand.

use crate::{
    abi::PAST_OWNERS,
    addr::Address,
    decide::Found,
    hash::Tuple,
    parse::{Ip, Link, Transport},
    verdict::Reason,
};

/// What the packet path knows about the packet in hand.
///
/// It lives outside the stack because the kernel's is 512 bytes, and because values that come back from a map are just
/// numbers to the verifier: ways that differ only in where headers stand become one way after `settle`.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// Link layer.
    pub link: Link,
    /// Outermost IP layer.
    pub outer: Ip,
    /// The IP layer that is steered: the outermost, or the one in the tunnel.
    pub ip: Ip,
    /// The transport layer of the flow. Of an ICMP error, the ports of the flow that it is about.
    pub transport: Transport,
    /// What the packet is to its flow.
    pub part: Part,
    /// The client's address.
    pub client: Address,
    /// IP protocol of the flow.
    pub protocol: u8,
    /// Whether `ip` came in the tunnel.
    pub tunneled: bool,
    /// Nodes that passed it on.
    pub hops: u8,
    /// Flags of the tunnel's option, see [`crate::tunnel`].
    pub flags: u8,
    /// Offset of the IP header inside an ICMP error.
    pub quoted_l3: usize,
    /// Offset of the transport header inside an ICMP error.
    pub quoted_l4: usize,
    /// Selection hash of the flow.
    pub hash: u64,
    /// The backend that is to get it.
    pub chosen: Target,
    /// The backend its row had before; of a packet that asks, the one to return to; of one that comes back, the one to be
    /// asked next.
    pub second: Target,
    /// What came of asking for the flow.
    pub found: Found,
    /// Whether somebody would have to be asked and cannot be.
    pub blocked: bool,
    /// Ids of the backends that the flow's row has and had, the current one first; 0 is none.
    pub owners: [u32; 2 + PAST_OWNERS],
    /// Who may be asked next.
    pub candidate: Target,
    /// Where [`crate::decide::walk`] has come to.
    pub round: Round,
    /// The flow, from client to the backend in question.
    pub flow: Tuple,
    /// Where its entry is in `FLOWS`; see [`crate::flows`].
    pub place: u64,
    /// MTU of the tunnel for inner packets, when this one is too big for it.
    pub mtu: u16,
    /// Interface to send it on.
    pub out: u32,
    /// What was decided last.
    pub reason: Reason,
}

/// What a packet is to its flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// A packet of it, or the first fragment of one.
    #[default]
    Packet = 0,
    /// A later fragment: without transport header, so it never begins or ends a flow.
    Fragment = 1,
    /// An ICMP error about one of its packets.
    Error = 2,
}

/// A backend, and where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target {
    /// Its id; 0 when another node chose it.
    pub id: u32,
    /// Its address.
    pub address: Address,
    /// Its port, memory order.
    pub port: u16,
    /// Node id, [`Target::HERE`] or [`Target::NOWHERE`].
    pub place: u32,
}

/// The search for the next node to be asked about a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Hash of the tunnel address of the node that asks; 0 for this one.
    pub first: u64,
    /// The same of the node that was asked last in turn, or [`Round::HERE`]; 0 for the one that asks.
    pub last: u64,
    /// The same of the node that the packet comes back from; 0 for none.
    pub answered: u64,
    /// Id of the best candidate so far; 0 is none.
    pub next: u32,
    /// How far its node is from the first.
    pub distance: u64,
}

impl Round {
    /// [`Round::last`]: this node.
    pub const HERE: u64 = 1;
}

impl Target {
    /// No backend at all.
    pub const NOWHERE: u32 = 0;
    /// On this node.
    pub const HERE: u32 = u32::MAX;

    /// Copies this target to `to`, word by word: see [`Address::copy_to`].
    #[inline(always)]
    pub fn copy_to(&self, to: &mut Self) {
        to.id = self.id;
        self.address.copy_to(&mut to.address);
        to.port = self.port;
        to.place = self.place;
    }
}

impl Scratch {
    /// The flow's tuple, from the client to the VIP.
    #[inline(always)]
    #[must_use]
    pub fn tuple(&self) -> Tuple {
        Tuple {
            source: self.client,
            destination: self.ip.destination,
            source_port: self.transport.source_port,
            destination_port: self.transport.destination_port,
            protocol: self.protocol,
        }
    }

    /// Makes `flow` the packet's flow as the backend at `address` and `port` (memory order) sees it.
    #[inline(always)]
    pub fn aim(&mut self, address: Address, port: u16) {
        self.flow = Tuple {
            source: self.client,
            destination: address,
            source_port: self.transport.source_port,
            destination_port: port,
            protocol: self.protocol,
        };
    }

    /// Whether the packet may be the first of a flow that belongs to the row's current backend, whoever else was asked: a
    /// bare SYN.
    #[inline(always)]
    #[must_use]
    pub fn begins(&self) -> bool {
        self.part == Part::Packet && self.transport.is_bare_syn()
    }
}
