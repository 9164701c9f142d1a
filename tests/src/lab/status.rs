//! What an agent reports about itself (`weir status -o json`), as far as tests ask. A field that is missing or has another
//! name is an error: these names are what other programs rely on.

use super::{
    Lab, Node,
    agent::{finished, weir},
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use weir_core::plan::Policy;

/// One report with the counters of the moment.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Whether the agent that reported lives.
    pub agent_alive: bool,
    /// Its process id.
    pub pid: u32,
    /// Its node.
    pub node: String,
    /// Set while the agent has made nothing true yet.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// Version of the map layout.
    pub layout_version: u32,
    /// Where other nodes send tunnel packets.
    pub tunnel_address: Option<IpAddr>,
    /// Interfaces asked for.
    pub interfaces: Vec<Interface>,
    /// Other nodes.
    pub nodes: Vec<OtherNode>,
    /// Addresses given out.
    pub vips: Vec<Vip>,
    /// What is served.
    pub frontends: Vec<Frontend>,
    /// Packets by reason.
    pub reasons: Vec<Reason>,
    /// What is wrong.
    pub conditions: Vec<Condition>,
}

/// What an agent waits for at its start.
#[derive(Clone, Debug, Deserialize)]
pub struct Waiting {
    /// In words.
    pub awaited: String,
    /// When an earlier agent reported what is shown; none if none has.
    pub as_of: Option<u64>,
}

/// An interface asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `generic` or nothing.
    pub xdp_mode: Option<String>,
}

/// Another node.
#[derive(Clone, Debug, Deserialize)]
pub struct OtherNode {
    /// Its name.
    pub name: String,
    /// Whether its next hop is known.
    pub reachable: bool,
}

/// An address given out.
#[derive(Clone, Debug, Deserialize)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// The node that answers for it.
    pub owner: Option<String>,
    /// Whether that is the reporting node.
    pub owned: bool,
    /// The Services that have it.
    pub services: Vec<String>,
}

/// Address, port and protocol that are served.
#[derive(Clone, Debug, Deserialize)]
pub struct Frontend {
    /// The VIP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Its number in the maps; none while it is not programmed.
    pub id: Option<u32>,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// TCP connection attempts among them.
    pub syns: u64,
    /// Who may connect, how often, and whether a client stays with its backend.
    #[serde(default)]
    pub policy: Policy,
    /// Where the packets go.
    pub backends: Vec<Backend>,
}

/// A pod behind a frontend.
#[derive(Clone, Debug, Deserialize)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its node.
    pub node: String,
    /// `serving`, `draining` or `unreachable`.
    pub state: String,
    /// Packets sent to it from here.
    pub packets: u64,
}

/// A reason and its counter.
#[derive(Clone, Debug, Deserialize)]
pub struct Reason {
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
}

/// Something a user has to know.
#[derive(Clone, Debug, Deserialize)]
pub struct Condition {
    /// What it is about.
    pub object: Object,
    /// The field at fault, empty when it is the object as a whole.
    #[serde(default)]
    pub field: String,
    /// One word.
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// An object.
#[derive(Clone, Debug, Deserialize)]
pub struct Object {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Status {
    /// Asks on `node`.
    ///
    /// # Errors
    /// When the command fails or does not print what it should.
    pub fn of(lab: &Lab, node: &Node) -> Result<Self> {
        let text = finished(weir(lab, node, "status").args(["-o", "json"]))?;
        serde_json::from_str(&text).context("not the status it should be")
    }

    /// Fails unless the agent with process id `agent` has made everything true that it is to make true.
    ///
    /// # Errors
    /// With what is missing.
    pub fn check_ready(&self, agent: u32) -> Result<()> {
        ensure!(
            self.pid == agent && self.agent_alive,
            "the last report is of another agent, {}",
            self.pid
        );
        ensure!(self.waiting.is_none(), "{:?}", self.waiting);
        let idle: Vec<_> = self
            .interfaces
            .iter()
            .filter(|interface| interface.xdp_mode.is_none())
            .collect();
        ensure!(idle.is_empty(), "no program runs on {idle:?}; {:?}", self.conditions);
        let unreachable: Vec<_> = self.nodes.iter().filter(|node| !node.reachable).collect();
        ensure!(unreachable.is_empty(), "not reachable: {unreachable:?}");
        let missing: Vec<_> = self.frontends.iter().filter(|frontend| frontend.id.is_none()).collect();
        ensure!(missing.is_empty(), "not programmed: {missing:?}");
        Ok(())
    }

    /// Packets counted for a reason.
    ///
    /// # Errors
    /// When there is no such reason.
    pub fn reason(&self, name: &str) -> Result<u64> {
        let reason = self.reasons.iter().find(|reason| reason.name == name);
        Ok(reason
            .with_context(|| format!("no reason {name} among {:?}", self.reasons))?
            .packets)
    }

    /// What is known about an address.
    ///
    /// # Errors
    /// When it is not given out.
    pub fn vip(&self, address: IpAddr) -> Result<&Vip> {
        let vip = self.vips.iter().find(|vip| vip.address == address);
        vip.with_context(|| format!("{address} is not given out; {:?}, {:?}", self.vips, self.conditions))
    }

    /// The addresses of the Service `default/NAME`.
    pub fn addresses_of(&self, service: &str) -> Vec<IpAddr> {
        let key = format!("default/{service}");
        self.vips
            .iter()
            .filter(|vip| vip.services.contains(&key))
            .map(|vip| vip.address)
            .collect()
    }

    /// The TCP frontend at `address`.
    ///
    /// # Errors
    /// When there is none.
    pub fn tcp(&self, address: SocketAddr) -> Result<&Frontend> {
        let mut frontends = self.frontends.iter();
        let found = frontends.find(|frontend| {
            (frontend.address, frontend.port, &*frontend.protocol) == (address.ip(), address.port(), "TCP")
        });
        found.with_context(|| format!("no TCP frontend {address}; {:?}", self.conditions))
    }

    /// The condition with this reason about the object of this kind and name, or a file of this name in any folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn condition(&self, kind: &str, name: &str, reason: &str) -> Result<&Condition> {
        let about = |condition: &&Condition| {
            let object = &condition.object;
            let named = object.name == name || kind == "File" && object.name.contains(&format!("/{name} "));
            object.kind == kind && named && condition.reason == reason
        };
        let found = self.conditions.iter().find(about);
        found.with_context(|| {
            format!(
                "nothing about {kind} {name} with reason {reason}; {:#?}",
                self.conditions
            )
        })
    }
}
