//! The loop: what the sources say becomes a plan, the plan becomes writes, what is true then is reported.
//!
//! One task owns everything that changes: it waits for a source, plans the whole, steps the tables, carries out the
//! writes, attaches interfaces, and reports. It decides nothing itself. Nothing is planned before every source has
//! spoken once, or a restart would empty the maps; nothing is attached before the first writes, or packets would meet
//! empty ones. Stopping stops only this loop: programs, maps and links stay, and the next agent adopts them.

mod allocations;
mod conditions;
mod exposing;
mod flow_table;
mod interfaces;
mod source;

use crate::{
    apply::bpf::{self, Dataplane, config},
    metrics::Telemetry,
    report::Reporter,
    source::netlink::{self, Device, Network, Queries, Wanted},
    store,
};
use allocations::Allocations;
use conditions::Conditions;
use exposing::Exposing;
use flow_table::FlowTable;
use interfaces::Interfaces;
use source::Source;
pub use source::{Origin, SourceError};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, error, info, warn};
use weir_core::{
    model::{Cluster, Condition},
    plan::{Memo, Plan, ThisNode},
    tables::{self, Tables},
};

/// An adopted data path is left as it is until all next hops are known again, but no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a step took out of use is cleared this much later; packets under way are gone in microseconds.
const SETTLE: Duration = Duration::from_millis(10);
/// Interfaces that could not be taken are tried again this often, and so are writes that failed.
const RETRY: Duration = Duration::from_secs(2);

