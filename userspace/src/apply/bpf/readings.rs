//! The pinned maps as the packet path's own [`Tables`], to be read: what the programs see, seen from here.

use super::{abi::Abi, config, error::Error, fill, flows, mapped::Mapped, pins::PinDir, seen::Seen};
use aya::maps::{HashMap, LpmTrie, Map, MapData, lpm_trie::Key};
use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    path::Path,
    rc::Rc,
};
use weir_common::{
    abi::{
        Backend, CACHE_WAYS, CacheBucket, Config, DirectoryEntry, FLOW_WAYS, FRAGMENT_WAYS, FlowBucket, LIMITER_WAYS,
        Node, PAST_OWNERS, Past, Responder, ResponderKey, Row, SourcePrefix, StackFlow, flow_state, protocol, source,
    },
    addr::Address,
    decide::Found,
    hash::Tuple,
    packet::Packet,
    parse::{Ip, Link, Transport},
    scratch::{Part, Round, Scratch, Target},
    stages::{Decisions, Stages},
    tables::{CacheWords, FlowWords, FragmentWords, LimiterWords, SourceLimiterWords, Tables},
    verdict::Reason,
    word::Word,
};

/// All maps that a decision rests on.
pub struct Readings {
    config: Config,
    filter: Mapped<u64>,
    displacement: Vec<u32>,
    directory: Seen<DirectoryEntry>,
    rows: Mapped<Row>,
    history: Seen<Past>,
    backends: Seen<Backend>,
    nodes: Seen<Node>,
    flows: Mapped<FlowBucket>,
    cache: Mapped<CacheBucket>,
    responders: HashMap<MapData, Abi<ResponderKey>, Abi<Responder>>,
    sources: LpmTrie<MapData, Abi<SourcePrefix>, u32>,
    stack_flows: HashMap<MapData, Abi<StackFlow>, u32>,
    /// What was known of the last packet at its end.
    last: Rc<Cell<Option<Scratch>>>,
}

impl std::fmt::Debug for Readings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readings")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Readings {
    /// Opens the maps pinned under `pin_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], [`Error::ValueSize`], [`Error::Mmap`].
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let pins = PinDir::new(pin_dir);
        let data = |name| MapData::from_pin(pins.map(name)).map_err(Error::map("open", name));
        let displacement: Mapped<u32> = fill::open(&pins, "DISPLACEMENT")?;
        Ok(Self {
            config: fill::read_config(&pins)?,
            filter: fill::open(&pins, "FILTER")?,
            displacement: (0..displacement.entries())
                .map(|index| displacement.load(index))
                .collect::<Result<_, _>>()?,
            directory: Seen::new(fill::open(&pins, "DIRECTORY")?),
            rows: fill::open(&pins, "ROWS")?,
            history: Seen::new(fill::open(&pins, "HISTORY")?),
            backends: Seen::new(fill::open(&pins, "BACKENDS")?),
            nodes: Seen::new(fill::open(&pins, "NODES")?),
            flows: fill::open(&pins, "FLOWS")?,
            cache: fill::open(&pins, "FLOW_CACHE")?,
            responders: HashMap::try_from(Map::HashMap(data("RESPONDERS")?))
                .map_err(Error::map("open", "RESPONDERS"))?,
            sources: LpmTrie::try_from(Map::LpmTrie(data("SOURCES")?)).map_err(Error::map("open", "SOURCES"))?,
            stack_flows: HashMap::try_from(Map::HashMap(data("STACK_FLOWS")?))
                .map_err(Error::map("open", "STACK_FLOWS"))?,
            last: Rc::default(),
        })
    }

    /// Where the client's stream is in the TCP flow from `client` to `vip` (addresses and ports, network order) that was
    /// heard of last, as [`weir_common::abi::Flow::number`] says it; 0 without one.
    #[must_use]
    pub fn number(&self, client: (Address, [u8; 2]), vip: (Address, [u8; 2])) -> u32 {
        number(&self.flows, client, vip, config::now())
    }

    /// What is asked next is answered by the maps as they are then.
    pub fn forget(&mut self) {
        self.directory.forget();
        self.history.forget();
        self.backends.forget();
        self.nodes.forget();
    }

    /// What was known at its end of the last packet that took the long way.
    pub fn last_scratch(&self) -> Option<Scratch> {
        self.last.take()
    }
}

/// [`Readings::number`] at tick `now`.
fn number(flows: &Mapped<FlowBucket>, client: (Address, [u8; 2]), vip: (Address, [u8; 2]), now: u32) -> u32 {
    let mine = flows::present(flows).filter(|flow| {
        flow.protocol == protocol::TCP
            && flow.state >= flow_state::ESTABLISHED
            && (flow.client, flow.client_port) == client
            && (flow.vip, flow.vip_port) == vip
    });
    let last = mine.min_by_key(|flow| now.wrapping_sub(flow.last_seen));
    last.map_or(0, |flow| flow.number)
}

