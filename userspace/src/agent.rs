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
mod health_checks;
mod interfaces;
mod lease;
mod mirror;
mod planning;
mod programming;
mod reporting;
mod settling;
mod source;
mod stack_flows;
mod standings;

use crate::{
    apply::bpf::{self, Dataplane},
    metrics::{Exposure, Telemetry},
    report::Reporter,
    source::netlink::{self, Device, Network, Queries, Wanted},
    store,
};
use allocations::Allocations;
use conditions::Conditions;
use exposing::Exposing;
use flow_table::FlowTable;
use health_checks::HealthChecks;
use interfaces::Interfaces;
use mirror::Mirror;
use reporting::Reporting;
use source::Source;
pub use source::{Origin, SourceError};
use stack_flows::StackFlows;
use standings::Standings;
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{info, warn};
use weir_core::{
    model::{Cluster, Condition},
    plan::{Memo, Plan, ThisNode},
    tables::Tables,
};

/// Interfaces that could not be taken are tried again this often, and so are writes that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long the last report may take; a disk that hangs is not waited for.
const FAREWELL: Duration = Duration::from_secs(5);

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
    pub metrics: Option<Exposure>,
    /// Whether health checks of Services with `externalTrafficPolicy: Local` are answered.
    pub health_checks: bool,
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
    let mut signals = [
        signal(SignalKind::terminate()).map_err(Error::Signal)?,
        signal(SignalKind::interrupt()).map_err(Error::Signal)?,
    ];
    let (mut source, client) = Source::open(&settings.from).await?;
    // Before the data path is touched: whoever is refused here must leave it as it is.
    let _lock = store::lock(&settings.state_dir)?;
    let mut dataplane = Dataplane::open(&settings.dataplane)?;
    if settings.dataplane.log.is_some() {
        dataplane.start_log()?;
    }
    dataplane.start_bringing_back()?;
    let (wanted, wanted_seen) = watch::channel(Wanted {
        interfaces: settings.interfaces.iter().cloned().collect(),
        ..Wanted::default()
    });
    let (mut networks, queries) = netlink::start(wanted_seen)?;
    let pin_dir = settings.dataplane.pin_dir.clone();
    let standings = match (&settings.from, client) {
        (Origin::Kube { namespace, lease }, Some(client)) => {
            Some(Standings::start(client, &settings.node, namespace, *lease))
        }
        _ => None,
    };
    let mut agent = Agent::new(settings, dataplane, wanted, standings)?;

    let ended = agent.follow(&mut source, &mut networks, &queries, &mut signals).await;
    // Before the folder is another's.
    if timeout(FAREWELL, agent.report_last(&queries)).await.is_err() {
        warn!("the last report could not be written; `weir status` will show an older state");
    }
    ended?;
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
    mirror: Mirror,
    /// `None` where another allocates.
    allocations: Option<Allocations>,
    conditions: Conditions,
    /// What is wrong with the source.
    source_conditions: Vec<Condition>,
    interfaces: Interfaces,
    reporting: Reporting,
    /// `None` where there is nobody to tell.
    standings: Option<Standings>,
    telemetry: Telemetry,
    exposing: Exposing,
    health_checks: HealthChecks,
    flow_table: FlowTable,
    stack_flows: StackFlows,
    wanted: watch::Sender<Wanted>,
    cluster: Option<Cluster>,
    network: Option<Arc<Network>>,
    plan: Option<Arc<Plan>>,
    /// What is told to be awaited, and what is wrong, while nothing has been made true.
    waiting: Option<(String, Vec<Condition>)>,
    /// What the last step has to say.
    stepped: Option<Vec<Condition>>,
    /// Something that a plan depends on changed.
    replan: bool,
    /// Something that the tables depend on changed, or they have something to clear.
    restep: bool,
    /// The devices there were when they could be listed last.
    listed: Vec<Device>,
    /// Interfaces that failed are to be tried again.
    retry: bool,
    /// Why what an earlier agent left is not all cleared, by the last attempt.
    untidy: Option<String>,
    /// When the first change was seen that the maps do not show yet.
    changed: Option<Instant>,
    /// When to look again without anything having changed.
    wake_at: Option<Instant>,
    /// The last plan took no heed of what others do not say: our own word is not to be read either.
    unheard: bool,
    /// The start of the tables' clock.
    started: Instant,
    /// Until when the first step waits for next hops; from the first plan on, however late that is.
    patience: Option<Instant>,
}