/// What the agent is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// Where the cluster is read.
    pub from: Origin,
    /// Interfaces to take packets from.
    pub interfaces: Vec<String>,
    /// Folder of the agent's own files.
    pub state_dir: PathBuf,
    /// Where metrics are served; `None` is nowhere.
    pub metrics: Option<SocketAddr>,
    /// The data path.
    pub dataplane: bpf::Options,
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data path.
    #[error("cannot open the data path")]
    Bpf(#[from] bpf::Error),
    /// The agent's own files.
    #[error("cannot use the folder of --state-dir")]
    State(#[from] store::Error),
    /// The network.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The cluster.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Signals.
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
    /// The network source ended.
    #[error("interfaces and next hops can no longer be followed; start weir again (packets are forwarded as before)")]
    SourceEnded,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// What keeps the agent from starting; once it runs, what goes wrong is logged and reported instead.
pub async fn run(settings: Settings) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let mut source = Source::open(&settings.from).await?;
    // Before the data path is touched: whoever is refused here must leave it as it is.
    let _lock = store::lock(&settings.state_dir)?;
    let mut dataplane = Dataplane::open(&settings.dataplane)?;
    if settings.dataplane.log.is_some() {
        dataplane.start_log()?;
    }
    dataplane.start_bringing_back()?;
    let (wanted, wanted_seen) = watch::channel(Wanted::default());
    let (mut networks, queries) = netlink::start(wanted_seen)?;
    let pin_dir = settings.dataplane.pin_dir.clone();
    let mut agent = Agent::new(settings, dataplane, wanted)?;

    let mut retry = interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(flow_table::INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    agent.hear(&mut source, Instant::now());
    loop {
        agent.telemetry.beat();
        agent.advance(&queries).await;
        let wake_at = agent.wake_at.unwrap_or_else(Instant::now);
        tokio::select! {
            () = source.changed() => agent.hear(&mut source, Instant::now()),
            changed = networks.changed() => {
                changed.map_err(|_| Error::SourceEnded)?;
                agent.set_network(networks.borrow_and_update().clone());
            }
            () = sleep_until(wake_at), if agent.wake_at.is_some() => agent.wake(),
            _ = retry.tick() => agent.retry().await,
            _ = look.tick() => agent.look_at_flows(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!(
        pin_dir = %pin_dir.display(),
        "stopping; the data path stays in place and goes on forwarding, the next weir adopts it (`weir run --detach` removes it)"
    );
    Ok(())
}

struct Agent {
    settings: Settings,
    this: ThisNode,
    memo: Memo,
    dataplane: Dataplane,
    tables: Tables,
    /// `None` where another allocates.
    allocations: Option<Allocations>,
    conditions: Conditions,
    /// What is wrong with the source.
    source_conditions: Vec<Condition>,
    interfaces: Interfaces,
    reporter: Reporter,
    telemetry: Telemetry,
    exposing: Exposing,
    flow_table: FlowTable,
    wanted: watch::Sender<Wanted>,
    cluster: Option<Cluster>,
    network: Option<Arc<Network>>,
    plan: Option<Arc<Plan>>,
    /// What the last step has to say.
    stepped: Option<Vec<Condition>>,
    /// Something that a plan depends on changed.
    replan: bool,
    /// Something that the tables depend on changed, or they have something to clear.
    restep: bool,
    /// Interfaces that failed are to be tried again.
    retry: bool,
    /// When the first change was seen that the maps do not show yet.
    changed: Option<Instant>,
    /// When to look again without anything having changed.
    wake_at: Option<Instant>,
    /// The start of the tables' clock.
    started: Instant,
    /// Until when the first step waits for next hops; from the first plan on, however late that is.
    patience: Option<Instant>,
}

impl Agent {
    fn new(settings: Settings, dataplane: Dataplane, wanted: watch::Sender<Wanted>) -> Result<Self, Error> {
        let tables = dataplane.with_contents(Tables::adopt)?;
        let options = &settings.dataplane;
        Ok(Self {
            this: ThisNode {
                name: settings.node.clone(),
            },
            memo: Memo::default(),
            tables,
            allocations: match settings.from {
                Origin::Folder(_) => Some(Allocations::read(&settings.state_dir)),
                Origin::Kube => None,
            },
            conditions: Conditions::default(),
            source_conditions: Vec::new(),
            interfaces: Interfaces::new(settings.interfaces.clone()),
            reporter: Reporter::new(
                &settings.state_dir,
                &settings.node,
                &options.pin_dir,
                options.tunnel_port,
                dataplane.adopted(),
            ),
            telemetry: Telemetry::default(),
            exposing: Exposing::new(settings.node.clone(), settings.metrics),
            flow_table: FlowTable::new(settings.node.clone(), options.pin_dir.clone()),
            wanted,
            cluster: None,
            network: None,
            plan: None,
            stepped: None,
            replan: true,
            restep: true,
            retry: false,
            changed: Some(Instant::now()),
            wake_at: None,
            started: Instant::now(),
            patience: None,
            settings,
            dataplane,
        })
    }

    /// Takes in what the source says now; `seen`: when it was noticed that it may say something new.
    fn hear(&mut self, source: &mut Source, seen: Instant) {
        if let Some(cluster) = source.read() {
            self.set_cluster(cluster, seen);
        }
        if replace(&mut self.source_conditions, source.conditions()) {
            self.restep = true;
            if self.cluster.is_none() {
                // There is no step to report yet, and this is why.
                self.conditions.replace(self.source_conditions.iter().cloned());
            }
        }
    }

    fn set_cluster(&mut self, cluster: Cluster, seen: Instant) {
        if self.cluster.as_ref() != Some(&cluster) {
            self.cluster = Some(cluster);
            self.replan = true;
            self.changed.get_or_insert(seen);
        }
    }

    fn set_network(&mut self, network: Option<Arc<Network>>) {
        self.network = network;
        self.restep = true;
        self.changed.get_or_insert_with(Instant::now);
    }

    fn wake(&mut self) {
        self.wake_at = None;
        self.restep = true;
    }

    /// Finds out whether flows have room, and whose go on.
    fn look_at_flows(&mut self) {
        match self.flow_table.look() {
            Ok(changed) => self.restep |= changed,
            Err(problem) => warn!(
                problem = &problem as &dyn std::error::Error,
                "the flow table cannot be read; trying again"
            ),
        }
    }

    async fn retry(&mut self) {
        self.retry = true;
        self.restep |= self.allocations.as_mut().is_some_and(Allocations::save_again);
        self.restep |= self.exposing.ensure(&self.telemetry).await;
    }

    /// Does what is due, and no more.
    async fn advance(&mut self, queries: &Queries) {
        let (Some(cluster), Some(network)) = (&mut self.cluster, self.network.clone()) else {
            return;
        };
        if std::mem::take(&mut self.replan) {
            if let Some(allocations) = &self.allocations {
                cluster.previous = allocations.addresses().clone();
            }
            let begun = Instant::now();
            let next = self.memo.plan(cluster, &self.this);
            self.telemetry.planned(begun.elapsed());
            // Before anybody is told an address, it is on disk.
            if let Some(allocations) = &mut self.allocations {
                self.restep |= allocations.save(next.memory());
            }
            self.wanted.send_if_modified(|wanted| replace(wanted, wanted_by(&next)));
            self.restep |= self.plan.as_deref() != Some(&next);
            // What goes now must not take along a flow that has begun since the last look.
            if self.plan.as_ref().is_none_or(|last| lets_go(last, &next)) {
                self.look_at_flows();
            }
            self.plan = Some(Arc::new(next));
        }
        let Some(plan) = self.plan.clone() else { return };
        if self.stepped.is_none() && self.should_wait(&plan, &network) {
            return;
        }
        let interfaces_due = self.interfaces.due(&network, std::mem::take(&mut self.retry));
        let stepped = std::mem::take(&mut self.restep);
        if stepped {
            self.step_tables(&plan, &network);
        }
        if stepped || interfaces_due {
            self.settle_interfaces(queries, &plan, &network, interfaces_due).await;
        }
    }

    /// Whether the first step would cut off nodes whose next hops are just being resolved.
    fn should_wait(&mut self, plan: &Plan, network: &Network) -> bool {
        let nodes = plan.nodes.values().copied().collect();
        let known = network.wanted.nodes == nodes && network.reaches_all(&nodes);
        let patience = *self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
        let wait = !known && Instant::now() < patience;
        self.wake_at = wait.then_some(patience);
        wait
    }

    fn step_tables(&mut self, plan: &Plan, network: &Network) {
        let settings = tables::Settings {
            tunnel_port: self.settings.dataplane.tunnel_port,
            jiffies_per_second: config::jiffies_per_second(),
            now: self.started.elapsed().as_secs(),
            udp_idle: config::UDP.as_secs(),
        };
        let begun = Instant::now();
        self.tables.set_live(self.flow_table.live());
        let step = self.tables.step(plan, &network.links, &settings);
        self.telemetry.stepped(begun.elapsed());
        let mss = config::mss(
            plan.tunnel_address,
            smallest_mtu(plan, network, &self.settings.interfaces),
        );
        let syn_mss = config::syn_mss(own_mtu(network, &self.settings.interfaces));
        let written = self
            .dataplane
            .set_mss(mss, syn_mss)
            .and_then(|()| self.dataplane.apply(&step.writes));
        let due = [
            step.unsettled.then_some(SETTLE),
            step.forget_in.map(Duration::from_secs),
        ];
        self.wake_at = due.into_iter().flatten().min().map(|time| Instant::now() + time);
        self.telemetry.set_programmed(written.is_ok());
        match written {
            Ok(()) => {
                let changed = self.changed.take();
                if !step.writes.is_empty() {
                    debug!(writes = step.writes.len(), time = ?begun.elapsed(), "programmed");
                    changed.inspect(|seen| self.telemetry.programmed(*seen));
                }
            }
            Err(problem) => self.read_back(&problem),
        }
        self.stepped = Some(step.conditions);
    }

    /// After a failed write: what the maps really hold is the new start, and the plan is tried again.
    fn read_back(&mut self, problem: &bpf::Error) {
        error!(
            problem = problem as &dyn std::error::Error,
            "a map could not be written; trying again"
        );
        match self.dataplane.with_contents(Tables::adopt) {
            Ok(tables) => self.tables = tables,
            Err(problem) => error!(
                problem = &problem as &dyn std::error::Error,
                "the maps cannot be read either"
            ),
        }
        self.wake_at = Some(Instant::now() + RETRY);
    }

    async fn settle_interfaces(&mut self, queries: &Queries, plan: &Plan, network: &Network, attach: bool) {
        let mut devices = list(queries).await;
        if attach {
            self.interfaces.attach(&mut self.dataplane, network, &devices);
            devices = list(queries).await;
            if let Err(problem) = self.tidy(network) {
                warn!(
                    problem = &problem as &dyn std::error::Error,
                    "what an earlier agent left is not all cleared; trying again"
                );
            }
        }
        self.report(plan, network, &devices);
    }

    /// Ends what a take-over began: interfaces nobody asks for are let go, flows move.
    fn tidy(&mut self, network: &Network) -> Result<(), bpf::Error> {
        if let Some(devices) = self.interfaces.devices(network) {
            self.dataplane.keep_only(&devices)?;
        }
        if self.interfaces.all_taken_over() {
            self.dataplane.finish_move()?;
        }
        Ok(())
    }

    fn report(&mut self, plan: &Plan, network: &Network, devices: &[Device]) {
        let Some(stepped) = &self.stepped else { return };
        let conditions = plan.conditions.iter().chain(stepped).cloned();
        let conditions = conditions.chain(self.interfaces.conditions());
        let conditions = conditions.chain(self.allocations.as_ref().and_then(Allocations::condition));
        let conditions = conditions.chain(self.source_conditions.iter().cloned());
        let conditions = conditions.chain(self.flow_table.condition());
        self.conditions.replace(conditions.chain(self.exposing.condition()));
        let interfaces = self.interfaces.report(&self.dataplane, network, devices);
        let conditions = self.conditions.current().cloned().collect();
        let report = self
            .reporter
            .report(plan, &self.tables, network, interfaces, conditions);
        if let Err(problem) = self.reporter.write(&report) {
            warn!(
                problem = &problem as &dyn std::error::Error,
                "`weir status` will show an older state"
            );
        }
        self.telemetry.report(Arc::new(report));
    }
}

async fn list(queries: &Queries) -> Vec<Device> {
    queries.devices().await.unwrap_or_else(|problem| {
        warn!(
            problem = &problem as &dyn std::error::Error,
            "interfaces cannot be listed; trying again"
        );
        Vec::new()
    })
}

fn wanted_by(plan: &Plan) -> Wanted {
    let reach = plan.vips.values().filter_map(|vip| vip.interface.as_deref());
    Wanted {
        nodes: plan.nodes.values().copied().collect(),
        reach: reach
            .filter_map(|name| Some((name.to_owned(), Wanted::parse_reach(name)?)))
            .collect(),
    }
}

/// Whether `next` takes a backend of this node from a frontend.
fn lets_go(last: &Plan, next: &Plan) -> bool {
    let changed = last
        .frontends
        .iter()
        .filter_map(|(name, last)| match next.frontends.get(name) {
            Some(next) if Arc::ptr_eq(last, next) => None,
            next => Some((last, next)),
        });
    let mut lost = changed.flat_map(|(last, next)| {
        let all = last
            .backends
            .keys()
            .chain(last.draining.keys())
            .filter(|backend| backend.local);
        all.filter(move |backend| {
            !next.is_some_and(|next| next.backends.contains_key(*backend) || next.draining.contains_key(*backend))
        })
    });
    lost.next().is_some()
}

fn replace<T: PartialEq>(target: &mut T, value: T) -> bool {
    let differs = *target != value;
    if differs {
        *target = value;
    }
    differs
}

/// The smallest MTU on the way to another node; `None` when there is no other node.
fn smallest_mtu(plan: &Plan, network: &Network, interfaces: &[String]) -> Option<u16> {
    if plan.nodes.is_empty() {
        return None;
    }
    let next_hop = |address: &IpAddr| network.links.next_hops.get(address).map(|hop| hop.mtu);
    let own = own_mtu(network, interfaces);
    plan.nodes.values().filter_map(next_hop).chain(own).min()
}

/// The smallest MTU of this node's interfaces.
fn own_mtu(network: &Network, interfaces: &[String]) -> Option<u16> {
    let known = interfaces.iter().filter_map(|name| network.links.interfaces.get(name));
    known.map(|interface| interface.mtu).min()
}
