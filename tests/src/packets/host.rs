//! The host harness: the packet path over plain memory.

use super::image::Image;
use super::runner::{Counts, Flows, Outcome, Program, Runner};
use super::world::{self, INTERFACE};
use anyhow::Context;
use bytemuck::{AnyBitPattern, NoUninit, Zeroable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use weir_common::abi::{
    Backend, CACHE_WAYS, CacheBucket, CacheEntry, Config, DirectoryEntry, FLOW_WAYS, FRAGMENT_BUCKETS, FRAGMENT_WAYS,
    Flow, FlowBucket, HELD_FRAME, LIMITER_WAYS, Node, PAST_OWNERS, Past, Responder, ResponderKey, Row,
    SOURCE_LIMITER_BUCKETS, SourcePrefix, StackFlow, source,
};
use weir_common::addr::Address;
use weir_common::decide::Found;
use weir_common::hash::Tuple;
use weir_common::packet::{Hold, Packet};
use weir_common::parse::{Fragment, Ip, Link, MAX_OFFSET, Transport};
use weir_common::scratch::{Part, Round, Scratch, Target};
use weir_common::stages::{Decisions, Stages};
use weir_common::tables::{CacheWords, FlowWords, FragmentWords, LimiterWords, SourceLimiterWords, Tables};
use weir_common::verdict::Reason;
use weir_common::word::Word;
use weir_common::{egress, ingress};

/// Bytes that stand where the kernel promises nothing, so that a use of them is seen.
const UNDEFINED: u8 = 0xa5;
/// Room before a frame, as XDP has it (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// A frame in memory with room before it.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    headroom: usize,
    hold: Hold,
    uncut: bool,
}

impl Frame {
    /// A frame with `headroom` bytes free before it.
    #[must_use]
    pub fn new(bytes: &[u8], headroom: usize) -> Self {
        Self {
            bytes: bytes.to_vec(),
            headroom,
            hold: Hold::Held,
            uncut: false,
        }
    }
}

