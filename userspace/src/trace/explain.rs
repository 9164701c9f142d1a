//! Which map entries decide about a packet, by the packet path's own code over the maps as they are read here.

use super::{
    Question,
    packet::Frame,
    report::{BackendEntry, CacheEntry, DirectoryEntry, Explanation, FlowEntry, NodeEntry, RowEntry, WorkedOut},
};
use crate::{
    apply::bpf::{config, readings::Readings, sweep::STATES},
    report::Report,
};
use nix::net::if_::if_indextoname;
use std::net::SocketAddr;
use weir_common::{
    abi::{self, BACKEND_DRAINING, BACKEND_LOCAL, Backend, Config, Flow, flow_state, kind, policy, protocol},
    addr::Address,
    cache, flows,
    hash::Tuple,
    ingress,
    lookup::Hashed,
    scratch::{Scratch, Target},
    steer,
    tables::Tables,
    verdict::Reason,
    word::Word,
};

/// The interface that the kernel's test run lets a frame come in by: the loopback device.
const LOOPBACK: u32 = 1;

/// Works out what happens to the packet of `question`, and by which entries. `report` has the names of things.
#[must_use]
pub fn explain(question: &Question, tables: &Readings, report: Option<&Report>) -> Explanation {
    let mut frame = Frame::new(&question.frame());
    let verdict = ingress::process(&mut frame, tables, LOOPBACK);
    let scratch = tables.last_scratch();
    let names = Names { tables, report };
    let mut explanation = Explanation::new(question);
    explanation.worked_out = Some(WorkedOut {
        verdict,
        frame: frame.bytes().to_vec(),
    });
    let destination = Hashed::new(question.to.ip().into());
    explanation.filter = destination.may_be_ours(tables);
    if !explanation.filter {
        return explanation;
    }
    let port = question.to.port().to_be();
    let found = destination
        .entry(tables, port, question.protocol)
        .or_else(|| destination.entry_of(tables, 0, protocol::ANY, kind::VIP));
    explanation.directory = found.map(|entry| names.directory(entry, question));
    let frontend = destination.entry_of(tables, port, question.protocol, kind::FRONTEND);
    if let (Some(frontend), Some(mut scratch), Some(config)) = (frontend, scratch, tables.config()) {
        names.choice(&mut explanation, config, frontend, &mut scratch);
    }
    explanation
}

struct Names<'a> {
    tables: &'a Readings,
    report: Option<&'a Report>,
}

