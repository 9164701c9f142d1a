//! Command line: what can be asked for, and with which defaults.

mod controller;
mod serve;
mod takeover;

use crate::{
    agent::Origin,
    apply::bpf::pins,
    check, monitor,
    status::{self, Format},
    trace,
};
use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use controller::Controller;
use nix::sys::signal::{SigSet, Signal};
use serve::Serve;
use std::{io, net::SocketAddr, path::PathBuf, time::Duration};
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
    /// Serve the Services of a Kubernetes cluster from this node, by the addresses in their status. Reads the API that
    /// KUBECONFIG leads to, or in a pod its own cluster's.
    Agent(Agent),
    /// Give out addresses, for a whole Kubernetes cluster. Of several, the one that holds the Lease does.
    Controller(Controller),
    /// Come from OpenELB.
    Migrate(takeover::Migrate),
    /// Before Weir leaves a cluster for good: remove its webhooks, and labels and finalizers that nobody would remove any more.
    Cleanup(takeover::Cleanup),
    /// Show VIPs, frontends, backends and counters of this host.
    Status(Status),
    /// Say what would not work on this host, and what to do, before anything is attached.
    Check(check::Check),
    /// Show what is decided about packets of this host as it happens, one line each. Off, and free, while nobody asks.
    Monitor(Monitor),
    /// Show what would happen to a packet, and by which map entries, without sending it or changing anything.
    Trace(Trace),
    /// Do nothing until SIGTERM or SIGINT: for a pod whose work is done, and that is to stay ready.
    Pause,
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
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "detach",
        conflicts_with = "detach"
    )]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
}

impl Run {
    fn run(self) -> anyhow::Result<()> {
        // clap sees to it that there is a folder, or none is needed.
        self.serve.run(Origin::Folder(self.manifests.unwrap_or_default()))
    }
}

#[derive(Debug, Args)]
struct Agent {
    #[command(flatten)]
    serve: Serve,
    /// Namespace of the Lease that says that this agent lives; the controllers' own.
    #[arg(long, value_name = "NAME", env = "OPENELB_NAMESPACE", default_value = "weir-system")]
    namespace: String,
    /// After how many seconds of silence the controller takes this agent for gone, at least; the more nodes, the later.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(3..))]
    lease_seconds: u16,
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

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// A chain of what was tried and why it failed, for people.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Agent(agent) => {
                let lease = Duration::from_secs(agent.lease_seconds.into());
                agent.serve.run(Origin::Kube {
                    namespace: agent.namespace,
                    lease,
                })
            }
            Command::Controller(controller) => controller.run(),
            Command::Migrate(migrate) => migrate.run(),
            Command::Cleanup(cleanup) => cleanup.run(),
            Command::Check(check) => check.run(),
            Command::Monitor(monitor) => monitor.run(),
            Command::Trace(trace) => trace.run(),
            Command::Pause => pause(),
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

/// Returns at SIGTERM or SIGINT.
fn pause() -> anyhow::Result<()> {
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    // What is blocked waits to be taken, also for a process of number 1, for which the kernel drops what it would die of.
    ends.thread_block().context("cannot block signals")?;
    ends.wait().context("cannot wait for signals")?;
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
        assert!(!parses("weir run --detach --manifests m"));
        assert!(parses("weir agent --interface e"));
        assert!(parses("weir agent --interface e --node n"));
        assert!(!parses("weir agent"));
        assert!(!parses("weir agent --interface e --manifests m"));
        assert!(parses("weir pause"));
        assert!(!parses("weir pause --interface e"));
    }
}
