//! Writing the report, beside the agent's own work: of thousands of frontends it takes a while. One that cannot be written is a
//! condition (for metrics and the log: the file does not show it), and is tried again.

use super::RETRY;
use crate::{
    causes::error_text,
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
use weir_core::{
    model::{Condition, ObjectRef},
    plan::{Plan, ThisNode},
    tables::Programmed,
};

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
    under_way: Option<JoinHandle<Written>>,
    free: Instant,
    /// Something was put off until then.
    due: bool,
    /// Why the last report could not be written.
    problem: Option<String>,
}

/// What became of a report.
#[derive(Debug, Default)]
struct Written {
    /// How long to wait before the next.
    pause: Duration,
    problem: Option<String>,
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
            problem: None,
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
            let problem = write(&reporter, &report);
            let many = plan.frontends.len() > MANY;
            let pause = if many { begun.elapsed() * SHARE } else { Duration::ZERO };
            Written { pause, problem }
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
            let ended = task.await;
            self.under_way = None;
            let Written { mut pause, problem } = ended.unwrap_or_else(|_| Written {
                problem: Some("making it panicked, and the log says where".to_owned()),
                ..Written::default()
            });
            if problem.is_some() {
                pause = pause.max(RETRY);
            }
            // What was written when it could be again still says that it cannot.
            self.due |= problem.is_some() || self.problem.is_some();
            self.problem = problem;
            self.free = Instant::now() + pause;
        }
    }

    /// Tells that nothing has been made true yet, and waits until that is written. Whether it is.
    pub(super) fn waiting(&mut self, awaited: String, conditions: Vec<Condition>) -> bool {
        let problem = write(&self.reporter, &self.reporter.waiting(awaited, conditions));
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.problem) {
            warn!(problem, "`weir status` will show an older state; trying again");
        }
        self.problem = problem;
        self.problem.is_none()
    }

    /// What is wrong, on `this` node.
    pub(super) fn condition(&self, this: &ThisNode) -> Option<Condition> {
        let problem = self.problem.as_ref()?;
        let message = format!(
            "what `weir status` shows is older than this, because it cannot be written: {problem}. It is tried again every few \
             seconds; check that the folder of --state-dir can be written and that its disk is not full."
        );
        let object = ObjectRef::cluster_scoped("Node", &this.name);
        Some(Condition::new(object, "--state-dir", "ReportNotWritten", message))
    }
}

/// Gives why it cannot be done.
fn write(reporter: &Reporter, report: &Report) -> Option<String> {
    reporter.write(report).err().map(|problem| error_text(&problem))
}

#[cfg(test)]
mod tests;
