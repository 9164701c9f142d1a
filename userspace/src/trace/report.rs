//! What is said about a packet, for people and for programs. Field names are stable.

use super::Question;
use crate::{apply::bpf::tracer::Answer, monitor::frame::protocol_name};
use serde::Serialize;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};
use weir_common::verdict::Verdict;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The client.
    pub from: SocketAddr,
    /// The VIP.
    pub to: SocketAddr,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Whether it begins a connection.
    pub syn: bool,
    /// What the kernel's program does: `pass`, `drop`, `transmit` or `redirect`.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The same in a sentence.
    pub description: &'static str,
    /// Whether the entries below explain just that; if not, it is a bug.
    pub agrees: bool,
    /// Whether the programs on interfaces are of the code that was asked; none when there are none.
    pub same_code: Option<bool>,
    /// Whether `FILTER` lets the destination through.
    pub filter: bool,
    /// The entry of `DIRECTORY`.
    pub directory: Option<DirectoryEntry>,
    /// The element of `ROWS`, with its past from `HISTORY`.
    pub row: Option<RowEntry>,
    /// The entry of `FLOW_CACHE`.
    pub flow_cache: Option<CacheEntry>,
    /// The entry of `FLOWS`, where the backend is on this node.
    pub flow: Option<FlowEntry>,
    /// Who gets the packet, or is asked first.
    pub backend: Option<BackendEntry>,
    /// Its node, if that is another.
    pub node: Option<NodeEntry>,
    /// What was worked out from the maps.
    #[serde(skip)]
    pub worked_out: Option<WorkedOut>,
}

/// The outcome of the packet path over the maps as they are read here.
#[derive(Clone, Debug)]
pub struct WorkedOut {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// An entry of `DIRECTORY`.
#[derive(Clone, Debug, Serialize)]
pub struct DirectoryEntry {
    /// What the destination is.
    pub kind: &'static str,
    /// Its id.
    pub id: u32,
    /// The Service of a frontend.
    pub service: Option<String>,
    /// Index of a frontend's first row.
    pub first_row: u32,
    /// How many it has.
    pub rows: u64,
    /// What sets a frontend apart.
    pub policies: Vec<&'static str>,
}

/// An element of `ROWS`.
#[derive(Clone, Debug, Serialize)]
pub struct RowEntry {
    /// Its index.
    pub index: u32,
    /// The hash that chose it, in hexadecimal.
    pub hash: String,
    /// Who gets new flows.
    pub current: Option<BackendEntry>,
    /// Who had them before.
    pub previous: Option<BackendEntry>,
    /// Who had them before that, the last one first.
    pub history: Vec<BackendEntry>,
}

/// An entry of `FLOW_CACHE`.
#[derive(Clone, Debug, Serialize)]
pub struct CacheEntry {
    /// The backend noted.
    pub backend: Option<BackendEntry>,
    /// Time since the last packet.
    pub idle_seconds: u64,
}

/// An entry of `FLOWS`.
#[derive(Clone, Debug, Serialize)]
pub struct FlowEntry {
    /// The backend.
    pub backend: SocketAddr,
    /// Where the client sends to.
    pub vip: SocketAddr,
    /// The flow's state.
    pub state: &'static str,
    /// Time since the last packet.
    pub idle_seconds: u64,
}

/// An element of `BACKENDS`.
#[derive(Clone, Debug, Serialize)]
pub struct BackendEntry {
    /// Its id.
    pub id: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its node.
    pub node: String,
    /// Whether that is this one.
    pub local: bool,
    /// Whether it gets no new flows.
    pub draining: bool,
}

/// An element of `NODES`.
#[derive(Clone, Debug, Serialize)]
pub struct NodeEntry {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its tunnel address.
    pub address: IpAddr,
    /// The interface that leads to it.
    pub interface: String,
    /// MAC of the next hop.
    pub next_hop: String,
    /// MTU on the way, in bytes.
    pub mtu: u16,
}

impl Explanation {
    /// About `question`, with nothing said yet.
    #[must_use]
    pub fn new(question: &Question) -> Self {
        Self {
            from: question.from,
            to: question.to,
            protocol: protocol_name(question.protocol),
            syn: question.syn,
            verdict: "unknown",
            reason: "unknown",
            description: "",
            agrees: false,
            same_code: None,
            filter: false,
            directory: None,
            row: None,
            flow_cache: None,
            flow: None,
            backend: None,
            node: None,
            worked_out: None,
        }
    }

