//! The suite `lab`: packets per second through a node of the lab, generator and end included, on one core.
//!
//! [`generator`] sends and times, [`path`] sets up what is timed, [`rules`] and [`conntrack`] are for the kernel's ways.

pub mod generator;

mod conntrack;
mod path;
mod rules;

use super::{machine::Machine, report::quantile};
use anyhow::{Context, Result};
use generator::Flows;
use path::{Path, Stage};
use serde::Serialize;
use std::{fmt::Write, path::Path as Folder};

/// How long a run takes.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    rounds: usize,
    /// Packets per round on ways that stay in XDP.
    packets: u32,
    /// Packets per round on the kernel's; as many flows fit its table of connections.
    kernel_packets: u32,
    services: &'static [u32],
}

/// Nine rounds.
pub const FULL: Effort = Effort {
    rounds: 9,
    packets: 1_000_000,
    kernel_packets: 60_000,
    services: &[1, 1000, 5000],
};
/// Three rounds, shorter, and without the 5,000 Services.
pub const QUICK: Effort = Effort {
    rounds: 3,
    packets: 200_000,
    kernel_packets: 20_000,
    services: &[1, 1000],
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// Rounds of each row.
    rounds: usize,
    rows: Vec<Row>,
}

/// One way with one kind of flows.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The way.
    path: &'static str,
    /// Services there were; 0 where there are none.
    services: u32,
    /// Whether every packet was of a new flow, or of one of 1,024.
    new_flows: bool,
    /// Millions of packets a second, the median over the rounds.
    mpps: f64,
    /// Distance between the first and the third quartile of the rounds.
    spread_mpps: f64,
    /// Nanoseconds per packet, from the median.
    ns: f64,
    /// Packets a second as a share of a bare `XDP_TX` in the same rounds; the median over the rounds.
    of_xdp_tx: f64,
    /// Share of packets that did not arrive, the highest of the rounds.
    lost: f64,
}

/// Measures the ways whose name contains `only`, with what `cargo xtask build-ebpf` left in `objects`.
///
/// # Errors
/// When something cannot be set up, or no packet arrives.
pub fn run(effort: Effort, only: &str, objects: &Folder) -> Result<Report> {
    let mut rows = Vec::new();
    let plain = [Path::Drop, Path::Transmit, Path::Redirect, Path::Forward].map(|path| (path, 0));
    let with_services = [Path::Weir, Path::Iptables, Path::Nftables]
        .into_iter()
        .flat_map(|path| effort.services.iter().map(move |&services| (path, services)));
    for (path, services) in plain.into_iter().chain(with_services) {
        if !path.name().contains(only) {
            continue;
        }
        let stage = Stage::new(path, services, objects);
        let mut stage = stage.with_context(|| format!("{} with {services} Services", path.name()))?;
        let kinds: &[Flows] = if services == 0 {
            &[Flows::Established]
        } else {
            &[Flows::Established, Flows::New]
        };
        for &flows in kinds {
            let row = measure(&mut stage, path, services, flows, effort)?;
            eprintln!("{}", line(&row));
            rows.push(row);
        }
    }
    Ok(Report {
        machine: Machine::this(),
        rounds: effort.rounds,
        rows,
    })
}

fn measure(stage: &mut Stage, path: Path, services: u32, flows: Flows, effort: Effort) -> Result<Row> {
    let packets = if path.is_kernels() {
        effort.kernel_packets
    } else {
        effort.packets
    };
    stage.reference(flows, effort.packets / 4)?;
    stage.round(flows, packets / 4)?;
    let (mut rates, mut shares, mut lost) = (Vec::new(), Vec::new(), 0.0_f64);
    for _ in 0..effort.rounds {
        let reference = stage.reference(flows, effort.packets)?;
        let round = stage.round(flows, packets)?;
        rates.push(round.rate);
        shares.push(round.rate / reference.rate);
        lost = lost.max(round.lost);
    }
    let rate = quantile(&rates, 0.5);
    Ok(Row {
        path: path.name(),
        services,
        new_flows: flows == Flows::New,
        mpps: rate / 1e6,
        spread_mpps: (quantile(&rates, 0.75) - quantile(&rates, 0.25)) / 1e6,
        ns: 1e9 / rate,
        of_xdp_tx: quantile(&shares, 0.5),
        lost,
    })
}

fn line(row: &Row) -> String {
    let Row {
        path,
        services,
        mpps,
        spread_mpps,
        ns,
        of_xdp_tx,
        lost,
        ..
    } = row;
    format!(
        "{path:28}{services:>9}{:>13}{mpps:>8.3}{spread_mpps:>8.3}{ns:>9.0}{of_xdp_tx:>11.3}{lost:>7.3}",
        flows(row)
    )
}

fn flows(row: &Row) -> &'static str {
    if row.new_flows { "new" } else { "established" }
}

impl Report {
    /// For a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(line).collect();
        format!(
            "{}\n\n{:28}{:>9}{:>13}{:>8}{:>8}{:>9}{:>11}{:>7}\n{}",
            self.machine.line(),
            "path",
            "Services",
            "flows",
            "Mpps",
            "spread",
            "ns",
            "of XDP_TX",
            "lost",
            rows.join("\n")
        )
    }

    /// For the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Packets per second in the lab\n\nWritten by `cargo xtask bench lab`. {}; {} rounds.\n\n{METHOD}\n\
             | path | Services | flows | Mpps | spread | ns | of XDP_TX |\n|---|---:|---|---:|---:|---:|---:|\n",
            self.machine.line(),
            self.rounds
        );
        for row in &self.rows {
            let Row {
                path,
                services,
                mpps,
                spread_mpps,
                ns,
                of_xdp_tx,
                ..
            } = row;
            let services = if *services == 0 {
                "-".into()
            } else {
                services.to_string()
            };
            let _ = writeln!(
                text,
                "| {path} | {services} | {} | {mpps:.2} | {spread_mpps:.2} | {ns:.0} | **{of_xdp_tx:.2}** |",
                flows(row)
            );
        }
        text
    }
}

const METHOD: &str = "\
An XDP program run with live frames writes 60-byte IPv4 UDP frames and sends them into a veth; what is measured is at the other
end of it; an XDP program (a tc program for the kernel's ways) counts and drops what comes out. All of it runs on one pinned
core, so a rate is that of the whole way, generator included. Each round measures a bare `XDP_TX` beside the path; *of XDP_TX* is
the median of the rounds' ratios, *spread* the distance between their quartiles. Established: 1,024 flows in random order. New:
every packet another flow; the kernel's table of connections is emptied between rounds. The packets are for the last of the
Services, whose endpoints are three pods: for Weir on another node, so that a packet goes back out in the tunnel; for the
kernel on this one.
";
