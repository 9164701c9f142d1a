//! The suite `update`: how long a change of a manifest takes to reach the maps, with thousands of Services.

use super::{
    cost::{Memory, idle, until},
    machine::Machine,
    maps::{Maps, all},
    report::quantile,
    services::{self, vip},
};
use crate::lab::{Agent, Lab, Node, Shape, status::Status};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{net::Ipv4Addr, time::Instant};

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    services: u32,
    endpoints: u32,
    changes: u32,
}

/// As many as a large cluster has.
pub const FULL: Effort = Effort {
    services: 5000,
    endpoints: 20,
    changes: 200,
};
/// A tenth of it.
pub const QUICK: Effort = Effort {
    services: 500,
    endpoints: 20,
    changes: 20,
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// Services, each in a file of its own.
    services: u32,
    /// Endpoints of each Service, no two alike.
    endpoints: u32,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
}

/// Measures.
///
/// # Errors
/// When the agent fails or takes too long.
pub fn run(effort: Effort) -> Result<Report> {
    let lab = Lab::new(Shape {
        nodes: 3,
        pods_per_node: 1,
        ..Shape::default()
    })?;
    let world = World {
        lab: &lab,
        node: &lab.nodes[0],
        effort,
    };
    lab.apply_to(world.node, "eip.yaml", services::EIP)?;
    for service in 0..effort.services {
        world.write(service, None)?;
    }
    let begun = Instant::now();
    let agent = Agent::launch(&lab, world.node, &["--interface", "eth0"])?;
    let status = lab.state_directory(world.node).join("status.json");
    let loaded = until("the first report", || status.exists().then(|| begun.elapsed()))?;
    let report = Status::of(&lab, world.node)?;
    let programmed = report.frontends.iter().filter(|frontend| frontend.id.is_some()).count();
    ensure!(
        programmed == effort.services as usize,
        "{programmed} of {} frontends are programmed at the first report; {:?}",
        effort.services,
        report.conditions.first()
    );
    let after_load = Memory::of(agent.id())?;
    let mut latencies = world.changes(&agent)?;
    latencies.sort_by(f64::total_cmp);
    let after_changes = Memory::of(agent.id())?;
    let row = |what, value, unit| Row { what, value, unit };
    Ok(Report {
        machine: Machine::this(),
        services: effort.services,
        endpoints: effort.endpoints,
        rows: vec![
            row("start to all programmed", loaded.as_secs_f64(), "s"),
            row("one endpoint, file to map, p50", quantile(&latencies, 0.5), "ms"),
            row("one endpoint, file to map, p99", quantile(&latencies, 0.99), "ms"),
            row("one endpoint, file to map, worst", quantile(&latencies, 1.0), "ms"),
            row("changes measured", latencies.len() as f64, ""),
            row("resident after loading, with maps", after_load.all, "MiB"),
            row("resident after loading, own", after_load.own, "MiB"),
            row("resident after the changes, own", after_changes.own, "MiB"),
        ],
    })
}

struct World<'a> {
    lab: &'a Lab,
    node: &'a Node,
    effort: Effort,
}

impl World<'_> {
    /// Writes Service number `service`, with `replacement` in the place of its first endpoint.
    fn write(&self, service: u32, replacement: Option<Ipv4Addr>) -> Result<()> {
        let endpoints: Vec<_> = (0..self.effort.endpoints)
            .map(|number| {
                let node = &self.lab.nodes[number as usize % self.lab.nodes.len()];
                let address = replacement.filter(|_| number == 0);
                let address = address.unwrap_or_else(|| self.endpoint(service, number));
                (address.into(), node.name.as_str())
            })
            .collect();
        let yaml = services::service(service, "TCP") + &services::slice(service, "TCP", &endpoints);
        self.lab.apply_to(self.node, &format!("many-{service}.yaml"), &yaml)
    }

    fn endpoint(&self, service: u32, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + service * self.effort.endpoints + number)
    }

    /// Replaces the first endpoint of one Service after the other; milliseconds from the file's writing until no row
    /// leads to the old one any more.
    fn changes(&self, agent: &Agent) -> Result<Vec<f64>> {
        let maps = Maps::open(&self.lab.pin_directory(self.node))?;
        let frontends = maps.frontends()?;
        let mut latencies = Vec::new();
        for change in 0..self.effort.changes {
            idle(agent.id())?;
            // Spread over all of them.
            let service = change * (self.effort.services / self.effort.changes);
            let rows = frontends
                .get(&vip(service))
                .with_context(|| format!("{} has no frontend", vip(service)))?;
            let old = self.endpoint(service, 0);
            let new = Ipv4Addr::new(10, 192, (change >> 8) as u8, change as u8);
            let owned: Vec<u32> = all(*rows)
                .filter(|&index| maps.owner(index).is_ok_and(|owner| owner == old))
                .collect();
            ensure!(!owned.is_empty(), "{old} has no row of {}", vip(service));
            let begun = Instant::now();
            self.write(service, Some(new))?;
            let mut left = owned;
            let latency = until("the old endpoint to lose its rows", || {
                left.retain(|&index| maps.owner(index).is_ok_and(|owner| owner == old));
                left.is_empty().then(|| begun.elapsed())
            })?;
            let has_rows = all(*rows).any(|index| maps.owner(index).is_ok_and(|owner| owner == new));
            ensure!(has_rows, "{new} has no row of {}", vip(service));
            latencies.push(latency.as_secs_f64() * 1e3);
        }
        Ok(latencies)
    }
}

impl Report {
    /// For a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let line = |row: &Row| format!("{:40}{:>10.1} {}\n", row.what, row.value, row.unit);
        format!("{}\n\n", self.circumstances()) + &self.rows.iter().map(line).collect::<String>()
    }

    /// For the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &Row| format!("| {} | {:.1} {} |\n", row.what, row.value, row.unit);
        format!(
            "# Updates\n\nWritten by `cargo xtask bench update`. {}.\n\n{METHOD}\n| what | value |\n|---|---:|\n",
            self.circumstances()
        ) + &self.rows.iter().map(line).collect::<String>()
    }

    fn circumstances(&self) -> String {
        let Self {
            services, endpoints, ..
        } = self;
        format!("{}; {services} Services of {endpoints} endpoints", self.machine.line())
    }
}

const METHOD: &str = "\
A real agent on a node of the lab, over a folder with one file for each Service. *Start to all programmed*: from the start of
the process to its first report, which comes after the first writes of the maps. *File to map*: one endpoint of one Service is
replaced by another; from before the file is written until no row leads to the old one in the pinned maps, looked at from
outside some ten thousand times a second. Before each change the agent has used no CPU for 0.2 s. *Own* memory is
that of the process without mapped BPF maps and program text.
";
