//! One node: its own tables, over plain memory.

use crate::frame::{CLIENT, CLIENT_PORT, Frame, SERVICE_PORT, VIP, backend_address, node_address};
use std::collections::BTreeMap;
use weir_common::{
    abi::{
        self, BACKEND_LOCAL, Backend, CACHE_WAYS, Config, DirectoryEntry, FLOW_WAYS, FRAGMENT_WAYS, Flow, LIMITER_WAYS,
        PAST_OWNERS, Past, Responder, ResponderKey, Row, StackFlow, flow_state, kind, protocol,
    },
    addr::Address,
    decide::Found,
    hash::{self, Tuple},
    parse::{Ip, Link, Transport},
    scratch::{Part, Round, Scratch, Target},
    stages::Decisions,
    stages::Stages,
    tables::{CacheWords, FlowWords, FragmentWords, LimiterWords, SourceLimiterWords, Tables},
    tunnel,
    verdict::Reason,
    word::Word,
};

/// UDP port of the tunnel, memory order.
const TUNNEL_PORT: u16 = 6081_u16.to_be();
/// Ticks for which any flow is remembered: no clock moves here.
const LONG: u32 = 1000;
const NOW: u32 = 1_000_000;

/// What one node can do towards another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Send it anything.
    Open,
    /// Send it what is short, without a second backend.
    Narrow,
    /// Take its packets, but not send it any.
    Cut,
    /// Nothing: it does not know the node.
    Unknown,
}

/// A node's tables. Nodes and backends are numbered from 1, and these numbers are their ids on every node.
#[derive(Debug)]
pub struct Node {
    number: u32,
    config: Config,
    directory: BTreeMap<u32, DirectoryEntry>,
    row: Row,
    past: Past,
    backends: Vec<Backend>,
    nodes: Vec<abi::Node>,
    flows: [FlowWords; FLOW_WAYS],
}

impl Node {
    /// Node `number` of `count`, which can send to all others. Backend `b` is on node `places[b - 1]` and serves
    /// `protocol`. Nobody has the one row there is.
    pub fn new(number: u32, count: u32, places: &[u32], protocol: u8) -> Self {
        let mut node = Self {
            number,
            config: Config {
                half_open_ticks: LONG,
                established_ticks: LONG,
                udp_ticks: LONG,
                closed_ticks: LONG,
                tunnel_port: TUNNEL_PORT.to_ne_bytes(),
                ..Config::default()
            },
            directory: BTreeMap::new(),
            row: Row::default(),
            past: Past::default(),
            backends: vec![Backend::default()],
            nodes: vec![abi::Node::default(); count as usize + 1],
            flows: Default::default(),
        };
        node.enter(VIP, SERVICE_PORT, protocol, kind::FRONTEND, 1);
        node.enter(node_address(number), TUNNEL_PORT, protocol::UDP, kind::TUNNEL, 0);
        for (id, &place) in (1..).zip(places) {
            let local = place == number;
            node.backends.push(Backend {
                address: backend_address(id),
                port: SERVICE_PORT.to_ne_bytes(),
                protocol,
                flags: if local { BACKEND_LOCAL } else { 0 },
                node: if local { 0 } else { place },
                ..Backend::default()
            });
            if local {
                node.enter(backend_address(id), SERVICE_PORT, protocol, kind::BACKEND, id);
            }
        }
        for peer in (1..=count).filter(|&peer| peer != number) {
            node.set_path(peer, Path::Open);
        }
        node
    }

    fn enter(&mut self, address: Address, port: u16, protocol: u8, kind: u8, id: u32) {
        let entry = DirectoryEntry {
            address,
            port: port.to_ne_bytes(),
            protocol,
            kind,
            id,
            ..DirectoryEntry::default()
        };
        let before = self.directory.insert(slot(address, port, protocol), entry);
        assert!(before.is_none_or(|before| before == entry), "two entries want one slot");
    }

    /// What this node can do towards node `peer`.
    pub fn set_path(&mut self, peer: u32, path: Path) {
        let address = node_address(peer);
        self.nodes[peer as usize] = abi::Node::default();
        if path == Path::Unknown {
            self.directory.remove(&slot(address, 0, protocol::ANY));
            return;
        }
        self.enter(address, 0, protocol::ANY, kind::PEER, peer);
        self.nodes[peer as usize] = abi::Node {
            address,
            source: node_address(self.number),
            ifindex: u32::from(path != Path::Cut),
            mtu: match path {
                Path::Narrow => (tunnel::overhead(false, true) + Frame::IP_LEN) as u16 - 1,
                _ => 1500,
            },
            ..abi::Node::default()
        };
    }