impl Agent {
    fn new(
        settings: Settings,
        mut dataplane: Dataplane,
        wanted: watch::Sender<Wanted>,
        standings: Option<Standings>,
    ) -> Result<Self, Error> {
        let tables = dataplane.with_contents(Tables::adopt)?;
        let stack_flows = StackFlows::new(dataplane.stands_by(), dataplane.stack_flows().all()?);
        let options = &settings.dataplane;
        let telemetry = Telemetry::default();
        let reporter = Reporter::new(
            &settings.state_dir,
            &settings.node,
            &options.pin_dir,
            options.tunnel_port,
            dataplane.adopted(),
        );
        Ok(Self {
            this: ThisNode {
                name: settings.node.clone(),
            },
            memo: Memo::default(),
            mirror: Mirror::new(settings.node.clone(), tables),
            allocations: match settings.from {
                Origin::Folder(_) => Some(Allocations::read(&settings.state_dir)),
                Origin::Kube { .. } => None,
            },
            conditions: Conditions::default(),
            source_conditions: Vec::new(),
            interfaces: Interfaces::new(settings.interfaces.clone()),
            reporting: Reporting::new(reporter, telemetry.clone()),
            standings,
            exposing: Exposing::new(settings.node.clone(), settings.metrics),
            health_checks: HealthChecks::new(settings.health_checks, telemetry.clone()),
            telemetry,
            flow_table: FlowTable::new(settings.node.clone(), options.pin_dir.clone()),
            stack_flows,
            wanted,
            cluster: None,
            network: None,
            plan: None,
            waiting: None,
            stepped: None,
            replan: true,
            restep: true,
            listed: Vec::new(),
            retry: false,
            untidy: None,
            changed: Some(Instant::now()),
            wake_at: None,
            unheard: false,
            started: Instant::now(),
            patience: None,
            settings,
            dataplane,
        })
    }

    /// Follows the sources until SIGTERM or SIGINT, the two signals.
    async fn follow(
        &mut self,
        source: &mut Source,
        networks: &mut watch::Receiver<Option<Arc<Network>>>,
        queries: &Queries,
        [terminate, interrupt]: &mut [Signal; 2],
    ) -> Result<(), Error> {
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(flow_table::INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask = interval(stack_flows::INTERVAL);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.hear(source, Instant::now());
        loop {
            self.telemetry.beat();
            self.advance(queries).await;
            let wake_at = self.wake_at.unwrap_or_else(Instant::now);
            tokio::select! {
                () = source.changed() => self.hear(source, Instant::now()),
                changed = networks.changed() => {
                    changed.map_err(|_| Error::SourceEnded)?;
                    self.set_network(networks.borrow_and_update().clone());
                }
                () = sleep_until(wake_at), if self.wake_at.is_some() => self.wake(),
                () = self.reporting.ready() => self.report_late(queries).await,
                _ = retry.tick() => self.retry(source).await,
                _ = look.tick() => self.flow_table.begin(),
                due = self.flow_table.ended() => self.restep |= due,
                _ = ask.tick() => self.stack_flows.begin(),
                ended = self.stack_flows.ended() => self.forget_stack_flows(&ended),
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    /// Takes in what the source says now; `seen`: when it was noticed that it may say something new.
    fn hear(&mut self, source: &mut Source, seen: Instant) {
        if let Some(cluster) = source.read() {
            self.set_cluster(cluster, seen);
            if let (Some(standings), Some(records)) = (&mut self.standings, source.records()) {
                standings.are(records);
            }
        }
        if replace(&mut self.source_conditions, source.conditions()) {
            self.restep = true;
            if self.cluster.is_none() {
                self.report_waiting(source);
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

    async fn retry(&mut self, source: &Source) {
        self.retry = true;
        if let Some(standings) = &self.standings {
            standings.beat();
        }
        if self.stepped.is_none() && self.started.elapsed() >= RETRY {
            self.report_waiting(source);
        }
        self.restep |= self.allocations.as_mut().is_some_and(Allocations::save_again);
        self.restep |= self.exposing.ensure(&self.telemetry).await;
        self.answer_health_checks().await;
        self.restep |= self.find_stack_flows();
        let unheard = |cluster| planning::is_unheard(cluster, &self.this, self.patience);
        self.replan |= self
            .cluster
            .as_ref()
            .is_some_and(|cluster| unheard(cluster) != self.unheard);
    }

    /// As the plan says; also again, as a port may have become free.
    async fn answer_health_checks(&mut self) {
        if let Some(plan) = &self.plan {
            self.restep |= self.health_checks.follow(&plan.health_checks).await;
        }
    }

    /// Does what is due, and no more.
    async fn advance(&mut self, queries: &Queries) {
        let Some(network) = self.network.clone().filter(|_| self.cluster.is_some()) else {
            return;
        };
        let planned = std::mem::take(&mut self.replan);
        if planned {
            self.make_plan();
            self.answer_health_checks().await;
        }
        let Some(plan) = self.plan.clone() else { return };
        if self.stepped.is_none() && self.should_wait(&network) {
            return;
        }
        let retry = std::mem::take(&mut self.retry);
        let interfaces_due = self.interfaces.due(&network, retry) || retry && self.untidy.is_some();
        let stepped = std::mem::take(&mut self.restep);
        if stepped {
            self.step_tables(&plan, &network);
        }
        if stepped || interfaces_due {
            self.settle_interfaces(queries, &plan, &network, interfaces_due).await;
        }
        if planned || stepped || interfaces_due {
            self.tell_standings(&plan);
        }
    }
}

fn replace<T: PartialEq>(target: &mut T, value: T) -> bool {
    let differs = *target != value;
    if differs {
        *target = value;
    }
    differs
}
