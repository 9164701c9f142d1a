//! Writing the report, beside the agent's own work: of thousands of frontends it takes a while.

use crate::{
    metrics::Telemetry,
    report::{InterfaceReport, Report, Reporter},
    source::netlink::Network,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::warn;
use weir_core::{model::Condition, plan::Plan, tables::Programmed};

/// With more frontends than this, a report is so large that it is not made after every change,
const MANY: usize = 256;
/// but after this many times as long as the last one took.
const SHARE: u32 = 20;

/// What one report is made of.
#[derive(Debug)]
pub(super) struct Contents {
    pub plan: Arc<Plan>,
    pub programmed: Programmed,
    pub network: Arc<Network>,
    pub interfaces: Vec<InterfaceReport>,
    pub conditions: Vec<Condition>,
}

/// The reporter, and when it is free.
#[derive(Debug)]
pub(super) struct Reporting {
    reporter: Reporter,
    telemetry: Telemetry,
    /// The report being written; gives how long to wait before the next.
    under_way: Option<JoinHandle<Duration>>,
    free: Instant,
    /// Something was put off until then.
    due: bool,
}

impl Reporting {
    /// Reports with `reporter`, and to `telemetry`.
    pub(super) fn new(reporter: Reporter, telemetry: Telemetry) -> Self {
        Self {
            reporter,
            telemetry,
            under_way: None,
            free: Instant::now(),
            due: false,
        }
    }

    /// Whether a report can be begun now; if not, it is put off until [`Self::ready`].
    pub(super) fn may_begin(&mut self) -> bool {
        self.due = self.under_way.is_some() || Instant::now() < self.free;
        !self.due
    }

    /// Begins to write a report. Needs a runtime.
    pub(super) fn begin(&mut self, contents: Contents) {
        let (reporter, telemetry) = (self.reporter.clone(), self.telemetry.clone());
        self.under_way = Some(spawn_blocking(move || {
            let begun = Instant::now();
            let Contents {
                plan,
                programmed,
                network,
                interfaces,
                conditions,
            } = contents;
            let report = reporter.report(&plan, &programmed, &network, interfaces, conditions);
            let report = Arc::new(report);
            // First, as it waits for no disk.
            telemetry.report(report.clone());
            write(&reporter, &report);
            if plan.frontends.len() > MANY {
                begun.elapsed() * SHARE
            } else {
                Duration::ZERO
            }
        }));
    }

    /// Waits until what was put off can be reported, for ever if nothing was; then it is the caller's. May be dropped at any
    /// time.
    pub(super) async fn ready(&mut self) {
        self.ended().await;
        if !self.due {
            return std::future::pending().await;
        }
        sleep_until(self.free).await;
        self.due = false;
    }

    /// Waits for what is being written, at the end; whether something has been put off that is to be reported now.
    pub(super) async fn last(&mut self) -> bool {
        self.ended().await;
        self.free = Instant::now();
        self.due
    }

    /// Waits until no report is being written.
    pub(super) async fn ended(&mut self) {
        if let Some(task) = &mut self.under_way {
            // One that panicked has said so.
            let pause = task.await.unwrap_or_default();
            self.under_way = None;
            self.free = Instant::now() + pause;
        }
    }

    /// Tells that nothing has been made true yet, and waits until that is written.
    pub(super) fn waiting(&self, awaited: String, conditions: Vec<Condition>) {
        write(&self.reporter, &self.reporter.waiting(awaited, conditions));
    }
}

fn write(reporter: &Reporter, report: &Report) {
    if let Err(problem) = reporter.write(report) {
        warn!(
            problem = &problem as &dyn std::error::Error,
            "`weir status` will show an older state"
        );
    }
}
