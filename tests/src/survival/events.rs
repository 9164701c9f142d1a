//! What happens to the connections.

use super::{
    arena::{Arena, route_over, start_agent},
    flood::Flood,
    members::Members,
};
use crate::lab::{Agent, Lab, Node, manifests::Endpoint};
use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Between the death of a node and the router's noticing: three intervals of 100 ms, as BFD would.
const DETECTION: Duration = Duration::from_millis(300);
/// Other than the default: flows move to another map.
const OTHER_LAYOUT: [&str; 2] = ["--max-flow-buckets", "131072"];

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pod joins the slices.
    BackendAdded,
    /// A pod is terminating for a while and then gone from the slices, but goes on serving what it has.
    BackendDrained,
    /// Every second a tenth of the pods leaves the slices and those that left the second before come back.
    Churn,
    /// A node without backends loses its link and its agent, and the router turns to the others.
    NodeKilled,
    /// It comes back.
    NodeBack,
    /// All agents are killed at once and started again a second later.
    AgentsKilled,
    /// One agent after the other is stopped, and a new one takes its data path over.
    Upgrade,
    /// The same, and the new ones want maps of another size.
    UpgradeLayout,
    /// All of it while the backends churn.
    Together,
    /// All of it under a SYN flood as well.
    TogetherFlooded,
}

/// How long events take that last.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Seconds of churn.
    pub churn: u32,
    /// SYNs per second of the flood.
    pub flood: u32,
}

impl Event {
    /// All, in the order in which they make sense.
    pub const ALL: [Self; 10] = [
        Self::BackendAdded,
        Self::BackendDrained,
        Self::AgentsKilled,
        Self::Upgrade,
        Self::UpgradeLayout,
        Self::NodeKilled,
        Self::NodeBack,
        Self::Churn,
        Self::Together,
        Self::TogetherFlooded,
    ];

    /// Its name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BackendAdded => "backend added",
            Self::BackendDrained => "backend removed with drain",
            Self::Churn => "10 % of the backends churn every second",
            Self::NodeKilled => "LB node killed",
            Self::NodeBack => "LB node back",
            Self::AgentsKilled => "agents killed (-9) and restarted",
            Self::Upgrade => "agents upgraded",
            Self::UpgradeLayout => "agents upgraded, other map sizes",
            Self::Together => "all together",
            Self::TogetherFlooded => "all together under a SYN flood",
        }
    }

    /// Makes it happen, and returns when the last of it is programmed. Gives the number of SYNs of the flood, if it has one.
    ///
    /// # Errors
    /// When the lab fails, which is no finding about connections.
    pub fn play(self, arena: &mut Arena, pace: Pace) -> Result<u64> {
        let mut syns = 0;
        let Arena {
            agents, members, lab, ..
        } = arena;
        match self {
            Self::BackendAdded => added(lab, members)?,
            Self::BackendDrained => {
                drain(lab, members)?;
                arena.programmed()?;
                gone(&arena.lab, &arena.members)?;
            }
            Self::Churn => churn(lab, members, |second| second < pace.churn)?,
            Self::NodeKilled => node_killed(lab, agents)?,
            Self::NodeBack => node_back(lab, agents)?,
            Self::AgentsKilled => agents_killed(lab, agents)?,
            Self::Upgrade => upgrade(lab, agents, &[])?,
            Self::UpgradeLayout => upgrade(lab, agents, &OTHER_LAYOUT)?,
            Self::Together => together(lab, members, agents)?,
            Self::TogetherFlooded => {
                let flood = Flood::start(lab, members.targets(), pace.flood)?;
                together(lab, members, agents)?;
                syns = flood.stop()?;
            }
        }
        arena.programmed()?;
        Ok(syns)
    }
}

/// A pod that is not listed joins.
fn added(lab: &Lab, members: &Members) -> Result<()> {
    let count = members.pods().len();
    members.change(lab, |listed| {
        if let Some(absent) = (0..count).rev().find(|place| !listed.contains_key(place)) {
            listed.insert(absent, Endpoint::Ready);
        }
    })
}

/// A pod that is ready begins to end.
fn drain(lab: &Lab, members: &Members) -> Result<()> {
    members.change(lab, |listed| {
        if let Some(state) = listed.values_mut().find(|state| **state == Endpoint::Ready) {
            *state = Endpoint::Terminating;
        }
    })
}

