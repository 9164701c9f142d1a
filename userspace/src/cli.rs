//! Command line: what can be asked for, and with which defaults.

use crate::{
    agent::{self, Settings},
    apply::bpf::{
        self, Capacities,
        attach::{EgressPolicy, ModePolicy},
        config::DEFAULT_SELECTION_SEED,
        detach, pins,
    },
    check, monitor,
    status::{self, Format},
    trace,
};
use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::utsname::uname;
use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};
use tracing_subscriber::EnvFilter;
use weir_common::{abi::protocol, verdict::Reason};

/// Where the agent's own files are, unless it is told otherwise.
pub const STATE_DIR: &str = "/var/lib/weir";

/// An XDP load balancer for bare-metal Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "weir", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Services and Eips of a folder of Kubernetes manifests from this host.
    Run(Run),
    /// Show VIPs, frontends, backends and counters of this host.
    Status(Status),
    /// Say what would not work on this host, and what to do, before anything is attached.
    Check(check::Check),
    /// Show what is decided about packets of this host as it happens, one line each. Off, and free, while nobody asks.
    Monitor(Monitor),
    /// Show what would happen to a packet, and by which map entries, without sending it or changing anything.
    Trace(Trace),
}

/// Where the data path and the agent keep what outlives the process.
#[derive(Debug, Args)]
struct Places {
    /// Folder of pinned maps and links, on a BPF file system.
    #[arg(long, value_name = "DIR", default_value = pins::DEFAULT)]
    pin_dir: PathBuf,
    /// Folder of the agent's own files.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    /// Folder of manifests (Eip, Service, EndpointSlice, Node), watched while running.
    #[arg(long, value_name = "DIR", required_unless_present = "detach")]
    manifests: Option<PathBuf>,
    /// Interface to take packets from; may be given several times.
    #[arg(long = "interface", value_name = "IF", required_unless_present = "detach")]
    interfaces: Vec<String>,
    /// This host's name in the manifests' list of nodes; by default its host name.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    places: Places,
    /// UDP port of the tunnel between nodes; the same on every node.
    #[arg(long, value_name = "PORT", default_value_t = 6081)]
    tunnel_port: u16,
    /// Seed of the choice of backends; the same on every node.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SELECTION_SEED)]
    selection_seed: u64,
    /// How to run XDP; auto is native where the driver can, else generic.
    #[arg(long, value_enum, default_value_t)]
    xdp_mode: ModePolicy,
    /// How to attach the egress program; auto is tcx where the kernel has it (6.6), else a clsact filter.
    #[arg(long, value_enum, default_value_t)]
    egress: EgressPolicy,
    /// Where to serve /metrics, /healthz and /readyz; `off` serves nothing.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9470")]
    metrics: MetricsAddress,
    /// What the agent logs: a level, or directives such as `weir=debug,warn`.
    #[arg(long, value_name = "FILTER", env = "WEIR_LOG", default_value = "info")]
    log_level: String,
    /// What the eBPF programs log; off costs nothing.
    #[arg(long, value_enum, default_value_t)]
    kernel_log: KernelLog,
    /// Remove everything an agent has left in the kernel for this pin folder, and end. Forwarding stops.
    #[arg(long, conflicts_with_all = ["manifests", "interfaces", "node"])]
    detach: bool,
    #[command(flatten)]
    capacities: CapacityFlags,
}

/// Capacities of the maps, powers of two; for hosts with much more or much less than usual.
#[derive(Debug, Args)]
#[command(next_help_heading = "Capacities")]
struct CapacityFlags {
    /// Buckets of four flows of this host's own backends.
    #[arg(long, value_name = "N")]
    max_flow_buckets: Option<u32>,
    /// Buckets of four flows in transition.
    #[arg(long, value_name = "N")]
    max_cache_buckets: Option<u32>,
    /// Rows of all frontends together.
    #[arg(long, value_name = "N")]
    max_rows: Option<u32>,
    /// Backends of all frontends together.
    #[arg(long, value_name = "N")]
    max_backends: Option<u32>,
}

#[derive(Debug, Args)]
struct Status {
    /// Folder of pinned maps; by default the one the agent reported.
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// Folder of the agent's own files.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Where metrics are served; `None` is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MetricsAddress(Option<SocketAddr>);

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| "not an address with a port, such as 127.0.0.1:9470 or [::]:9470, nor `off`")?;
        Ok(Self(Some(address)))
    }
}

#[derive(Debug, Args)]
struct Monitor {
    /// Folder of pinned maps; by default the one the agent reported.
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// Folder of the agent's own files.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Sample one packet of N, by chance.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Only packets with this reason; see `weir status`.
    #[arg(long, value_name = "REASON", value_parser = monitor::parse_reason)]
    reason: Option<Reason>,
    /// Only packets to or from this VIP.
    #[arg(long, value_name = "ADDR[:PORT]")]
    vip: Option<monitor::VipFilter>,
    /// End after N lines.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: monitor::Format,
}