impl Packet for Frame {
    fn load<T: AnyBitPattern>(&self, at: usize) -> Option<T> {
        assert!(
            at <= MAX_OFFSET,
            "the kernel shell counts on no access beyond {MAX_OFFSET}, here is one at {at}"
        );
        let bytes = self.bytes.get(at..at + size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn store<T: NoUninit>(&mut self, at: usize, value: T) {
        assert!(
            at <= MAX_OFFSET,
            "the kernel shell counts on no access beyond {MAX_OFFSET}, here is one at {at}"
        );
        if let Some(bytes) = self.bytes.get_mut(at..at + size_of::<T>()) {
            bytes.copy_from_slice(bytemuck::bytes_of(&value));
        }
    }

    fn holds(&self, end: usize) -> bool {
        end <= self.bytes.len()
    }

    fn uncut_len(&self) -> Option<usize> {
        self.uncut.then_some(self.bytes.len())
    }

    fn adjust_head(&mut self, by: i32) -> bool {
        let size = by.unsigned_abs() as usize;
        if by >= 0 {
            // The kernel keeps an Ethernet header's worth.
            if size + 14 > self.bytes.len() {
                return false;
            }
            self.bytes.drain(..size);
            self.headroom += size;
        } else {
            if size > self.headroom {
                return false;
            }
            self.bytes.splice(0..0, std::iter::repeat_n(UNDEFINED, size));
            self.headroom -= size;
        }
        true
    }

    fn set_len(&mut self, len: usize) -> bool {
        if len < 14 {
            return false;
        }
        self.bytes.resize(len, UNDEFINED);
        true
    }

    fn hold(&self) -> Hold {
        if self.bytes.len() > HELD_FRAME {
            return Hold::NoRoom;
        }
        self.hold
    }
}

const UNPOISONED: &str = "no test goes on after a panic";

/// (packets, bytes, SYNs) by id.
type Counters = Mutex<BTreeMap<u32, (u64, u64, u64)>>;

/// The tables in memory.
#[derive(Debug)]
pub struct HostTables {
    image: Image,
    flows: Vec<[FlowWords; FLOW_WAYS]>,
    cache: Vec<[CacheWords; CACHE_WAYS]>,
    fragments: Vec<[FragmentWords; FRAGMENT_WAYS]>,
    limiters: Vec<LimiterWords>,
    source_limiters: Vec<[SourceLimiterWords; LIMITER_WAYS]>,
    answered: Word,
    stack_flows: Mutex<BTreeSet<StackFlow>>,
    jiffies: u64,
    frontends: Counters,
    backends: Counters,
}

impl HostTables {
    fn new(image: Image) -> Self {
        let flows = (0..Image::FLOW_BUCKETS).map(|_| Default::default()).collect();
        let cache = (0..Image::CACHE_BUCKETS).map(|_| Default::default()).collect();
        Self {
            image,
            flows,
            cache,
            fragments: (0..FRAGMENT_BUCKETS).map(|_| Default::default()).collect(),
            limiters: (0..Image::FRONTENDS).map(|_| Default::default()).collect(),
            source_limiters: (0..SOURCE_LIMITER_BUCKETS).map(|_| Default::default()).collect(),
            answered: Word::new(0),
            stack_flows: Mutex::new(world::stack_flows()),
            jiffies: 64_000_000,
            frontends: Counters::default(),
            backends: Counters::default(),
        }
    }
}

/// What another packet might have left: nothing that a decision may rest on.
fn leftovers() -> Scratch {
    const ADDRESS: Address = Address {
        octets: [UNDEFINED; 16],
    };
    const PORT: u16 = u16::from_ne_bytes([UNDEFINED; 2]);
    const NUMBER: u32 = u32::from_ne_bytes([UNDEFINED; 4]);
    let ip = Ip {
        source: ADDRESS,
        destination: ADDRESS,
        l3: 14,
        l4: 34,
        len: 60,
        v6: true,
        protocol: UNDEFINED,
        tos: UNDEFINED,
        checksum: PORT,
        fragment: Fragment::Later,
        fragment_id: NUMBER,
        fragment_offset: PORT,
        dont_fragment: true,
    };
    let target = Target {
        id: NUMBER,
        address: ADDRESS,
        port: PORT,
        place: Target::HERE,
    };
    Scratch {
        link: Link {
            l3: 18,
            ethertype: PORT,
            vlan: PORT,
        },
        outer: ip,
        ip,
        transport: Transport {
            source_port: PORT,
            destination_port: PORT,
            checksum: PORT,
            checksum_at: 50,
            flags: UNDEFINED,
            sequence: NUMBER,
            acknowledgment: NUMBER,
            udp: true,
        },
        part: Part::Error,
        client: ADDRESS,
        protocol: UNDEFINED,
        tunneled: true,
        hops: UNDEFINED,
        flags: UNDEFINED,
        quoted_l3: 50,
        quoted_l4: 70,
        hash: u64::from_ne_bytes([UNDEFINED; 8]),
        chosen: target,
        second: target,
        candidate: target,
        round: Round {
            first: NUMBER.into(),
            last: NUMBER.into(),
            answered: NUMBER.into(),
            next: NUMBER,
            distance: NUMBER.into(),
        },
        owners: [NUMBER; 2 + PAST_OWNERS],
        found: Found::Known,
        blocked: true,
        place: u64::from_ne_bytes([UNDEFINED; 8]),
        flow: Tuple {
            source: ADDRESS,
            destination: ADDRESS,
            source_port: PORT,
            destination_port: PORT,
            protocol: UNDEFINED,
        },
        mtu: PORT,
        out: NUMBER,
        reason: Reason::NotIp,
    }
}

impl Decisions for HostTables {
    type Scratch = Box<Scratch>;

    fn scratch(&self) -> Option<Box<Scratch>> {
        Some(Box::new(leftovers()))
    }
}

impl Stages<Frame> for HostTables {}

impl Tables for HostTables {
    fn read_only(&self) -> bool {
        false
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.image.config)
    }

    fn filter(&self, index: u32) -> u64 {
        self.image.filter.get(index as usize).copied().unwrap_or(0)
    }

    fn displacement(&self, index: u32) -> u32 {
        self.image.displacement.get(index as usize).copied().unwrap_or(0)
    }

    fn directory(&self, slot: u32) -> Option<&DirectoryEntry> {
        self.image.directory.get(slot as usize)
    }

    fn row(&self, index: u32) -> Option<Row> {
        self.image.rows.get(index as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.image.backends.get(id as usize)
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.image.nodes.get(id as usize)
    }

    fn responder(&self, key: &ResponderKey) -> Option<Responder> {
        self.image.responders.get(key).copied()
    }

    fn stack_flow(&self, flow: &StackFlow) -> bool {
        self.stack_flows.lock().expect(UNPOISONED).contains(flow)
    }

    fn note_stack_flow(&self, flow: &StackFlow) {
        self.stack_flows.lock().expect(UNPOISONED).insert(*flow);
    }

    fn flows(&self, index: u32) -> Option<&[FlowWords; FLOW_WAYS]> {
        self.flows.get(index as usize)
    }

    fn cache(&self, index: u32) -> Option<&[CacheWords; CACHE_WAYS]> {
        self.cache.get(index as usize)
    }

    fn past(&self, index: u32) -> Option<&Past> {
        self.image.history.get(index as usize)
    }

    /// The longest prefix wins.
    fn source(&self, id: u32, address: &Address) -> u32 {
        let has = |prefix: &SourcePrefix, bits: u32| {
            let bits = bits as usize - 32;
            let (whole, rest) = (bits / 8, bits % 8);
            let tail = |octets: &[u8; 16]| if rest == 0 { 0 } else { octets[whole] >> (8 - rest) };
            prefix.frontend == id.to_be_bytes()
                && prefix.address[..whole] == address.octets[..whole]
                && tail(&prefix.address) == tail(&address.octets)
        };
        let found = self
            .image
            .sources
            .iter()
            .filter(|((bits, prefix), _)| has(prefix, *bits));
        found
            .max_by_key(|((bits, _), _)| *bits)
            .map_or(source::UNKNOWN, |(_, value)| *value)
    }

    fn fragments(&self, index: u32) -> Option<&[FragmentWords; FRAGMENT_WAYS]> {
        self.fragments.get(index as usize % self.fragments.len())
    }

    fn limiter(&self, id: u32) -> Option<&LimiterWords> {
        self.limiters.get(id as usize)
    }

    fn source_limiters(&self, index: u32) -> Option<&[SourceLimiterWords; LIMITER_WAYS]> {
        self.source_limiters.get(index as usize % self.source_limiters.len())
    }

    fn answered(&self) -> Option<&Word> {
        Some(&self.answered)
    }

    fn jiffies(&self) -> u64 {
        self.jiffies
    }

    fn count_frontend(&self, id: u32, bytes: u64, syn: bool) {
        let mut counters = self.frontends.lock().expect(UNPOISONED);
        let counter = counters.entry(id).or_default();
        *counter = (counter.0 + 1, counter.1 + bytes, counter.2 + u64::from(syn));
    }

    fn count_backend(&self, id: u32, bytes: u64) {
        let mut counters = self.backends.lock().expect(UNPOISONED);
        let counter = counters.entry(id).or_default();
        *counter = (counter.0 + 1, counter.1 + bytes, counter.2);
    }

    fn count_flow(&self, id: u32) {
        self.backends.lock().expect(UNPOISONED).entry(id).or_default().2 += 1;
    }
}

/// The packet path on the host.
#[derive(Debug)]
pub struct Host {
    tables: HostTables,
    /// Room before each frame; [`HEADROOM`] unless a test takes it away.
    pub headroom: usize,
    /// What becomes of fragments that are to be held.
    pub hold: Hold,
}

impl Host {
    /// Over these tables, without flows.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            tables: HostTables::new(image),
            headroom: HEADROOM,
            hold: Hold::Held,
        }
    }

