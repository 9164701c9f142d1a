//! The suite `takeover`: what clients notice while Weir takes over from OpenELB and kube-proxy, by order of the steps.

use super::machine::Machine;
use crate::takeover::{Mode, Order, play, traffic::Seen};
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
    mode: Mode,
    order: Order,
    seen: Seen,
}

/// Plays the orders whose name contains `only`, each in a cluster of its own: all of layer-2 mode, and the documented one of VIP
/// mode, too.
///
/// # Errors
/// When the lab or Weir fails.
pub fn run(only: &str) -> Result<Report> {
    let mut rows = Vec::new();
    let played = Order::ALL
        .map(|order| (Mode::Layer2, order))
        .into_iter()
        .chain([(Mode::Vip, Order::Documented)]);
    for (mode, order) in played.filter(|(_, order)| order.name().contains(only)) {
        let name = || format!("{}, {} (the lab failed, not a client)", mode.protocol(), order.name());
        let all = play(mode, order).with_context(name)?;
        rows.extend(all.into_iter().map(|seen| Row { mode, order, seen }));
    }
    Ok(Report {
        machine: Machine::this(),
        rows,
    })
}

impl Row {
    /// As a table has them.
    fn cells(&self) -> [String; 8] {
        let Self { mode, order, seen } = self;
        [
            mode.protocol().to_owned(),
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
            "mode",
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
        for [mode, order, service, rest @ ..] in std::iter::once(head).chain(self.rows.iter().map(Row::cells)) {
            let _ = write!(text, "{mode:8}{order:52}{service:14}");
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
             | mode | order | Service | requests | failed | longest gap | connections held | broken |\n|---|---|---|---:|---:|---:|---:|---:|\n",
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
them. OpenELB's images are not in this lab: in mode layer2 its speaker is played by the kernel's ARP and NDP proxy on the node that
OpenELB chooses, which is the same one for all addresses, and in mode vip by keepalived on every node, of which the last is the master
and ends last. One client for each Service asks over new connections one after the other; ten connections are
kept and asked on. The router forgets ten times a second who has the addresses, so whoever does not answer is missed at once. Each row
begins with a new cluster. *Longest gap*: between two answers over new connections; *nothing is done* is what this machine does to
that by itself. *cluster*, *local*: `externalTrafficPolicy`.
";
