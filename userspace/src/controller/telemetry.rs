//! Metrics of the controller, and whether it is well; `docs/metrics.md` lists all.

use super::election::Leading;
use crate::{
    metrics::{Alive, Watched, families::Family as Written},
    source::kube::Records,
};
use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use weir_core::controller::{Action, Event};

/// Longer than any request to the API server may take (295 s), after which the loop turns again.
const HANG: Duration = Duration::from_secs(600);

type Labels = [(&'static str, &'static str); 2];
type Label = [(&'static str, &'static str); 1];

/// What the controller tells as it goes; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    alive: Alive,
    now: Mutex<Now>,
    writes: Family<Labels, Counter>,
    events: Family<Label, Counter>,
    reviews: Family<Labels, Counter>,
    plan: Histogram,
}

/// What is true now.
#[derive(Debug, Default)]
struct Now {
    leading: Leading,
    transitions: Option<u64>,
    /// What it waits for before it can begin; `None` once it has read everything.
    waits_for: Option<String>,
    services: u64,
    eips: BTreeMap<String, EipNow>,
    /// Warnings that stand, by reason.
    warnings: BTreeMap<String, u64>,
    events_waiting: usize,
}

/// An Eip.
#[derive(Debug, Default)]
struct EipNow {
    addresses: u64,
    used: u64,
    /// Services that have something of it.
    services: u64,
}

/// What the API server asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    Admission,
    Conversion,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Result {
    Written,
    /// The object was another by then.
    TooOld,
    Refused,
}

impl Default for Telemetry {
    fn default() -> Self {
        let now = Now {
            waits_for: Some("nothing has been asked yet".into()),
            ..Now::default()
        };
        Self {
            shared: Arc::new(Shared {
                alive: Alive::default(),
                now: Mutex::new(now),
                writes: Family::default(),
                events: Family::default(),
                reviews: Family::default(),
                // A millisecond to seconds, 2.5 steps to a decade.
                plan: Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            }),
        }
    }
}

impl Telemetry {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.shared.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The controller's loop turns.
    pub(super) fn beat(&self) {
        self.shared.alive.beat();
    }

    /// What it waits for before it can begin; `None`: nothing.
    pub(super) fn waits_for(&self, what: Option<String>) {
        self.now().waits_for = what;
    }

    /// Until when it leads.
    pub(super) fn leads(&self, leading: Leading) {
        self.now().leading = leading;
    }

    /// How often the Lease has gone from one to another.
    pub(super) fn transitions(&self, transitions: i32) {
        self.now().transitions = u64::try_from(transitions).ok();
    }

    /// What is written into the objects.
    pub(super) fn read(&self, records: &Records) {
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let eips = records.eips.iter().map(|(name, eip)| {
            let eip = EipNow {
                addresses: number(eip.status.pool_size),
                used: number(eip.status.usage),
                services: 0,
            };
            (name.clone(), eip)
        });
        let mut eips: BTreeMap<_, _> = eips.collect();
        for name in records.services.values().filter_map(|service| service.label.as_ref()) {
            if let Some(eip) = eips.get_mut(name) {
                eip.services += 1;
            }
        }
        let mut now = self.now();
        now.eips = eips;
        now.services = records.services.values().filter(|service| service.marked()).count() as u64;
    }

    /// A plan took this long and has these warnings.
    pub(super) fn planned(&self, time: Duration, warnings: &[Event]) {
        self.shared.plan.observe(time.as_secs_f64());
        let mut counts = BTreeMap::new();
        for warning in warnings {
            *counts.entry(warning.reason.clone()).or_default() += 1;
        }
        self.now().warnings = counts;
    }

    /// A write went so.
    pub(super) fn wrote(&self, action: &'static str, result: Result) {
        let result = match result {
            Result::Written => "written",
            Result::TooOld => "too_old",
            Result::Refused => "refused",
        };
        let labels = [("action", action), ("result", result)];
        self.shared.writes.get_or_create(&labels).inc();
    }

    /// An event is sent.
    pub(super) fn said(&self, warning: bool) {
        let kind = if warning { "Warning" } else { "Normal" };
        self.shared.events.get_or_create(&[("type", kind)]).inc();
    }

