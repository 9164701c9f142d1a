//! `weir status`: the agent's last report with the counters of now. Works while the agent is dead.

mod table;

use crate::{
    apply::bpf::{
        self,
        counters::{Counters, Counts},
    },
    report::{self, BackendReport, FrontendReport, Report},
    store,
};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};
use weir_common::verdict::Reason;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs; field names are stable.
    Json,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent has ever reported here.
    #[error("no weir has run with --state-dir {}; start one with `weir run`, or name the folder it uses", .0.display())]
    NoReport(PathBuf),
    /// The report cannot be read.
    #[error(transparent)]
    Report(#[from] store::Error),
    /// Output failed.
    #[error("cannot print")]
    Print(#[source] io::Error),
    /// JSON failed.
    #[error("cannot print JSON")]
    Json(#[source] serde_json::Error),
}

/// A report with counters.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Whether the agent that wrote the report lives.
    pub agent_alive: bool,
    /// The report.
    #[serde(flatten)]
    pub report: Report,
    /// Frontends, instead of the report's, with counters.
    #[serde(rename = "frontends")]
    pub counted: Vec<CountedFrontend>,
    /// Reasons with counters; empty when there is no data path.
    pub reasons: Vec<CountedReason>,
    /// Why there are no counters.
    pub counters_missing: Option<String>,
}

/// A frontend with counters.
#[derive(Debug, Serialize)]
pub struct CountedFrontend {
    /// The frontend.
    #[serde(flatten)]
    pub frontend: FrontendReport,
    /// Packets from clients.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
    /// SYNs among them.
    pub syns: u64,
    /// Its backends, instead of the frontend's, with counters.
    #[serde(rename = "backends")]
    pub counted: Vec<CountedBackend>,
}

/// A backend with counters.
#[derive(Debug, Serialize)]
pub struct CountedBackend {
    /// The backend.
    #[serde(flatten)]
    pub backend: BackendReport,
    /// Packets this node sent to it.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
    /// Flows noted here for it, whoever chose it; only of backends of this node.
    pub flows: u64,
}

/// A reason with counters.
#[derive(Debug, Serialize)]
pub struct CountedReason {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Packets.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
}

/// Prints what the agent with `state_dir` reported, with the counters of its data path, or of that in `pin_dir`.
///
/// # Errors
///
/// [`Error`]; missing counters are none, the report is shown without.
pub fn print(pin_dir: Option<&Path>, state_dir: &Path, format: Format, out: &mut impl Write) -> Result<(), Error> {
    let report = report::read(state_dir)?.ok_or_else(|| Error::NoReport(state_dir.to_owned()))?;
    let ends = report.id_ends();
    let counts =
        Counters::open(pin_dir.unwrap_or(&report.pin_dir)).and_then(|all| all.read(ends.frontends, ends.backends));
    let status = Status::of(report, counts);
    match format {
        Format::Table => write!(out, "{}", table::render(&status)).map_err(Error::Print),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &status).map_err(Error::Json)?;
            writeln!(out).map_err(Error::Print)
        }
    }
}

impl Status {
    fn of(mut report: Report, counts: Result<Counts, bpf::Error>) -> Self {
        let agent_alive = report::start_ticks(report.pid) == Some(report.start_ticks);
        let counters_missing = counts.as_ref().err().map(|error| {
            let cause = std::error::Error::source(error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            format!("{error}{cause}")
        });
        let reasons = counts.as_ref().map(count_reasons).unwrap_or_default();
        let counts = counts.unwrap_or_default();
        let frontends = std::mem::take(&mut report.frontends);
        Self {
            agent_alive,
            counted: frontends
                .into_iter()
                .map(|frontend| count_frontend(frontend, &counts))
                .collect(),
            reasons,
            counters_missing,
            report,
        }
    }
}

fn count_frontend(mut frontend: FrontendReport, counts: &Counts) -> CountedFrontend {
    let total = counts.frontend(frontend.id);
    let backends = std::mem::take(&mut frontend.backends);
    let count = |backend: BackendReport| {
        let total = counts.backend(backend.id);
        CountedBackend {
            packets: total.packets,
            bytes: total.bytes,
            flows: total.flows,
            backend,
        }
    };
    CountedFrontend {
        packets: total.packets,
        bytes: total.bytes,
        syns: total.syns,
        counted: backends.into_iter().map(count).collect(),
        frontend,
    }
}

fn count_reasons(counts: &Counts) -> Vec<CountedReason> {
    let count = |reason: &Reason| {
        let total = counts.reason(*reason);
        CountedReason {
            name: reason.name(),
            description: reason.describe().trim(),
            packets: total.packets,
            bytes: total.bytes,
        }
    };
    Reason::ALL.iter().map(count).collect()
}
