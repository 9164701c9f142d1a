//! The demo: a VIP for `argocd` and one for `ingress`, served by XDP on three nodes, shown step by step.
//!
//! Every step prints what it runs and what came back, says in a sentence what that means, and checks it: the demo fails
//! with what was expected as soon as a step is not true.

mod announcing;
mod change;
mod comparison;
mod report;
mod serving;
mod stage;

use crate::lab::agent;
use anyhow::Result;
use stage::Stage;
use std::{io, time::Instant};

type Step = (&'static str, fn(&mut Stage) -> Result<()>);

const STEPS: [Step; 11] = [
    (
        "A network: a client, a router, three nodes with two pods each",
        announcing::network,
    ),
    (
        "The manifests an OpenELB user has, and an agent on each node",
        announcing::manifests,
    ),
    ("ARP and NDP are answered by XDP", announcing::neighbours),
    ("Names in the client's hosts file", serving::names),
    ("Requests are spread over the pods of all nodes", serving::spread),
    (
        "A pod on another node sees the client's own address",
        serving::client_address,
    ),
    ("A reply does not pass the load-balancing node", serving::reply_path),
    ("A pod leaves and comes back under traffic", change::pods),
    (
        "The agent of the load-balancing node is killed during a download",
        change::agent,
    ),
    ("What the node counted", announcing::counters),
    (
        "Throughput, beside nftables doing DNAT and SNAT for the same Service",
        comparison::throughput,
    ),
];

/// Runs all steps. With `hold` the network stays afterwards, until Enter or an interrupt.
///
/// # Errors
/// When a step is not true, with what was expected.
pub fn run(hold: bool) -> Result<()> {
    let begin = Instant::now();
    let mut stage = Stage::new()?;
    for (number, (title, step)) in (1..).zip(STEPS) {
        report::heading(number, title);
        if let Err(error) = step(&mut stage) {
            eprint!("\n{}", agent::last_words(&stage.lab));
            return Err(error.context(format!("step {number} ({title}) is not true")));
        }
    }
    println!(
        "\nAll {} steps are true; {:.0} seconds.",
        STEPS.len(),
        begin.elapsed().as_secs_f32()
    );
    if hold {
        stage.start_agents()?;
        stage.print_playground()?;
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}