impl Names<'_> {
    fn directory(&self, entry: &abi::DirectoryEntry, question: &Question) -> DirectoryEntry {
        let frontends = self.report.iter().flat_map(|report| &report.frontends);
        let mut same = frontends.filter(|frontend| SocketAddr::new(frontend.address, frontend.port) == question.to);
        let policies = [
            (policy::AFFINITY, "affinity"),
            (policy::SOURCES, "sources"),
            (policy::LIMITED, "limited"),
            (policy::STACK_FLOWS, "stack flows"),
            (policy::STANDBY, "standby"),
        ];
        DirectoryEntry {
            kind: match entry.kind {
                kind::FRONTEND => "frontend",
                kind::VIP => "vip",
                kind::TUNNEL => "tunnel",
                kind::PEER => "peer",
                kind::BACKEND => "backend",
                _ => "unknown",
            },
            id: entry.id,
            service: same
                .find(|frontend| frontend.id == Some(entry.id))
                .map(|frontend| frontend.service.to_string()),
            first_row: entry.rows.base,
            rows: u64::from(entry.rows.mask) + 1,
            policies: policies
                .iter()
                .filter(|(bit, _)| entry.policies & bit != 0)
                .map(|(_, name)| *name)
                .collect(),
        }
    }

    fn choice(
        &self,
        explanation: &mut Explanation,
        config: &Config,
        frontend: &abi::DirectoryEntry,
        scratch: &mut Scratch,
    ) {
        let chosen = scratch.chosen;
        let index = steer::row(self.tables, config, scratch, frontend);
        let row = self.tables.row(index).unwrap_or_default();
        let past = self.tables.past(index).copied().unwrap_or_default();
        explanation.row = Some(RowEntry {
            index,
            hash: format!("{:016x}", scratch.hash),
            current: self.backend(row.current),
            previous: self.backend(row.previous),
            history: past.owners.iter().filter_map(|id| self.backend(*id)).collect(),
        });
        explanation.flow_cache =
            cache::lookup(self.tables, config, scratch.hash, u32::MAX).map(|(noted, age)| CacheEntry {
                backend: self.backend(noted & cache::ID),
                idle_seconds: config::seconds(age),
            });
        let owners = [row.current, row.previous]
            .into_iter()
            .chain(past.owners)
            .filter(|id| *id != 0);
        explanation.flow = owners
            .filter_map(|id| self.tables.backend(id))
            .find_map(|backend| self.flow(config, backend, scratch));
        let reached = explanation.worked_out.as_ref().is_some_and(|worked_out| {
            !matches!(
                worked_out.verdict.reason,
                Reason::NoBackend | Reason::SourceRefused | Reason::FlowLimit | Reason::PacketLimit
            )
        });
        if reached && chosen.place != Target::NOWHERE {
            explanation.backend = self.backend(chosen.id);
            explanation.node = (chosen.place != Target::HERE)
                .then(|| self.node(chosen.place))
                .flatten();
        }
    }

    fn backend(&self, id: u32) -> Option<BackendEntry> {
        let backend = self
            .tables
            .backend(id)
            .filter(|backend| id != 0 && backend.protocol != 0)?;
        let local = backend.flags & BACKEND_LOCAL != 0;
        Some(BackendEntry {
            id,
            address: socket(backend.address, backend.port),
            node: if local {
                self.own_name()
            } else {
                self.node_name(backend.node)
            },
            local,
            draining: backend.flags & BACKEND_DRAINING != 0,
        })
    }

    fn own_name(&self) -> String {
        self.report
            .map_or_else(|| "this node".to_owned(), |report| report.node.clone())
    }

    fn node_name(&self, id: u32) -> String {
        let mut nodes = self.report.iter().flat_map(|report| &report.nodes);
        nodes
            .find(|node| node.id == Some(id))
            .map_or_else(|| format!("node {id}"), |node| node.name.clone())
    }

    fn node(&self, id: u32) -> Option<NodeEntry> {
        let node = self.tables.node(id)?;
        Some(NodeEntry {
            id,
            name: self.node_name(id),
            address: node.address.into(),
            interface: if_indextoname(node.ifindex)
                .map_or_else(|_| node.ifindex.to_string(), |name| name.to_string_lossy().into_owned()),
            next_hop: node.destination_mac.map(|byte| format!("{byte:02x}")).join(":"),
            mtu: node.mtu,
        })
    }

    /// The entry of the flow from the client in `scratch` to `backend`, which only that one's node has.
    fn flow(&self, config: &Config, backend: &Backend, scratch: &Scratch) -> Option<FlowEntry> {
        let key = Tuple {
            source: scratch.client,
            destination: backend.address,
            source_port: scratch.transport.source_port,
            destination_port: u16::from_ne_bytes(backend.port),
            protocol: scratch.protocol,
        };
        let entries = flows::buckets(config.flow_seed, config.flow_mask, &key);
        let entries = entries
            .into_iter()
            .filter_map(|index| self.tables.flows(index))
            .flatten();
        let mut flows = entries.map(|words| -> Flow {
            bytemuck::must_cast::<[u64; size_of::<Flow>() / 8], Flow>(std::array::from_fn(|word| {
                words.get(word).map_or(0, Word::load)
            }))
        });
        let flow = flows.find(|flow| {
            flow.state > flow_state::BUSY
                && (flow.client, flow.pod, flow.protocol) == (key.source, key.destination, key.protocol)
                && flow.client_port == key.source_port.to_ne_bytes()
                && flow.pod_port == backend.port
        })?;
        let state = STATES.iter().find(|(number, _)| *number == flow.state);
        Some(FlowEntry {
            backend: socket(flow.pod, flow.pod_port),
            vip: socket(flow.vip, flow.vip_port),
            state: state.map_or("unknown", |(_, name)| name),
            idle_seconds: config::seconds(config::now().wrapping_sub(flow.last_seen)),
        })
    }
}

fn socket(address: Address, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be_bytes(port))
}
