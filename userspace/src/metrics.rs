//! Metrics of the agent for Prometheus, and whether it is well: `/metrics`, `/healthz`, `/readyz`.
//!
//! What the kernel counts is read from the maps at the moment of a scrape, and costs nothing between two of them; only
//! what cannot be read back, how long the agent's own steps took, is recorded as it happens. `docs/metrics.md` lists all.

mod alive;
pub(crate) mod families;
mod serve;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

pub use alive::Alive;
pub(crate) use serve::listen;
pub use serve::{BindError, Exposure, Serving, Watched, serve};

use crate::report::Report;
use prometheus_client::{collector::Collector, metrics::histogram::Histogram, registry::Registry};
use snapshot::{Maps, OpenElb};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The agent says at least this often that it lives; three times as long without is taken for a hang.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the agent tells as it goes; cheap to clone, all clones are one.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// From when a change was seen until the maps show it, in seconds.
    latency: Histogram,
    /// Time a plan takes, in seconds.
    plan: Histogram,
    /// Time the tables take to find the writes, in seconds.
    step: Histogram,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    report: Mutex<Option<Arc<Report>>>,
    programmed: AtomicBool,
    alive: Alive,
}

impl Default for Telemetry {
    fn default() -> Self {
        // A millisecond to minutes, 2.5 steps to a decade.
        let seconds = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ])
        };
        Self {
            latency: seconds(),
            plan: seconds(),
            step: seconds(),
            shared: Arc::new(Shared {
                report: Mutex::default(),
                programmed: AtomicBool::new(false),
                alive: Alive::default(),
            }),
        }
    }
}

impl Telemetry {
    /// A change that was seen at `seen` is in the maps now.
    pub fn programmed(&self, seen: tokio::time::Instant) {
        self.latency.observe(seen.elapsed().as_secs_f64());
    }

    /// A plan took this long.
    pub fn planned(&self, time: Duration) {
        self.plan.observe(time.as_secs_f64());
    }

    /// A step took this long.
    pub fn stepped(&self, time: Duration) {
        self.step.observe(time.as_secs_f64());
    }

    /// Whether the maps are as planned.
    pub fn set_programmed(&self, programmed: bool) {
        self.shared.programmed.store(programmed, Ordering::Relaxed);
    }

    /// What is true now.
    pub fn report(&self, report: Arc<Report>) {
        *self.shared.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    /// The agent's loop turns.
    pub fn beat(&self) {
        self.shared.alive.beat();
    }

    /// Whether packets are drawn here by an agent that is at work. Less than [`Watched::unready`] asks for: one interface of
    /// several that cannot be had, or one entry of a map, takes no Service from a node that serves all others.
    pub fn forwards(&self) -> bool {
        let attached = |report: Arc<Report>| report.interfaces.iter().any(|interface| interface.xdp_mode.is_some());
        self.unwell().is_none() && self.last_report().is_some_and(attached)
    }

    fn last_report(&self) -> Option<Arc<Report>> {
        let report = self.shared.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone()
    }

    /// Everything that is exposed: what was recorded, and what `maps` says.
    fn registry(&self, maps: impl Collector) -> Registry {
        let mut whole = Registry::default();
        let registry = whole.sub_registry_with_prefix("weir");
        for (name, help, histogram) in [
            (
                "programming_latency_seconds",
                "From when a change of manifests or network was seen until the maps show it",
                &self.latency,
            ),
            ("plan_duration_seconds", "Time a plan takes", &self.plan),
            (
                "step_duration_seconds",
                "Time it takes to find the writes that lead to a plan",
                &self.step,
            ),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register_collector(Box::new(maps));
        whole
    }
}

impl Watched for Telemetry {
    fn unwell(&self) -> Option<String> {
        self.shared.alive.unwell("agent", 3 * HEARTBEAT)
    }

    fn unready(&self) -> Option<String> {
        let Some(report) = self.last_report() else {
            return Some("nothing is programmed yet".to_owned());
        };
        if !self.shared.programmed.load(Ordering::Relaxed) {
            return Some("a map could not be written; it is tried again".to_owned());
        }
        let idle: Vec<&str> = report
            .interfaces
            .iter()
            .filter(|interface| interface.xdp_mode.is_none())
            .map(|interface| interface.name.as_str())
            .collect();
        (!idle.is_empty()).then(|| format!("XDP does not run on {}", idle.join(", ")))
    }

    fn exposed(&self, openelb: bool) -> Registry {
        let mut registry = self.registry(Maps::new(self.clone()));
        if openelb {
            registry.register_collector(Box::new(OpenElb::new(self.clone())));
        }
        registry
    }
}