impl Monitor {
    fn run(self) -> anyhow::Result<()> {
        let wanted = monitor::Wanted {
            every: self.every,
            reason: self.reason,
            vip: self.vip,
            count: self.count,
            format: self.output,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(monitor::run(
            self.pin_dir.as_deref(),
            &self.state_dir,
            &wanted,
            &mut io::stdout().lock(),
        ))?;
        Ok(())
    }
}

#[derive(Debug, Args)]
struct Trace {
    /// The client.
    #[arg(long, value_name = "ADDR:PORT")]
    from: SocketAddr,
    /// The VIP and its port.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// The packet's protocol.
    #[arg(long, value_enum, default_value_t)]
    proto: TracedProtocol,
    /// The packet begins a TCP connection; without this it is of the middle of one.
    #[arg(long)]
    syn: bool,
    /// Folder of pinned maps; by default the one the agent reported.
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// Folder of the agent's own files.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: monitor::Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum TracedProtocol {
    #[default]
    Tcp,
    Udp,
}

impl Trace {
    fn run(self) -> anyhow::Result<()> {
        let question = trace::Question {
            from: self.from,
            to: self.to,
            protocol: match self.proto {
                TracedProtocol::Tcp => protocol::TCP,
                TracedProtocol::Udp => protocol::UDP,
            },
            syn: self.syn,
            sequence: 0,
        };
        trace::print(
            self.pin_dir.as_deref(),
            &self.state_dir,
            &question,
            self.output,
            &mut io::stdout().lock(),
        )?;
        Ok(())
    }
}

/// Levels of the kernel half's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum KernelLog {
    #[default]
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl KernelLog {
    const fn level(self) -> Option<aya_log::Level> {
        Some(match self {
            Self::Off => return None,
            Self::Error => aya_log::Level::Error,
            Self::Warn => aya_log::Level::Warn,
            Self::Info => aya_log::Level::Info,
            Self::Debug => aya_log::Level::Debug,
            Self::Trace => aya_log::Level::Trace,
        })
    }
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// A chain of what was tried and why it failed, for people.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Monitor(monitor) => monitor.run(),
            Command::Trace(trace) => trace.run(),
            Command::Status(Status {
                pin_dir,
                state_dir,
                output,
            }) => {
                status::print(pin_dir.as_deref(), &state_dir, output, &mut io::stdout().lock())?;
                Ok(())
            }
        }
    }
}

impl Run {
    fn run(self) -> anyhow::Result<()> {
        start_log(&self.log_level)?;
        if self.detach {
            return print_detached(&self.places.pin_dir);
        }
        let Some(manifests) = self.manifests else {
            anyhow::bail!("--manifests and --interface are needed");
        };
        let node = self.node.map_or_else(host_name, Ok)?;
        let settings = Settings {
            node,
            manifests,
            interfaces: self.interfaces,
            state_dir: self.places.state_dir,
            metrics: self.metrics.0,
            dataplane: bpf::Options {
                pin_dir: self.places.pin_dir,
                mode: self.xdp_mode,
                egress: self.egress,
                selection_seed: self.selection_seed,
                tunnel_port: self.tunnel_port,
                capacities: Capacities {
                    flow_buckets: self.capacities.max_flow_buckets,
                    cache_buckets: self.capacities.max_cache_buckets,
                    rows: self.capacities.max_rows,
                    backends: self.capacities.max_backends,
                },
                log: self.kernel_log.level(),
            },
        };
        // Two threads: a plan being made must not keep netlink waiting.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(agent::run(settings))?;
        // Tasks that only read need no farewell.
        runtime.shutdown_background();
        Ok(())
    }
}

/// The name under which a kubelet registers this host, unless it is told another.
fn host_name() -> anyhow::Result<String> {
    let name = uname().context("cannot find out the host name; give --node")?;
    let name = name.nodename().to_str().unwrap_or_default().trim();
    anyhow::ensure!(!name.is_empty(), "this host has no usable host name; give --node");
    // As a kubelet does: names of nodes have no capitals.
    Ok(name.to_lowercase())
}

fn start_log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(directives(filter))
        .with_context(|| format!("--log-level {filter} is no level (error, warn, info, debug, trace) and no filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// A level alone is meant for us, not for the libraries; anything else is taken as it is.
fn directives(filter: &str) -> String {
    match filter.parse::<tracing::Level>() {
        Ok(level) => format!("warn,weir={level},weir_core={level}"),
        Err(_) => filter.to_owned(),
    }
}

fn print_detached(pin_dir: &Path) -> anyhow::Result<()> {
    let removed = detach::detach(pin_dir)?;
    if removed.is_empty() {
        println!("nothing to remove in {}", pin_dir.display());
    }
    for what in removed {
        println!("removed {what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn detach_needs_nothing_else_and_run_needs_manifests_and_an_interface() {
        let parses = |arguments: &str| Cli::try_parse_from(arguments.split(' ')).is_ok();
        assert!(parses("weir run --detach"));
        assert!(!parses("weir run --detach --node n"));
        assert!(!parses("weir run --manifests m"));
        assert!(!parses("weir run --interface e"));
        assert!(parses("weir run --manifests m --interface e"));
        assert!(parses("weir run --manifests m --interface e --node n"));
        assert!(parses("weir run --manifests m --interface e --metrics off"));
        assert!(parses("weir run --manifests m --interface e --metrics [::]:9470"));
        assert!(!parses("weir run --manifests m --interface e --metrics 9470"));
    }

    #[test]
    fn the_host_has_a_name() {
        let name = host_name().unwrap();
        assert!(!name.is_empty() && name == name.to_lowercase());
    }
}
