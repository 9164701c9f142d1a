//! What a scrape reads: the agent's last report, the counters and the maps' fill of the moment.

use super::{Telemetry, families};
use crate::{
    apply::bpf::{
        self,
        counters::{Counters, Counts},
        fill::Fill,
    },
    report::Report,
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use std::{fmt, sync::Arc};
use tracing::warn;

/// All that metrics are made of.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the agent has made true.
    pub report: Arc<Report>,
    /// What the programs counted.
    pub counts: Counts,
    /// How full the maps are.
    pub fill: Fill,
}

impl Snapshot {
    fn read(report: Arc<Report>) -> Result<Self, bpf::Error> {
        let ends = report.id_ends();
        Ok(Self {
            counts: Counters::open(&report.pin_dir)?.read(ends.frontends, ends.backends)?,
            fill: Fill::read(&report.pin_dir)?,
            report,
        })
    }
}

/// Reads a snapshot whenever it is asked to encode itself.
#[derive(Debug)]
pub struct Maps {
    telemetry: Telemetry,
}

impl Maps {
    /// Of the agent that tells `telemetry`.
    pub const fn new(telemetry: Telemetry) -> Self {
        Self { telemetry }
    }
}

/// The same under OpenELB's names, as far as they have a true value here.
#[derive(Debug)]
pub struct OpenElb {
    telemetry: Telemetry,
}

impl OpenElb {
    /// Of the agent that tells `telemetry`.
    pub const fn new(telemetry: Telemetry) -> Self {
        Self { telemetry }
    }
}

impl Collector for OpenElb {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(report) = self.telemetry.last_report() else {
            return Ok(());
        };
        match Snapshot::read(report) {
            Ok(snapshot) => families::encode_openelb(&snapshot, encoder),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl Collector for Maps {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Before the first report there is nothing to tell.
        let Some(report) = self.telemetry.last_report() else {
            return Ok(());
        };
        match Snapshot::read(report) {
            Ok(snapshot) => families::encode(&snapshot, encoder),
            Err(problem) => {
                warn!(
                    problem = &problem as &dyn std::error::Error,
                    "a scrape found maps that cannot be read"
                );
                Err(fmt::Error)
            }
        }
    }
}
