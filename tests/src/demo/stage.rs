//! What the steps of the demo share: the lab, the servers and agents in it, and running commands for all to see.

use super::report;
use crate::lab::{
    Agent, Family, Lab, Node, Pod, Shape,
    address::{self, FAMILIES, vip},
    agent,
    manifests::{self, Service},
    process::Process,
    remains,
    servers::{self, Web},
    status::Status,
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, fs, net::IpAddr};

/// The names clients use and the last part of their addresses.
const NAMES: [(&str, u8); 2] = [("argocd", 2), ("ingress", 3)];
/// Where the throughput is measured; one pod, because iperf3 needs its two connections at one server.
pub(super) const MEASURED: u8 = 4;
pub(super) const IPERF_PORT: u16 = 5201;

pub(super) struct Stage {
    pub(super) lab: Lab,
    /// Running agents by node name.
    pub(super) agents: BTreeMap<String, Agent>,
    _webs: Vec<Web>,
    _iperf: Process,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new(Shape::default())?;
        let hosts = remains::namespace_files(lab.client.name());
        fs::create_dir_all(&hosts).with_context(|| format!("cannot make {}", hosts.display()))?;
        fs::write(hosts.join("hosts"), hosts_file())?;
        let _webs = servers::start_web_everywhere(&lab)?;
        let measured = measured_pod(&lab);
        let mut server = measured.namespace.command("iperf3");
        server.args(["--server", "--port", &IPERF_PORT.to_string()]);
        let _iperf = Process::start(server, "iperf3", &lab.directory().join("iperf3.log"))?;
        Ok(Self {
            lab,
            agents: BTreeMap::new(),
            _webs,
            _iperf,
        })
    }

    pub(super) fn start_agents(&mut self) -> Result<()> {
        let started = Agent::start_everywhere(&self.lab)?;
        self.agents = self
            .lab
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .zip(started)
            .collect();
        Ok(())
    }

    /// Runs a shell command as a client would, with the client's hosts file, and shows it.
    pub(super) fn client(&self, line: &str) -> Result<String> {
        let output = self.client_unseen(line)?;
        report::command("client", line, &output);
        Ok(output)
    }

    /// Runs a shell command as a client would.
    pub(super) fn client_unseen(&self, line: &str) -> Result<String> {
        agent::finished(self.client_command().args(["sh", "-c", line]))
    }

    /// A command in the client's place; `ip netns exec` gives it the client's hosts file.
    pub(super) fn client_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", self.lab.client.name()]);
        command
    }

    /// Runs a command on the router and shows it.
    pub(super) fn router(&self, line: &str) -> Result<String> {
        let output = self.lab.router.output(line)?;
        report::command("router", line, &output);
        Ok(output)
    }

    /// The node that answers for `vip`: the one whose MAC address the router has learnt.
    pub(super) fn owner(&self, vip: IpAddr) -> Result<&Node> {
        self.client_unseen(&format!("ping -c 1 -W 2 {vip}"))?;
        let entry = self.lab.router.output(&format!("ip neigh show to {vip} dev lan"))?;
        let node = self.lab.nodes.iter().find(|node| entry.contains(&node.mac()));
        node.with_context(|| format!("expected a node's MAC address for {vip} on the router, it has: {entry}"))
    }

    /// How often each node has counted `reason`.
    pub(super) fn counts(&self, reason: &str) -> Result<BTreeMap<String, u64>> {
        self.lab
            .nodes
            .iter()
            .map(|node| Ok((node.name.clone(), Status::of(&self.lab, node)?.reason(reason)?)))
            .collect()
    }

    /// The pod at which throughput is measured.
    pub(super) fn measured_pod(&self) -> &Pod {
        measured_pod(&self.lab)
    }

    /// Writes the Services with these pods behind `argocd` and `ingress`.
    pub(super) fn publish<'a>(&self, pods: impl IntoIterator<Item = &'a Pod> + Clone) -> Result<()> {
        let yaml: String = NAMES
            .iter()
            .map(|&(name, host)| service(name, host).with(pods.clone()))
            .collect();
        let measured = Service::new("measured")
            .at([vip(Family::V4, MEASURED)])
            .with_tcp("iperf3", IPERF_PORT, IPERF_PORT)
            .with([self.measured_pod()]);
        self.lab.apply("services.yaml", &(yaml + &measured))
    }

    pub(super) fn print_playground(&self) -> Result<()> {
        let (client, router) = (self.lab.client.name(), self.lab.router.name());
        let node = &self.lab.nodes[0];
        let (name, weir) = (node.namespace.path(), agent::binary());
        let (pins, state) = (self.lab.pin_directory(node), self.lab.state_directory(node));
        println!("\nThe network stays. In another terminal, as root:");
        println!("  ip netns exec {client} curl -s http://argocd/");
        println!("  ip netns exec {client} curl -s -4 http://ingress/");
        println!("  ip netns exec {client} ping 10.10.1.2");
        println!("  ip -n {router} neigh show dev lan");
        println!(
            "  nsenter --net={} {} status --pin-dir {} --state-dir {}",
            name.display(),
            weir.display(),
            pins.display(),
            state.display()
        );
        println!("  bpftool map lookup pinned {}/*/BACKENDS key 1 0 0 0", pins.display());
        println!(
            "  $EDITOR {}/services.yaml",
            self.lab.manifest_directory(node).display()
        );
        println!(
            "Each node has a folder of its own; the last two are about {}.",
            node.name
        );
        println!("Enter ends it.");
        Ok(())
    }
}

/// The Eips, one for each family.
pub(super) fn eips() -> String {
    manifests::eip("office", address::vip_network(Family::V4))
        + &manifests::eip("office-v6", address::vip_network(Family::V6))
}

/// The Service called `name`, with the addresses it asks for.
pub(super) fn service(name: &str, host: u8) -> Service {
    Service::new(name).at(FAMILIES.map(|family| vip(family, host)))
}

fn hosts_file() -> String {
    let lines = NAMES
        .iter()
        .flat_map(|(name, host)| FAMILIES.map(|family| format!("{} {name}\n", vip(family, *host))));
    "127.0.0.1 localhost\n".to_owned() + &lines.collect::<String>()
}

/// On the last node, because the first owns the measured VIP only by chance and the pod should be elsewhere.
fn measured_pod(lab: &Lab) -> &Pod {
    let last = lab.nodes.len() - 1;
    &lab.nodes[last].pods[0]
}

/// Fails with what was expected.
pub(super) fn expect(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    ensure!(condition, "expected {}", what());
    Ok(())
}
