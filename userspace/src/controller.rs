//! The controller: gives out addresses, for the whole cluster, by the Kubernetes API.
//!
//! One task: it waits for a snapshot of the objects, lets the core plan, makes the writes, and waits for the next snapshot,
//! which has them. Every write rests on the version that it was planned from; one that comes too late is refused by the API
//! server and planned anew. At rest nothing is written but the Lease by which one controller of several leads; agents write
//! theirs.
//!
//! It decides nothing itself ([`weir_core::controller`]) and keeps nothing: whoever leads next goes on from the objects.

mod election;
mod events;
mod exposing;
mod listening;
mod pauses;
mod telemetry;
mod tell;
#[cfg(test)]
mod tests;
mod webhook;
mod write;

pub use webhook::{FailurePolicy, Settings as WebhookSettings, Url};

use crate::{
    metrics::Exposure,
    source::kube::{self, Kube, KubeError, Scope},
};
use election::Leading;
use events::Speaker;
use pauses::{Pauses, REFUSED};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};
use telemetry::Telemetry;
use tell::Teller;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};
use weir_core::{
    controller::{Action, Fresh, Freshness, Liveness, News, Planned, World, plan},
    lease::Timing,
    model::{Rules, ServiceKey},
};
use write::{Object, Writer};

/// A write that no snapshot shows by then is planned anew.
const UNSEEN: Duration = Duration::from_secs(2);
/// Between two lists of the Services: the first time, and the longest; twice as long each time, for as long as one follows the
/// other.
const LISTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What a list had and no snapshot has by then is looked for in another list.
const AWAITED: Duration = Duration::from_secs(2);
/// The loop turns at least this often.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// What the controller is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this controller among those that would lead.
    pub identity: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Where metrics and probes are served; `None` is nowhere.
    pub metrics: Option<Exposure>,
    /// What is ours and what is given out.
    pub rules: Rules,
    /// The webhooks; without, the API server is told to ask nobody.
    pub webhook: Option<WebhookSettings>,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// Signals.
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT; then lets go of the Lease, so that another leads at once.
///
/// # Errors
///
/// What keeps it from starting; once it runs, what goes wrong is logged and tried again.
pub async fn run(settings: Settings) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let (client, server) = kube::client().await?;
    let timing = Timing::default();
    // What a leader has sent before it was cut off is not to arrive when another leads.
    let writing = kube::writing_client(timing.gap() * 4 / 5).await?;
    let telemetry = Telemetry::default();
    // What serves ends with this.
    let mut servers = JoinSet::new();
    if let Some(address) = settings.metrics {
        exposing::start(&mut servers, telemetry.clone(), address);
    }
    let mut source = Kube::follow(&client, &server, Scope::Controller);
    let (end, ended) = watch::channel(false);
    let (mut leading, election) = election::start(writing.clone(), &settings, timing, telemetry.clone(), ended);
    let (tell_service, service_exists) = watch::channel(false);
    let service = settings.webhook.as_ref().map(|webhook| ServiceKey {
        namespace: settings.namespace.clone(),
        name: webhook.service.clone(),
    });
    let mut looks = listening::start(&mut servers, &client, &settings.namespace, leading.clone());
    let around = webhook::Surroundings {
        client: client.clone(),
        namespace: settings.namespace,
        leading: leading.clone(),
        service_exists,
        telemetry: telemetry.clone(),
    };
    webhook::start(&mut servers, settings.webhook, around);
    let (speaker, sending) = Speaker::start(writing.clone(), &settings.identity, telemetry.clone());
    let mut controller = Controller {
        writer: Writer::new(writing.clone(), telemetry.clone()),
        teller: Teller::start(writing, telemetry.clone(), leading.clone()),
        speaker,
        telemetry,
        rules: settings.rules,
        leading: Leading::default(),
        world: None,
        due: false,
        service,
        tell_service,
        freshness: Freshness::default(),
        listed: Instant::now(),
        pause: Duration::ZERO,
        liveness: Liveness::default(),
        started: Instant::now(),
        news: News::default(),
        unseen: BTreeMap::new(),
        unseen_until: Instant::now(),
        pauses: Pauses::default(),
        refused_until: Instant::now(),
        wake: None,
    };
    info!(
        identity = settings.identity,
        server, "waiting for the Lease and the objects"
    );
    loop {
        controller.leading = leading.borrow_and_update().clone();
        controller.read(&mut source);
        controller.advance().await;
        let wake = controller.wake;
        tokio::select! {
            () = source.changed() => {
                for problem in source.conditions() {
                    warn!("{problem}");
                }
            }
            changed = leading.changed() => if changed.is_err() { break },
            Ok(()) = looks.changed() => controller.listen(&looks.borrow_and_update().clone()),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => controller.woken(),
            () = sleep(HEARTBEAT) => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("stopping; what is written stays");
    controller.teller.end().await;
    end.send_replace(true);
    if let Err(error) = election.await {
        warn!("the election ended badly: {error}");
    }
    // What it still has to say waits with its speaker.
    drop(controller);
    sending.finish().await;
    Ok(())
}

struct Controller {
    writer: Writer,
    teller: Teller,
    speaker: Speaker,
    telemetry: Telemetry,
    rules: Rules,
    leading: Leading,
    /// The last snapshot.
    world: Option<World>,
    /// Whether it is to be planned from.
    due: bool,
    /// The Service of the webhooks, and who wants to know whether it is there.
    service: Option<ServiceKey>,
    tell_service: watch::Sender<bool>,
    freshness: Freshness,
    /// When the Services were listed last, and how long they are not after that.
    listed: Instant,
    pause: Duration,
    /// Which agents speak, and the start of the clock for it.
    liveness: Liveness,
    started: Instant,
    news: News,
    /// Objects that were written, with the version that they had before, until a snapshot has another.
    unseen: BTreeMap<Object, String>,
    unseen_until: Instant,
    pauses: Pauses,
    /// Before when nothing is written, as nobody answered.
    refused_until: Instant,
    /// When to look again without anything having changed.
    wake: Option<Instant>,
}

impl Controller {
    /// Takes the next snapshot, if there is one, whether it leads or not.
    fn read(&mut self, source: &mut Kube) {
        self.telemetry.beat();
        self.telemetry.leads(self.leading.clone());
        if let Some(mut cluster) = source.read() {
            cluster.rules = self.rules.clone();
            let records = source.records();
            self.telemetry.read(records);
            let there = self
                .service
                .as_ref()
                .is_some_and(|service| records.services.contains_key(service));
            self.tell_service
                .send_if_modified(|told| std::mem::replace(told, there) != there);
            self.world = Some(World::new(
                cluster,
                records.services.clone(),
                records.eips.clone(),
                false,
            ));
            self.due = true;
        }
        let awaited: Vec<&str> = source.awaited().collect();
        let problems = source.conditions().map(|problem| format!("\n{problem}"));
        self.telemetry.waits_for((!awaited.is_empty()).then(|| {
            let problems: String = problems.collect();
            format!("not read yet: {}{problems}", awaited.join(", "))
        }));
    }

    /// Takes in what the agents' Leases say.
    fn listen(&mut self, look: &listening::Look) {
        let Some(world) = &self.world else { return };
        let before = self.silent();
        match look {
            Some(leases) => self.liveness.look(self.started.elapsed(), leases, world.nodes()),
            None => self.liveness.look_failed(),
        }
        self.due |= self.silent() != before;
    }

    fn silent(&self) -> BTreeSet<String> {
        self.liveness.silent().map(str::to_owned).collect()
    }

    /// It is time to look again.
    fn woken(&mut self) {
        self.wake = None;
        self.due = true;
    }

    /// Plans and writes, if it leads and there is something to plan from.
    async fn advance(&mut self) {
        if !self.leading.now() {
            // What the next leader, or we again, will have to say is not known.
            self.news = News::default();
            self.unseen.clear();
            self.liveness = Liveness::default();
            self.pauses = Pauses::default();
            self.teller.tell(Vec::new());
            self.due = true;
            return;
        }
        let now = Instant::now();
        if now < self.refused_until {
            self.wake_at(self.refused_until);
            return;
        }
        let Some(world) = self.world.take_if(|_| self.due) else {
            return;
        };
        self.due = false;
        self.world = Some(self.make_true(world).await);
    }

    /// Plans from `world` and writes; gives it back.
    async fn make_true(&mut self, world: World) -> World {
        self.unseen
            .retain(|object, version| object.version(&world) == Some(version.as_str()));
        if !self.unseen.is_empty() && Instant::now() < self.unseen_until {
            self.wake_at(self.unseen_until);
            return world;
        }
        self.unseen.clear();
        let give = self.is_fresh(&world).await;
        let world = world.giving(give).not_hearing(self.silent());
        let begun = Instant::now();
        let planned = plan(&world);
        self.telemetry.planned(begun.elapsed(), &planned.warnings);
        if give {
            // While nothing is given out, what is missing is no news.
            self.say_news(&world, &planned);
        }
        if !planned.actions.is_empty() {
            self.write(&world, planned.actions).await;
        }
        self.teller.tell(planned.telling);
        world
    }

    fn say_news(&mut self, world: &World, planned: &Planned) {
        let (events, next) = self.news.look(self.started.elapsed(), world, planned);
        for event in events {
            self.speaker.say(event);
        }
        if let Some(at) = next {
            self.wake_at(self.started + at);
        }
    }

    async fn write(&mut self, world: &World, actions: Vec<Action>) {
        let (actions, next) = self.pauses.pick(actions, Instant::now());
        if let Some(at) = next {
            self.wake_at(at);
        }
        if actions.is_empty() {
            return;
        }
        let outcome = self.writer.write(world, actions, &self.leading).await;
        for event in outcome.events {
            self.speaker.say(event);
        }
        let now = Instant::now();
        for object in outcome.written.keys() {
            let took = outcome.took.get(object).copied().unwrap_or_default();
            self.pauses.written(object, took, now);
        }
        for (object, event) in outcome.refused {
            let (again, first) = self.pauses.refused(object, now);
            if let Some(event) = event.filter(|_| first) {
                self.speaker.say(event);
            }
            self.wake_at(again);
        }
        self.unseen = outcome.written;
        self.unseen_until = now + UNSEEN;
        if outcome.unanswered {
            self.refused_until = now + REFUSED.0;
        }
        self.wake_at(now + UNSEEN);
    }

    /// Whether addresses may be given out by a snapshot; else it is looked at again later.
    async fn is_fresh(&mut self, world: &World) -> bool {
        let at = match self.freshness.observe(world) {
            Fresh::Yes => return true,
            Fresh::Unlisted => self.listed + self.pause,
            // The next snapshot may have what is missing.
            Fresh::Awaited => self.listed + AWAITED,
        };
        let now = Instant::now();
        if now < at {
            self.wake_at(at);
            return false;
        }
        let (first, longest) = LISTS;
        let follows = now < at + self.pause;
        self.pause = if follows { (self.pause * 2).min(longest) } else { first };
        let versions = self.writer.service_versions().await;
        self.listed = Instant::now();
        match versions {
            Ok(versions) => {
                let fresh = self.freshness.listed(world, versions) == Fresh::Yes;
                if !fresh {
                    self.wake_at(self.listed + AWAITED);
                }
                fresh
            }
            Err(error) => {
                warn!("cannot list the Services, so no addresses are given out: {error}");
                self.pause = REFUSED.0;
                self.wake_at(self.listed + REFUSED.0);
                false
            }
        }
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
