//! A cluster that OpenELB serves, taken over by Weir while clients ask on: what they notice.
//!
//! [`stage`] is the cluster as OpenELB 0.6 leaves it, with a real kube-proxy on every node; [`speaker`] stands in for OpenELB's
//! own part of the packets' way, which is to answer who has an address. [`traffic`] are the clients. [`play`] does what
//! `docs/migration.md` says, or the same in another order.

pub mod speaker;
pub mod stage;
pub mod traffic;

use anyhow::Result;
use serde::Serialize;
use stage::Stage;
use std::{thread, time::Duration};
use traffic::{Seen, Traffic};

/// How OpenELB announced the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Mode {
    /// One speaker for each address answers by ARP and NDP.
    Layer2,
    /// keepalived has all addresses on the interface of one node.
    Vip,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Layer2, Self::Vip];

    /// As an Eip says it.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Layer2 => "layer2",
            Self::Vip => "vip",
        }
    }
}

/// What is done while clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Order {
    /// Nothing, for as long as the others take: what the machine does to clients by itself.
    Nothing,
    /// As documented: controller and agents, and then the speakers go.
    Documented,
    /// The same; on all nodes but one the agent starts late, as where its image has to be pulled first.
    LateAgents,
    /// Speakers go first, and agents come later.
    SpeakersFirst,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Documented, Self::LateAgents, Self::SpeakersFirst];

    /// In a few words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing is done",
            Self::Documented => "agents, then speakers go",
            Self::LateAgents => "one agent, 5 s later the others, then speakers go",
            Self::SpeakersFirst => "speakers go, 5 s later agents",
        }
    }
}

/// How long one state of things is looked at.
const A_WHILE: Duration = Duration::from_secs(3);
/// How much later the late ones are.
const LATE: Duration = Duration::from_secs(5);

/// Does it; gives what clients of each VIP have seen.
///
/// # Errors
/// When the lab or Weir fails. A client that gets no answer is none of that.
pub fn play(mode: Mode, order: Order) -> Result<Vec<Seen>> {
    let mut stage = Stage::new(mode)?;
    stage.hold(|stage| {
        let traffic = Traffic::start(&stage.lab, stage.services())?;
        let act = act(stage, order);
        let seen = traffic.stop();
        act?;
        seen
    })
}

fn act(stage: &mut Stage, order: Order) -> Result<()> {
    thread::sleep(A_WHILE);
    match order {
        Order::Nothing => thread::sleep(A_WHILE * 2),
        Order::Documented => {
            stage.start_controller()?;
            stage.start_agents(0..)?;
            stage.wait_for_agents()?;
            thread::sleep(A_WHILE);
            stage.speakers.clear();
        }
        Order::LateAgents => {
            stage.start_controller()?;
            // The one that all VIPs come in by.
            stage.start_agents(..1)?;
            stage.wait_for_agents()?;
            thread::sleep(LATE);
            stage.start_agents(1..)?;
            stage.wait_for_agents()?;
            thread::sleep(A_WHILE);
            stage.speakers.clear();
        }
        Order::SpeakersFirst => {
            stage.speakers.clear();
            stage.start_controller()?;
            thread::sleep(LATE);
            stage.start_agents(0..)?;
            stage.wait_for_agents()?;
        }
    }
    thread::sleep(A_WHILE);
    if order != Order::Nothing {
        stage.is_taken_over()?;
    }
    Ok(())
}
