//! One event measured.

use super::{
    arena::Arena,
    connections::Broken,
    events::{Event, Pace},
};
use crate::lab::agent;
use anyhow::Result;
use serde::Serialize;
use std::{collections::BTreeMap, time::Instant};

/// What an event did to the connections.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What happened.
    pub event: &'static str,
    /// Connections held open, all of whose backends lived.
    pub connections: usize,
    /// Those that broke.
    pub broken: usize,
    /// Segments that TCP sent again, the client's ends and the pods' together.
    pub packets_lost: u64,
    /// From the first change until every connection had answered a request made after the last one.
    pub seconds: f64,
    /// Requests answered meanwhile.
    pub answers: u64,
    /// SYNs of made-up clients meanwhile.
    pub flood: u64,
    /// Broken connections by how they ended.
    pub causes: BTreeMap<String, usize>,
    /// Packets counted on all nodes by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// Makes connections whole, plays `event` and counts.
///
/// # Errors
/// When the lab fails; broken connections are a finding and no failure.
pub fn measure(arena: &mut Arena, event: Event, pace: Pace) -> Result<Row> {
    arena.connections.mend()?;
    let (sent_again, reasons) = (arena.pods.retransmissions()?, arena.reasons()?);
    let begun = Instant::now();
    let flood = event.play(arena, pace)?;
    let census = arena.connections.census()?;
    let seconds = begun.elapsed().as_secs_f64();
    census.broken.iter().for_each(|broken| explain(arena, broken));
    let difference = |(name, now): (String, u64)| {
        let before = reasons.get(&name).copied().unwrap_or(0);
        (now > before).then(|| (name, now - before))
    };
    Ok(Row {
        event: event.name(),
        connections: census.connections,
        broken: census.broken.len(),
        packets_lost: census.retransmissions + arena.pods.retransmissions()? - sent_again,
        seconds,
        answers: census.answers,
        flood,
        causes: census
            .causes()
            .into_iter()
            .map(|(cause, count)| (format!("{cause:?}"), count))
            .collect(),
        reasons: arena.reasons()?.into_iter().filter_map(difference).collect(),
    })
}

/// Says of a broken connection what each node would do with it now, and who has had its row.
fn explain(arena: &Arena, broken: &Broken) {
    eprintln!("{broken:?}");
    let (from, to) = (broken.client.to_string(), broken.target.to_string());
    for node in &arena.lab.nodes {
        let said = agent::run(&arena.lab, node, "trace", &["--from", &from, "--to", &to]);
        eprintln!("{}: {}", node.name, said.unwrap_or_else(|error| format!("{error:#}")));
    }
}
