//! What the agent has made true, as a file other processes read: `<state-dir>/status.json`.
//!
//! Written whole after every change, never half. Field names are an interface: `weir status -o json` prints them. An agent
//! that cannot make anything true yet says so in it, and leaves the rest as the agent before it had it, which is what the maps
//! hold.

mod parts;

use crate::{
    source::netlink::Network,
    store::{self, Durability},
};
use serde::{Deserialize, Serialize};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use weir_common::abi::LAYOUT_VERSION;
use weir_core::{
    model::{Condition, Mode, Protocol, ServiceKey},
    plan::{Plan, Policy},
    tables::Programmed,
};

const FILE: &str = "status.json";

/// Everything but counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// Version of the map layout.
    pub layout_version: u32,
    /// This node's name.
    pub node: String,
    /// Process id of the agent.
    pub pid: u32,
    /// When the agent started, in seconds since 1970.
    pub started: u64,
    /// When it started, in the kernel's own count: tells the agent from a later process of the same id.
    pub start_ticks: u64,
    /// When this was written, in seconds since 1970.
    pub updated: u64,
    /// How many agents have started with this state folder, this one included.
    #[serde(default)]
    pub starts: u64,
    /// How many of them found a data path to go on with.
    #[serde(default)]
    pub adoptions: u64,
    /// Set while the agent has not made anything true yet: then all but who it is and what is wrong is of an earlier agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Where the maps are pinned.
    pub pin_dir: PathBuf,
    /// The address other nodes send tunnel packets to.
    pub tunnel_address: Option<IpAddr>,
    /// The tunnel's UDP port.
    pub tunnel_port: u16,
    /// The interfaces asked for.
    pub interfaces: Vec<InterfaceReport>,
    /// Other nodes.
    pub nodes: Vec<NodeReport>,
    /// Addresses given out.
    pub vips: Vec<VipReport>,
    /// What is served at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontends: Vec<FrontendReport>,
    /// What is wrong.
    pub conditions: Vec<Condition>,
}

/// What an agent waits for at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What it has not read yet, in words.
    pub awaited: String,
    /// When an earlier agent reported what is shown, in seconds since 1970; none if none has.
    pub as_of: Option<u64>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// As asked for.
    pub name: String,
    /// What the programs are on: itself, or the parent of a VLAN device; none when it does not exist.
    pub device: Option<String>,
    /// Index of that.
    pub ifindex: Option<u32>,
    /// VLAN identifier, 0 for none.
    pub vlan: u16,
    /// How XDP runs, as the kernel says; none when this agent's program does not run there.
    pub xdp_mode: Option<XdpModeName>,
}

/// How XDP runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpModeName {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl XdpModeName {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its tunnel address.
    pub address: IpAddr,
    /// Its id in `NODES`.
    pub id: Option<u32>,
    /// Whether its next hop is resolved.
    pub reachable: bool,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipReport {
    /// The address.
    pub address: IpAddr,
    /// The Eip it comes from.
    pub eip: String,
    /// How it is announced.
    pub mode: Mode,
    /// Interface its ARP and NDP are answered on.
    pub interface: Option<String>,
    /// The node that answers for it.
    pub owner: Option<String>,
    /// Whether that is this node.
    pub owned: bool,
    /// The Services at it.
    pub services: Vec<ServiceKey>,
}

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendReport {
    /// The VIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The Service.
    pub service: ServiceKey,
    /// Name of the Service port.
    pub port_name: String,
    /// Who may connect, how often, and whether a client stays with its backend.
    #[serde(default, skip_serializing_if = "Policy::is_none")]
    pub policy: Policy,
    /// Its id in `FRONTEND_COUNTERS`; none when it is not programmed.
    pub id: Option<u32>,
    /// What is behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendReport>,
}

/// A backend of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Pod address.
    pub address: IpAddr,
    /// Pod port.
    pub port: u16,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Whether that is this node.
    pub local: bool,
    /// Its share of new flows; 0 when it gets none.
    pub weight: u32,
    /// What it is used for.
    pub state: BackendState,
    /// Its id in `BACKENDS` and `BACKEND_COUNTERS`; none when it is not programmed.
    pub id: Option<u32>,
}

/// What a backend is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Gets new flows.
    Serving,
    /// Keeps the flows it has.
    Draining,
    /// Its node cannot be reached now.
    Unreachable,
}

impl BackendState {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Ids that a report's frontends and backends have are below these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdEnds {
    /// Of frontends.
    pub frontends: u32,
    /// Of backends.
    pub backends: u32,
}

impl Report {
    /// How far the counters have to be read.
    #[must_use]
    pub fn id_ends(&self) -> IdEnds {
        let end = |ids: &mut dyn Iterator<Item = u32>| ids.max().map_or(0, |id| id.saturating_add(1));
        let backends = self.frontends.iter().flat_map(|frontend| &frontend.backends);
        IdEnds {
            frontends: end(&mut self.frontends.iter().filter_map(|frontend| frontend.id)),
            backends: end(&mut backends.filter_map(|backend| backend.id)),
        }
    }
}

/// The process that reports.
#[derive(Clone, Debug)]
pub struct Reporter {
    path: PathBuf,
    node: String,
    pin_dir: PathBuf,
    tunnel_port: u16,
    started: u64,
    start_ticks: u64,
    starts: u64,
    adoptions: u64,
}