    /// Who has and had the row, the current backend first. More than fit are forgotten.
    pub fn set_owners(&mut self, owners: &[u32]) {
        let mut all = [0; 2 + PAST_OWNERS];
        all.iter_mut().zip(owners).for_each(|(place, &owner)| *place = owner);
        let [current, previous, past @ ..] = all;
        self.row = Row { current, previous };
        self.past = Past { owners: past };
    }

    /// The client's flow is proven to be one of backend `id`, which is on this node.
    pub fn know(&self, id: u32) {
        let backend = &self.backends[id as usize];
        let flow = Flow {
            client: CLIENT,
            pod: backend.address,
            vip: VIP,
            client_port: CLIENT_PORT.to_ne_bytes(),
            pod_port: backend.port,
            vip_port: SERVICE_PORT.to_ne_bytes(),
            protocol: backend.protocol,
            state: if backend.protocol == protocol::TCP {
                flow_state::ESTABLISHED
            } else {
                flow_state::UDP
            },
            last_seen: NOW,
            ..Flow::default()
        };
        let words: [u64; 8] = bytemuck::must_cast(flow);
        self.flows[0]
            .iter()
            .zip(words)
            .for_each(|(word, value)| word.store(value));
    }
}

fn slot(address: Address, port: u16, protocol: u8) -> u32 {
    hash::slot(hash::directory(hash::address(&address), port, protocol), 0)
}

impl Decisions for Node {
    type Scratch = Box<Scratch>;

    /// Nothing of what is in there may matter.
    fn scratch(&self) -> Option<Box<Scratch>> {
        let target = Target::default();
        Some(Box::new(Scratch {
            link: Link::default(),
            outer: Ip::default(),
            ip: Ip::default(),
            transport: Transport::default(),
            part: Part::Error,
            client: VIP,
            protocol: u8::MAX,
            tunneled: true,
            hops: u8::MAX,
            flags: u8::MAX,
            quoted_l3: 0,
            quoted_l4: 0,
            hash: 0,
            chosen: target,
            second: target,
            found: Found::Known,
            blocked: true,
            owners: [u32::MAX; 2 + PAST_OWNERS],
            candidate: target,
            round: Round::default(),
            flow: Tuple::default(),
            place: 0,
            mtu: 0,
            out: 0,
            reason: Reason::NotIp,
        }))
    }
}

impl Stages<Frame> for Node {}

/// One frontend with one row, one bucket of flows; no cache, no fragments, no limits.
impl Tables for Node {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn read_only(&self) -> bool {
        false
    }

    fn filter(&self, _index: u32) -> u64 {
        u64::MAX
    }

    fn displacement(&self, _index: u32) -> u32 {
        0
    }

    fn directory(&self, slot: u32) -> Option<&DirectoryEntry> {
        self.directory.get(&slot)
    }

    fn row(&self, _index: u32) -> Option<Row> {
        Some(self.row)
    }

    fn past(&self, _index: u32) -> Option<&Past> {
        Some(&self.past)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }

    fn node(&self, id: u32) -> Option<&abi::Node> {
        self.nodes.get(id as usize)
    }

    fn responder(&self, _key: &ResponderKey) -> Option<Responder> {
        None
    }

    fn source(&self, _id: u32, _address: &Address) -> u32 {
        abi::source::UNKNOWN
    }

    fn stack_flow(&self, _flow: &StackFlow) -> bool {
        false
    }

    fn note_stack_flow(&self, _flow: &StackFlow) {}

    fn flows(&self, _index: u32) -> Option<&[FlowWords; FLOW_WAYS]> {
        Some(&self.flows)
    }

    fn cache(&self, _index: u32) -> Option<&[CacheWords; CACHE_WAYS]> {
        None
    }

    fn fragments(&self, _index: u32) -> Option<&[FragmentWords; FRAGMENT_WAYS]> {
        None
    }

    fn limiter(&self, _id: u32) -> Option<&LimiterWords> {
        None
    }

    fn source_limiters(&self, _index: u32) -> Option<&[SourceLimiterWords; LIMITER_WAYS]> {
        None
    }

    fn answered(&self) -> Option<&Word> {
        None
    }

    fn jiffies(&self) -> u64 {
        u64::from(NOW) << 6
    }

    fn count_frontend(&self, _id: u32, _bytes: u64, _syn: bool) {}

    fn count_backend(&self, _id: u32, _bytes: u64) {}

    fn count_flow(&self, _id: u32) {}
}
