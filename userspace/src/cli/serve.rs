//! What the commands that serve have in common: `weir run` and `weir agent`.

use super::Places;
use crate::{
    agent::{self, Origin, Settings},
    apply::bpf::{
        self, Capacities,
        attach::{EgressPolicy, ModePolicy},
        config::DEFAULT_SELECTION_SEED,
        detach,
    },
    arenas,
    metrics::Exposure,
    source::default_route,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    utsname::uname,
};
use std::{
    env,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::Path,
    str::FromStr,
};
use tracing::debug;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Interface to take packets from, or `auto` for that of the default route; may be given several times.
    #[arg(long = "interface", value_name = "IF", required_unless_present = "detach")]
    interfaces: Vec<String>,
    /// This node's name in the cluster; by default what NODE_NAME says, else the host name.
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
    /// Serve metrics by OpenELB's names, too; see docs/metrics.md.
    #[arg(long)]
    openelb_metrics: bool,
    /// Answer at each spec.healthCheckNodePort (Services with externalTrafficPolicy: Local) whether this node has endpoints of
    /// the Service, as kube-proxy does; for nodes without kube-proxy.
    #[arg(long)]
    health_check_node_ports: bool,
    /// What the agent logs: a level, or directives such as `weir=debug,warn`.
    #[arg(long, value_name = "FILTER", env = "WEIR_LOG", default_value = "info")]
    log_level: String,
    /// What the eBPF programs log; off costs nothing.
    #[arg(long, value_enum, default_value_t)]
    kernel_log: KernelLog,
    /// Remove everything an agent has left in the kernel for this pin folder, and end. Forwarding stops.
    #[arg(long, conflicts_with_all = ["interfaces", "node"])]
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

/// Where metrics are served; `None` is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetricsAddress(Option<SocketAddr>);

impl MetricsAddress {
    /// There, and with OpenELB's names or without.
    pub(super) fn exposure(self, openelb: bool) -> Option<Exposure> {
        self.0.map(|address| Exposure { address, openelb })
    }
}

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

impl Serve {
    /// Serves what is read `from` there, or removes what was served.
    pub(super) fn run(self, from: Origin) -> anyhow::Result<()> {
        start_log(&self.log_level)?;
        if self.detach {
            return print_detached(&self.places.pin_dir);
        }
        let node = self.node.map_or_else(node_name, Ok)?;
        let settings = Settings {
            node,
            from,
            interfaces: default_route::resolve(self.interfaces)?,
            state_dir: self.places.state_dir,
            metrics: self.metrics.exposure(self.openelb_metrics),
            health_checks: self.health_check_node_ports,
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
        arenas::share();
        raise_open_files();
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

/// A port of health checks is a descriptor, and the usual limit is for programs that need few.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, greatest)| setrlimit(Resource::RLIMIT_NOFILE, greatest, greatest));
    if let Err(error) = raised {
        debug!("the limit of open files stays: {error}");
    }
}

fn node_name() -> anyhow::Result<String> {
    match env::var("NODE_NAME") {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => host_name(),
    }
}

/// The name under which a kubelet registers this host, unless it is told another.
pub(super) fn host_name() -> anyhow::Result<String> {
    let name = uname().context("cannot find out the host name; give --node")?;
    let name = name.nodename().to_str().unwrap_or_default().trim();
    anyhow::ensure!(!name.is_empty(), "this host has no usable host name; give --node");
    // As a kubelet does: names of nodes have no capitals.
    Ok(name.to_lowercase())
}

pub(super) fn start_log(filter: &str) -> anyhow::Result<()> {
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
        // What kube's client says of each attempt, we say once.
        Ok(level) => format!("warn,kube_client=off,weir={level},weir_core={level}"),
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

    #[test]
    fn the_host_has_a_name() {
        let name = host_name().unwrap();
        assert!(!name.is_empty() && name == name.to_lowercase());
    }
}