    /// Takes over what the kernel said.
    pub fn take_answer(&mut self, answer: &Answer) {
        self.verdict = match answer.code {
            1 => "drop",
            2 => "pass",
            3 => "transmit",
            4 => "redirect",
            _ => "abort",
        };
        self.reason = answer.reason.map_or("unknown", |reason| reason.name());
        self.description = answer.reason.map_or("", |reason| reason.describe().trim());
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let syn = if self.syn { " SYN" } else { "" };
        writeln!(f, "packet     {} -> {} {}{syn}", self.from, self.to, self.protocol)?;
        writeln!(f, "verdict    {}: {} ({})", self.verdict, self.reason, self.description)?;
        if let Some(backend) = &self.backend {
            writeln!(f, "backend    {backend}")?;
        }
        if let Some(node) = &self.node {
            writeln!(
                f,
                "node       {} (id {}) at {}, out of {} to {}, MTU {}",
                node.name, node.id, node.address, node.interface, node.next_hop, node.mtu
            )?;
        }
        writeln!(f, "\ndecided by")?;
        writeln!(
            f,
            "  FILTER      {}",
            if self.filter {
                "the destination may be ours"
            } else {
                "no address of ours"
            }
        )?;
        if let Some(entry) = &self.directory {
            write!(f, "  DIRECTORY   {} {}", entry.kind, entry.id)?;
            if let Some(service) = &entry.service {
                write!(f, " of {service}")?;
            }
            if entry.kind == "frontend" {
                write!(f, ", {} rows from {}", entry.rows, entry.first_row)?;
            }
            if !entry.policies.is_empty() {
                write!(f, ", {}", entry.policies.join(", "))?;
            }
            writeln!(f)?;
        } else if self.filter {
            writeln!(f, "  DIRECTORY   no entry")?;
        }
        if let Some(row) = &self.row {
            writeln!(f, "  ROWS        row {} (hash {})", row.index, row.hash)?;
            let owners = [("current", row.current.as_ref()), ("previous", row.previous.as_ref())];
            let past = row.history.iter().map(|owner| ("HISTORY", Some(owner)));
            for (what, owner) in owners.into_iter().chain(past) {
                match owner {
                    Some(owner) => writeln!(f, "              {what}: {owner}")?,
                    None => writeln!(f, "              {what}: none")?,
                }
            }
        }
        if let Some(entry) = &self.flow_cache {
            write!(f, "  FLOW_CACHE  ")?;
            match &entry.backend {
                Some(backend) => write!(f, "{backend}")?,
                None => write!(f, "a backend that is gone")?,
            }
            writeln!(f, ", idle {} s", entry.idle_seconds)?;
        }
        if let Some(flow) = &self.flow {
            writeln!(
                f,
                "  FLOWS       {} for {}, {}, idle {} s",
                flow.backend, flow.vip, flow.state, flow.idle_seconds
            )?;
        }
        match self.same_code {
            Some(true) => {}
            Some(false) => writeln!(
                f,
                "\nThe programs on this host's interfaces are of another version than this weir: they may decide otherwise."
            )?,
            None => writeln!(
                f,
                "\nNo program of this data path is on an interface: no packet meets these maps."
            )?,
        }
        if !self.agrees {
            writeln!(
                f,
                "\nThe entries above do not explain the verdict. This is a bug, unless the maps change all the time."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for BackendEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (id {}) on {}", self.address, self.id, self.node)?;
        if self.local {
            write!(f, ", here")?;
        }
        if self.draining {
            write!(f, ", draining")?;
        }
        Ok(())
    }
}
