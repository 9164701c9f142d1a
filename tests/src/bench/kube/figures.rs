//! What was found, in words.

use super::super::machine::Machine;
use serde::Serialize;
use std::fs;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// Runnable tasks, averaged over the last minute of the run.
    load: String,
    services: u32,
    /// Endpoints of each Service, no two alike, in one EndpointSlice.
    endpoints: u32,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    what: String,
    value: f64,
    unit: &'static str,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
        }
    }
}

impl Report {
    pub(super) fn new(services: u32, endpoints: u32, rows: Vec<Row>) -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            machine: Machine::this(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            services,
            endpoints,
            rows,
        }
    }

    /// For a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let line = |row: &Row| format!("{:66}{:>10.2} {}\n", row.what, row.value, row.unit);
        format!("{}\n\n", self.circumstances()) + &self.rows.iter().map(line).collect::<String>()
    }

    /// For the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &Row| format!("| {} | {:.2} {} |\n", row.what, row.value, row.unit);
        format!(
            "# A Kubernetes API\n\nWritten by `cargo xtask bench kube`. {}.\n\n{METHOD}\n| what | value |\n|---|---:|\n",
            self.circumstances()
        ) + &self.rows.iter().map(line).collect::<String>()
    }

    fn circumstances(&self) -> String {
        let Self {
            services,
            endpoints,
            load,
            ..
        } = self;
        format!(
            "{}; {services} Services of {endpoints} endpoints; load at the end {load}",
            self.machine.line()
        )
    }
}

const METHOD: &str = "\
A real kube-apiserver and etcd, the agent of one node of a lab and one controller, each with its ServiceAccount's token and
rights, all on this one machine and busy with each other. *Agent's start to all programmed*: from the start of the process to its
first report, which comes after the first writes of the maps. *One endpoint*: one endpoint of one Service is replaced by another
(a patch of its EndpointSlice), the agent having used no CPU for 0.2 s before; *to map*: until no row leads to the old one in the
pinned maps, looked at from outside some ten thousand times a second; *answer*: until the API server has answered the patch;
*another watch*: until a watch of the bench's own has been told. *Requests*: by the API server's audit log, of agent and controller alone.
*Rolling update*: pods are replaced one after the other, two changes of a slice for each. *Own* memory is that of the process
without mapped BPF maps and program text.
";