    /// So many events wait to be sent.
    pub(super) fn events_wait(&self, waiting: usize) {
        self.now().events_waiting = waiting;
    }

    /// A question of the API server was answered so.
    pub(super) fn reviewed(&self, review: Review, result: &'static str) {
        let review = match review {
            Review::Admission => "admission",
            Review::Conversion => "conversion",
        };
        let labels = [("review", review), ("result", result)];
        self.shared.reviews.get_or_create(&labels).inc();
    }
}

/// What a write is called.
pub(super) const fn name(action: &Action) -> &'static str {
    match action {
        Action::Show { .. } => "show",
        Action::Mark { .. } => "mark",
        Action::Guard { .. } => "guard",
        Action::Record { .. } => "record",
    }
}

impl Watched for Telemetry {
    fn unwell(&self) -> Option<String> {
        self.shared.alive.unwell("controller", HANG)
    }

    fn unready(&self) -> Option<String> {
        self.now().waits_for.clone()
    }

    fn exposed(&self, openelb: bool) -> Registry {
        let mut whole = Registry::default();
        if openelb {
            whole.register_collector(Box::new(OpenElb(self.clone())));
        }
        let registry = whole.sub_registry_with_prefix("weir_controller");
        let shared = &self.shared;
        registry.register(
            "writes",
            "Writes of objects, by what is written and how it went",
            shared.writes.clone(),
        );
        registry.register("events", "Events sent", shared.events.clone());
        let help = "Questions of the API server to the webhooks, and how they were answered";
        registry.register("reviews", help, shared.reviews.clone());
        registry.register(
            "plan_duration_seconds",
            "Time it takes to find what is to be written",
            shared.plan.clone(),
        );
        registry.register_collector(Box::new(self.clone()));
        whole
    }
}

impl Collector for Telemetry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let now = self.now();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        Written::gauge(encoder, "build_info", "Version of the controller")?.put(&version, 1)?;
        let leading = u64::from(now.leading.now());
        Written::gauge(encoder, "leading", "Whether this controller leads")?.put_alone(leading)?;
        if let Some(transitions) = now.transitions {
            let help = "How often the Lease has gone from one controller to another";
            Written::counter(encoder, "lease_transitions", help)?.put_alone(transitions)?;
        }
        let help = "Events that wait to be sent";
        Written::gauge(encoder, "events_waiting", help)?.put_alone(now.events_waiting as u64)?;
        let help = "Services that have, or had and are about to lose, an address of ours";
        Written::gauge(encoder, "services", help)?.put_alone(now.services)?;
        let mut family = Written::gauge(encoder, "warnings", "Warnings that stand, by reason")?;
        for (reason, count) in &now.warnings {
            family.put(&[("reason", reason.as_str())], *count)?;
        }
        let mut family = Written::gauge(encoder, "eip_addresses", "Addresses of an Eip")?;
        for (name, eip) in &now.eips {
            family.put(&[("eip", name.as_str())], eip.addresses)?;
        }
        let mut family = Written::gauge(encoder, "eip_addresses_used", "Addresses of an Eip that are in use")?;
        for (name, eip) in &now.eips {
            family.put(&[("eip", name.as_str())], eip.used)?;
        }
        Ok(())
    }
}

/// What OpenELB's controller has, under its names.
#[derive(Debug)]
struct OpenElb(Telemetry);

impl Collector for OpenElb {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        type Value = fn(&EipNow) -> u64;
        let now = self.0.now();
        let families: [(&str, &str, Value); 3] = [
            ("addresses_total", "Addresses of an Eip", |eip| eip.addresses),
            ("addresses_in_use_total", "Addresses of an Eip that are in use", |eip| {
                eip.used
            }),
            (
                "services_allocated_total",
                "Services that have addresses of an Eip",
                |eip| eip.services,
            ),
        ];
        for (name, help, value) in families {
            let mut family = Written::gauge(&mut encoder, name, help)?;
            for (name, eip) in &now.eips {
                family.put(&[("eipName", name.as_str())], value(eip))?;
            }
        }
        Ok(())
    }
}
