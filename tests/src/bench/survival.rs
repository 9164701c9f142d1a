//! The suite `survival`: connections that break, by event.

use super::machine::Machine;
use crate::survival::{
    arena::{Arena, Scale},
    events::{Event, Pace},
    row::{self, Row},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;

/// How large a run is and how long its events last.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    scale: Scale,
    pace: Pace,
}

/// Ten thousand connections.
pub const FULL: Effort = Effort {
    scale: Scale {
        connections: 10_000,
        rate: 3000,
        nodes: 5,
        pods_per_node: 8,
        services: 4,
    },
    pace: Pace {
        churn: 60,
        flood: 20_000,
    },
};
/// A thousand, and short events.
pub const QUICK: Effort = Effort {
    scale: Scale {
        connections: 1000,
        rate: 1000,
        pods_per_node: 5,
        ..FULL.scale
    },
    pace: Pace {
        churn: 10,
        flood: 10_000,
    },
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// Pods behind each VIP, listed or not.
    backends: usize,
    /// VIPs, of both families.
    vips: usize,
    /// Requests per second over all connections.
    rate: u32,
    rows: Vec<Row>,
}

/// Plays the events whose name contains `only`.
///
/// # Errors
/// When the lab fails.
pub fn run(effort: Effort, only: &str) -> Result<Report> {
    let mut arena = Arena::new(effort.scale)?;
    let mut rows = Vec::new();
    for event in Event::ALL.into_iter().filter(|event| event.name().contains(only)) {
        let row = row::measure(&mut arena, event, effort.pace);
        let row = row.with_context(|| format!("{} (the lab failed, not a connection)", event.name()))?;
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    Ok(Report {
        machine: Machine::this(),
        backends: arena.members.pods().len(),
        vips: arena.members.targets().len(),
        rate: effort.scale.rate,
        rows,
    })
}

fn line(row: &Row) -> String {
    let Row {
        event,
        connections,
        broken,
        packets_lost,
        seconds,
        answers,
        causes,
        ..
    } = row;
    let causes: Vec<_> = causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    format!(
        "{event:40}{connections:>8}{broken:>8}{packets_lost:>8}{seconds:>9.1}{answers:>10}  {}",
        causes.join(", ")
    )
}

impl Report {
    /// For a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(line).collect();
        format!(
            "{}\n\n{:40}{:>8}{:>8}{:>8}{:>9}{:>10}\n{}",
            self.circumstances(),
            "event",
            "held",
            "broken",
            "lost",
            "seconds",
            "answers",
            rows.join("\n")
        )
    }

    /// For the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Connections that survive\n\nWritten by `cargo xtask bench survival`. {}.\n\n{METHOD}\n\
             | event | connections | broken | packets lost | answers | seconds |\n|---|---:|---:|---:|---:|---:|\n",
            self.circumstances()
        );
        for row in &self.rows {
            let Row {
                event,
                connections,
                broken,
                packets_lost,
                seconds,
                answers,
                ..
            } = row;
            let _ = writeln!(
                text,
                "| {event} | {connections} | **{broken}** | {packets_lost} | {answers} | {seconds:.1} |"
            );
        }
        text
    }

    fn circumstances(&self) -> String {
        let Self {
            backends, vips, rate, ..
        } = self;
        format!(
            "{}; {vips} VIPs, {backends} backends behind each, {rate} requests a second",
            self.machine.line()
        )
    }
}

const METHOD: &str = "\
Real agents on the nodes of a lab of network namespaces; the router spreads packets over all of them (ECMP by the 5-tuple,
IPv4 and IPv6). All connections are held by one client, which asks over each in turn and checks that the answer is the one to
its request and comes from the pod that answered first. The pods live all the time, whatever the slices say, so every
connection has a living backend. *Broken*: reset, closed, answered wrongly or by another pod, or without an answer for 15
seconds. *Packets lost*: segments TCP sent again, at the client and in the pods together (`tcpi_total_retrans`); on a machine
this busy an answer that is late counts as well. *Seconds*: until each connection had answered a request made after the
event's last change was programmed. Before each event broken connections are replaced.

- *Backend removed with drain*: terminating, then gone from the slices. *Churn*: a tenth leaves the slices without a word, and
  comes back a second later when the next tenth leaves.
- *LB node killed*: link down and agent killed; the router turns to the other nodes 0.3 s later.
- *Agents upgraded*: each stopped and replaced in turn, in the second case with another size of its flow table, to which the
  flows move.
- *All together*: a backend is added, the LB node killed, all agents killed and restarted, a backend drained and removed, all
  agents upgraded in both ways, the LB node brought back, all while the backends churn.
- *SYN flood*: from made-up clients to all VIPs over all nodes, as long as the event.
";