impl Reporter {
    /// For this process, which has `adopted` a data path or made one. Counts on from the last report.
    #[must_use]
    pub fn new(state_dir: &Path, node: &str, pin_dir: &Path, tunnel_port: u16, adopted: bool) -> Self {
        let (starts, adoptions) = match read(state_dir) {
            Ok(Some(last)) => (last.starts, last.adoptions),
            // None, or one that the next write replaces anyway.
            _ => (0, 0),
        };
        Self {
            starts: starts + 1,
            adoptions: adoptions + u64::from(adopted),
            path: path(state_dir),
            node: node.to_owned(),
            pin_dir: pin_dir.to_owned(),
            tunnel_port,
            started: seconds_since_1970(),
            start_ticks: start_ticks(std::process::id()).unwrap_or_default(),
        }
    }

    /// What is true now: `plan` by the ids of `programmed`, over `network`.
    #[must_use]
    pub fn report(
        &self,
        plan: &Plan,
        programmed: &Programmed,
        network: &Network,
        interfaces: Vec<InterfaceReport>,
        conditions: Vec<Condition>,
    ) -> Report {
        Report {
            tunnel_address: plan.tunnel_address,
            interfaces,
            nodes: parts::nodes(plan, programmed, network),
            vips: parts::vips(plan),
            frontends: parts::frontends(plan, programmed, network),
            conditions,
            ..self.nothing()
        }
    }

    /// What is true while nothing has been made true: what an earlier agent reported last, if one has and it can be read.
    #[must_use]
    pub fn waiting(&self, awaited: String, conditions: Vec<Condition>) -> Report {
        let last: Option<Report> = store::read(&self.path).ok().flatten();
        let as_of = last.as_ref().and_then(|last| match &last.waiting {
            Some(waiting) => waiting.as_of,
            None => Some(last.updated),
        });
        let last = last.unwrap_or_else(|| self.nothing());
        Report {
            tunnel_address: last.tunnel_address,
            interfaces: last.interfaces,
            nodes: last.nodes,
            vips: last.vips,
            frontends: last.frontends,
            conditions,
            waiting: Some(Waiting { awaited, as_of }),
            ..self.nothing()
        }
    }

    /// Who this is, and nothing else.
    fn nothing(&self) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout_version: LAYOUT_VERSION,
            node: self.node.clone(),
            pid: std::process::id(),
            started: self.started,
            start_ticks: self.start_ticks,
            updated: seconds_since_1970(),
            starts: self.starts,
            adoptions: self.adoptions,
            waiting: None,
            pin_dir: self.pin_dir.clone(),
            tunnel_address: None,
            tunnel_port: self.tunnel_port,
            interfaces: Vec::new(),
            nodes: Vec::new(),
            vips: Vec::new(),
            frontends: Vec::new(),
            conditions: Vec::new(),
        }
    }

    /// Writes it for other processes.
    ///
    /// # Errors
    ///
    /// [`store::Error`].
    pub fn write(&self, report: &Report) -> Result<(), store::Error> {
        store::write(&self.path, report, Durability::Lazy)
    }
}

/// Reads the last report in `state_dir`; `None` when there is none.
///
/// # Errors
///
/// [`store::Error`].
pub fn read(state_dir: &Path) -> Result<Option<Report>, store::Error> {
    store::read(&path(state_dir))
}

/// Where the report is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// When a process started, in clock ticks since boot; `None` when there is no such process.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_ticks(&stat)
}

/// Field 22 of `/proc/<pid>/stat`; the second, in parentheses, may contain anything.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Now.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(folder: &Path) -> Reporter {
        Reporter::new(folder, "node-1", Path::new("/pins"), 6081, false)
    }

    #[test]
    fn who_waits_shows_what_was_last_made_true() {
        let folder = std::env::temp_dir().join(format!("weir-report-{}", std::process::id()));
        let first = reporter(&folder);
        let nothing = first.waiting("this".into(), Vec::new());
        assert_eq!(nothing.waiting.as_ref().map(|it| it.as_of), Some(None));
        first.write(&nothing).unwrap();
        assert_eq!(
            first.waiting("that".into(), Vec::new()).waiting.map(|it| it.as_of),
            Some(None)
        );

        let made = Report {
            updated: 7,
            vips: vec![VipReport {
                address: "10.1.0.1".parse().unwrap(),
                eip: "pool".into(),
                mode: Mode::Layer2,
                interface: None,
                owner: None,
                owned: false,
                services: Vec::new(),
            }],
            ..first.nothing()
        };
        first.write(&made).unwrap();
        let second = reporter(&folder);
        for _ in 0..2 {
            // Also what waits already is taken over.
            let waiting = second.waiting("Services".into(), Vec::new());
            assert_eq!(waiting.vips, made.vips);
            assert_eq!(
                waiting.waiting,
                Some(Waiting {
                    awaited: "Services".into(),
                    as_of: Some(7)
                })
            );
            second.write(&waiting).unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 424242 5 6";
        assert_eq!(parse_start_ticks(stat), Some(424_242));
        assert!(start_ticks(std::process::id()).is_some());
        assert_eq!(start_ticks(u32::MAX), None);
    }
}
