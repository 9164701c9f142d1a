//! The suite `takeover`: what clients notice while Weir takes over from OpenELB and kube-proxy, by order of the steps.

use super::machine::Machine;
use crate::takeover::{Order, play, traffic::Seen};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    order: Order,
    seen: Seen,
}

/// Plays the orders whose name contains `only`, each in a cluster of its own.
///
/// # Errors
/// When the lab or Weir fails.
pub fn run(only: &str) -> Result<Report> {
    let mut rows = Vec::new();
    for order in Order::ALL.into_iter().filter(|order| order.name().contains(only)) {
        let all = play(order).with_context(|| format!("{} (the lab failed, not a client)", order.name()))?;
        rows.extend(all.into_iter().map(|seen| Row { order, seen }));
    }
    Ok(Report {
        machine: Machine::this(),
        rows,
    })
}

impl Row {
    /// As a table has them.
    fn cells(&self) -> [String; 7] {
        let Self { order, seen } = self;
        [
            order.name().to_owned(),
            seen.service.clone(),
            seen.requests.to_string(),
            seen.failed.to_string(),
            format!("{:.0} ms", seen.longest_gap.as_secs_f64() * 1000.0),
            seen.held.to_string(),
            seen.broken.to_string(),
        ]
    }
}

impl Report {
    /// For a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let head = [
            "order",
            "Service",
            "requests",
            "failed",
            "longest gap",
            "held",
            "broken",
        ]
        .map(str::to_owned);
        let mut text = format!("{}\n\n", self.machine.line());
        for [order, service, rest @ ..] in std::iter::once(head).chain(self.rows.iter().map(Row::cells)) {
            let _ = write!(text, "{order:52}{service:14}");
            for cell in rest {
                let _ = write!(text, "{cell:>12}");
            }
            text += "\n";
        }
        text
    }

    /// For the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# What a take-over costs\n\nWritten by `cargo xtask bench takeover`. {}.\n\n{METHOD}\n\
             | order | Service | requests | failed | longest gap | connections held | broken |\n|---|---|---:|---:|---:|---:|---:|\n",
            self.machine.line()
        );
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells().join(" | "));
        }
        text
    }
}

const METHOD: &str = "\
Three nodes with a pod each, a real API server, a real kube-proxy (nftables) on every node, Eips and Services as OpenELB 0.6 leaves
them. OpenELB's images are not in this lab: its speaker is played by the kernel's ARP and NDP proxy on the node that OpenELB chooses,
which is the same one for all addresses. One client for each Service asks over new connections one after the other; ten connections are
kept and asked on. The router forgets ten times a second who has the addresses, so whoever does not answer is missed at once. Each row
begins with a new cluster. *Longest gap*: between two answers over new connections; *nothing is done* is what this machine does to
that by itself. *cluster*, *local*: `externalTrafficPolicy`.
";
