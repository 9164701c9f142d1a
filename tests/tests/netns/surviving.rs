//! Hundreds of connections at once, over all nodes, while something happens. `cargo xtask bench survival` does more.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use tests::{
    lab::agent,
    survival::{
        arena::{Arena, Scale},
        events::{Event, Pace},
        row,
    },
};

const SCALE: Scale = Scale {
    connections: 400,
    rate: 1000,
    nodes: 3,
    pods_per_node: 3,
    services: 2,
};

/// Plays `events` in a lab of their own.
fn nothing_breaks(events: &[Event]) -> Result<()> {
    let mut arena = Arena::new(SCALE)?;
    let mut play = || {
        for &event in events {
            let row = row::measure(&mut arena, event, Pace { churn: 3, flood: 1000 })?;
            ensure!(row.connections == SCALE.connections, "{row:?}");
            ensure!(row.answers >= SCALE.connections as u64, "hardly any traffic: {row:?}");
            ensure!(row.broken == 0 && row.causes == BTreeMap::new(), "{row:?}");
        }
        Ok(())
    };
    let outcome: Result<()> = play();
    outcome.map_err(|error| error.context(agent::last_words(&arena.lab)))
}

/// [C05]
#[test]
fn a_backend_that_joins_breaks_none_of_hundreds_of_connections() -> Result<()> {
    nothing_breaks(&[Event::BackendAdded])
}

/// [C05] Not even those at the backend, because it lives on.
#[test]
fn a_backend_that_drains_and_leaves_breaks_none_of_hundreds_of_connections() -> Result<()> {
    nothing_breaks(&[Event::BackendDrained])
}

/// [C11] And the router sends what was one node's to another.
#[test]
fn nodes_and_agents_that_die_and_come_back_break_none_of_hundreds_of_connections() -> Result<()> {
    nothing_breaks(&[
        Event::AgentsKilled,
        Event::NodeKilled,
        Event::Upgrade,
        Event::NodeBack,
        Event::UpgradeLayout,
    ])
}