/// Whatever is terminating leaves the slices.
fn gone(lab: &Lab, members: &Members) -> Result<()> {
    members.change(lab, |listed| listed.retain(|_, state| *state != Endpoint::Terminating))
}

/// As long as `on` says so of the number of the second, another tenth is away. In the end all are back.
fn churn(lab: &Lab, members: &Members, on: impl Fn(u32) -> bool) -> Result<()> {
    let begun = Instant::now();
    let mut away: Vec<usize> = Vec::new();
    let mut next = 0;
    for second in (0..).take_while(|&second| on(second)) {
        members.change(lab, |listed| {
            let here: Vec<usize> = listed
                .iter()
                .filter(|(_, state)| **state == Endpoint::Ready)
                .map(|(&place, _)| place)
                .collect();
            come_back(listed, std::mem::take(&mut away));
            let tenth = here.len().div_ceil(10);
            away.extend((0..tenth).map(|step| here[(next + step) % here.len()]));
            next += tenth;
            listed.retain(|place, _| !away.contains(place));
        })?;
        let end = begun + Duration::from_secs(u64::from(second) + 1);
        thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    members.change(lab, |listed| come_back(listed, away))
}

/// Somebody else may have listed one of them meanwhile.
fn come_back(listed: &mut BTreeMap<usize, Endpoint>, places: Vec<usize>) {
    for place in places {
        listed.entry(place).or_insert(Endpoint::Ready);
    }
}

/// The node without backends, and those with.
fn split(lab: &Lab) -> Result<(&Node, Vec<&Node>)> {
    let (last, others) = lab.nodes.split_last().context("a run needs nodes")?;
    Ok((last, others.iter().collect()))
}

fn node_killed(lab: &Lab, agents: &mut [Option<Agent>]) -> Result<()> {
    let (dying, others) = split(lab)?;
    lab.router.output(&format!("ip link set {} down", dying.name))?;
    if let Some(agent) = agents.last_mut().and_then(Option::take) {
        agent.kill()?;
    }
    thread::sleep(DETECTION);
    route_over(lab, &others)
}

fn node_back(lab: &Lab, agents: &mut [Option<Agent>]) -> Result<()> {
    let (node, _) = split(lab)?;
    lab.router.output(&format!("ip link set {} up", node.name))?;
    // The router hears of the node when its agent serves.
    let agent = start_agent(lab, node, &[])?;
    if let Some(place) = agents.last_mut() {
        *place = Some(agent);
    }
    route_over(lab, &lab.nodes.iter().collect::<Vec<_>>())
}

fn agents_killed(lab: &Lab, agents: &mut [Option<Agent>]) -> Result<()> {
    let running: Vec<usize> = (0..agents.len()).filter(|&place| agents[place].is_some()).collect();
    agents.iter_mut().filter_map(Option::take).try_for_each(Agent::kill)?;
    thread::sleep(Duration::from_secs(1));
    for place in running {
        agents[place] = Some(start_agent(lab, &lab.nodes[place], &[])?);
    }
    Ok(())
}

fn upgrade(lab: &Lab, agents: &mut [Option<Agent>], arguments: &[&str]) -> Result<()> {
    for (node, place) in lab.nodes.iter().zip(agents) {
        let Some(old) = place.take() else { continue };
        old.stop()?;
        *place = Some(start_agent(lab, node, arguments)?);
    }
    Ok(())
}

/// The node dies early and comes back late; in between agents die and are replaced, and a pod joins and one leaves; and
/// the others churn all the while.
fn together(lab: &Lab, members: &Members, agents: &mut [Option<Agent>]) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let churning = scope.spawn(|| churn(lab, members, |_| !over.load(Ordering::Relaxed)));
        let outcome = in_turn(lab, members, agents);
        over.store(true, Ordering::Relaxed);
        let churned = churning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(churned)
    })
}

fn in_turn(lab: &Lab, members: &Members, agents: &mut [Option<Agent>]) -> Result<()> {
    added(lab, members)?;
    node_killed(lab, agents)?;
    agents_killed(lab, agents)?;
    drain(lab, members)?;
    upgrade(lab, agents, &[])?;
    gone(lab, members)?;
    upgrade(lab, agents, &OTHER_LAYOUT)?;
    node_back(lab, agents)
}