/// A scratch that leaves its last contents behind.
#[derive(Debug)]
pub struct Leaving {
    scratch: Scratch,
    to: Rc<Cell<Option<Scratch>>>,
}

impl Deref for Leaving {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl DerefMut for Leaving {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.to.set(Some(self.scratch));
    }
}

impl Decisions for Readings {
    type Scratch = Leaving;

    fn scratch(&self) -> Option<Leaving> {
        let scratch = Scratch {
            link: Link::default(),
            outer: Ip::default(),
            ip: Ip::default(),
            transport: Transport::default(),
            part: Part::default(),
            client: Address::default(),
            protocol: 0,
            tunneled: false,
            hops: 0,
            flags: 0,
            quoted_l3: 0,
            quoted_l4: 0,
            hash: 0,
            chosen: Target::default(),
            second: Target::default(),
            owners: [0; 2 + PAST_OWNERS],
            found: Found::default(),
            blocked: false,
            candidate: Target::default(),
            round: Round::default(),
            flow: Tuple::default(),
            place: 0,
            mtu: 0,
            out: 0,
            reason: Reason::NotServed,
        };
        Some(Leaving {
            scratch,
            to: Rc::clone(&self.last),
        })
    }
}

impl<P: Packet> Stages<P> for Readings {}

impl Tables for Readings {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn read_only(&self) -> bool {
        true
    }

    fn filter(&self, index: u32) -> u64 {
        self.filter.load(index).unwrap_or(0)
    }

    fn displacement(&self, index: u32) -> u32 {
        self.displacement.get(index as usize).copied().unwrap_or(0)
    }

    fn directory(&self, slot: u32) -> Option<&DirectoryEntry> {
        self.directory.get(slot)
    }

    fn row(&self, index: u32) -> Option<Row> {
        self.rows.load(index).ok()
    }

    fn past(&self, index: u32) -> Option<&Past> {
        self.history.get(index)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id)
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id)
    }

    fn responder(&self, key: &ResponderKey) -> Option<Responder> {
        self.responders.get(&Abi(*key), 0).ok().map(|Abi(responder)| responder)
    }

    fn source(&self, id: u32, address: &Address) -> u32 {
        let prefix = SourcePrefix {
            frontend: id.to_be_bytes(),
            address: address.octets,
        };
        let key = Key::new(8 * size_of::<SourcePrefix>() as u32, Abi(prefix));
        self.sources.get(&key, 0).unwrap_or(source::UNKNOWN)
    }

    fn stack_flow(&self, flow: &StackFlow) -> bool {
        self.stack_flows.get(&Abi(*flow), 0).is_ok()
    }

    fn note_stack_flow(&self, _flow: &StackFlow) {}

    fn flows(&self, index: u32) -> Option<&[FlowWords; FLOW_WAYS]> {
        self.flows.shared(index)
    }

    fn cache(&self, index: u32) -> Option<&[CacheWords; CACHE_WAYS]> {
        self.cache.shared(index)
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
        config::jiffies()
    }

    fn count_frontend(&self, _id: u32, _bytes: u64, _syn: bool) {}

    fn count_backend(&self, _id: u32, _bytes: u64) {}

    fn count_flow(&self, _id: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::bpf::mapped::tests::anonymous;
    use weir_common::abi::Flow;

    #[test]
    fn the_number_is_that_of_the_flow_heard_of_last() {
        let (client, vip) = (
            (Address::from_v4([192, 0, 2, 1]), 4711_u16.to_be_bytes()),
            (Address::from_v4([10, 10, 1, 2]), 80_u16.to_be_bytes()),
        );
        let flow = |number: u32, last_seen: u32| Flow {
            client: client.0,
            client_port: client.1,
            vip: vip.0,
            vip_port: vip.1,
            protocol: protocol::TCP,
            state: flow_state::ESTABLISHED,
            number,
            last_seen,
            ..Flow::default()
        };
        let udp = Flow {
            protocol: protocol::UDP,
            ..flow(5, 99)
        };
        let being_written = Flow {
            state: flow_state::BUSY,
            ..flow(6, 99)
        };
        let of_another = Flow {
            vip_port: 443_u16.to_be_bytes(),
            ..flow(7, 99)
        };
        let all = [udp, flow(1, 90), being_written, flow(2, 98), of_another, flow(3, 91)];
        let mut map = anonymous::<FlowBucket>(4);
        for (index, group) in all.chunks(FLOW_WAYS).enumerate() {
            let mut bucket = FlowBucket::default();
            bucket.flows[..group.len()].copy_from_slice(group);
            let words: [u64; size_of::<FlowBucket>() / 8] = bytemuck::must_cast(bucket);
            map.store(index as u32, &words).unwrap();
        }
        assert_eq!(number(&map, client, vip, 100), 2);
        assert_eq!(number(&map, vip, client, 100), 0);
    }
}