    /// Runs one frame; several threads may, as CPUs do.
    #[must_use]
    pub fn process(&self, program: Program, bytes: &[u8]) -> Outcome {
        let mut frame = Frame {
            hold: self.hold,
            uncut: program == Program::EgressUncut,
            ..Frame::new(bytes, self.headroom)
        };
        let verdict = match program {
            Program::Ingress => ingress::process(&mut frame, &self.tables, INTERFACE),
            Program::Egress | Program::EgressUncut => egress::process(&mut frame, &self.tables),
        };
        Outcome {
            action: verdict.action,
            reason: verdict.reason,
            frame: frame.bytes,
        }
    }
}

impl Runner for Host {
    fn run(&mut self, program: Program, bytes: &[u8]) -> anyhow::Result<Outcome> {
        Ok(self.process(program, bytes))
    }

    fn sees_interfaces(&self) -> bool {
        true
    }

    fn flows(&mut self) -> anyhow::Result<Flows> {
        let flow = |words: &FlowWords| bytemuck::must_cast::<[u64; 8], Flow>(std::array::from_fn(|i| words[i].load()));
        let entry =
            |words: &CacheWords| bytemuck::must_cast::<[u64; 2], CacheEntry>([words[0].load(), words[1].load()]);
        let flows = self.tables.flows.iter().map(|bucket| FlowBucket {
            flows: bucket.each_ref().map(flow),
        });
        let cache = self.tables.cache.iter().map(|bucket| CacheBucket {
            entries: bucket.each_ref().map(entry),
        });
        Ok(Flows {
            flows: flows.collect(),
            cache: cache.collect(),
            stack_flows: self.tables.stack_flows.lock().expect(UNPOISONED).clone(),
        })
    }

    fn restore(&mut self, flows: &Flows) -> anyhow::Result<()> {
        let flow_words = self.tables.flows.iter().flatten().flatten();
        let cache_words = self.tables.cache.iter().flatten().flatten();
        let flows_before: &[u64] = bytemuck::must_cast_slice(&flows.flows);
        let cache_before: &[u64] = bytemuck::must_cast_slice(&flows.cache);
        flow_words
            .zip(flows_before)
            .for_each(|(word, &before)| word.store(before));
        cache_words
            .zip(cache_before)
            .for_each(|(word, &before)| word.store(before));
        self.tables
            .stack_flows
            .lock()
            .expect(UNPOISONED)
            .clone_from(&flows.stack_flows);
        Ok(())
    }

    fn forget_limits(&mut self) -> anyhow::Result<()> {
        let tables = &self.tables;
        let limits = tables.limiters.iter().flatten();
        let sources = tables.source_limiters.iter().flatten().flatten();
        let fragments = tables.fragments.iter().flatten().flatten();
        let all = limits.chain(sources).chain(fragments).chain([&tables.answered]);
        all.for_each(|word| word.store(0));
        Ok(())
    }

    fn set_row(&mut self, index: u32, row: Row) -> anyhow::Result<()> {
        *self.tables.image.rows.get_mut(index as usize).context("no such row")? = row;
        Ok(())
    }

    fn counts(&mut self) -> anyhow::Result<Counts> {
        let list = |counters: &Counters| {
            counters
                .lock()
                .expect(UNPOISONED)
                .iter()
                .map(|(&id, &(packets, bytes, syns))| (id, packets, bytes, syns))
                .collect()
        };
        Ok(Counts {
            frontends: list(&self.tables.frontends),
            backends: list(&self.tables.backends),
        })
    }
}

/// Flow tables without a flow, but for those that the world's stack has.
#[must_use]
pub fn no_flows() -> Flows {
    Flows {
        flows: vec![FlowBucket::zeroed(); Image::FLOW_BUCKETS as usize],
        cache: vec![CacheBucket::zeroed(); Image::CACHE_BUCKETS as usize],
        stack_flows: world::stack_flows(),
    }
}
