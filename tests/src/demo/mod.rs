//! The demo: a VIP for `argocd` and one for `ingress`, served by XDP on three nodes, shown step by step.
//!
//! Every step prints what it runs and what came back, says in a sentence what that means, and checks it: the demo fails
//! with what was expected as soon as a step is not true.

mod announcing;
mod change;
mod cluster;
mod comparison;
mod report;
mod serving;
mod stage;

use crate::lab::{Lab, agent};
use anyhow::{Result, ensure};
use cluster::Cluster;
use stage::Stage;
use std::{io, process::Command, time::Instant};

/// What a step is about, and what it does with what the steps share.
type Step<S> = (&'static str, fn(&mut S) -> Result<()>);

const IN_KUBERNETES: [Step<Cluster>; 9] = [
    (
        "A network of three nodes, and a Kubernetes control plane",
        cluster::network,
    ),
    (
        "Weir's definitions and rights, two controllers, three agents",
        cluster::install,
    ),
    ("OpenELB's guide to Layer 2 mode, applied as it is", cluster::guide),
    (
        "A default pool, and a Service made while all of that runs",
        cluster::live,
    ),
    ("A mistake is said where people look", cluster::mistakes),
    ("How the pool stands on the nodes", cluster::nodes),
    ("The leading controller is killed", cluster::leader_killed),
    ("The API server is gone for a while", cluster::server_gone),
    ("Addresses are given back", cluster::given_back),
];

const STEPS: [Step<Stage>; 11] = [
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
    let mut stage = Stage::new()?;
    play(&mut stage, &STEPS, |stage| &stage.lab)?;
    if hold {
        stage.start_agents()?;
        stage.print_playground()?;
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

/// The same in Kubernetes.
///
/// # Errors
/// As [`run`].
pub fn run_in_kubernetes(hold: bool) -> Result<()> {
    let mut cluster = Cluster::new()?;
    play(&mut cluster, &IN_KUBERNETES, |cluster| &cluster.lab)?;
    if hold {
        cluster.print_playground()?;
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

/// Runs `program`, which is the demo, as `cargo xtask demo` does.
///
/// # Errors
/// With all that it has printed, when it does not end by saying that its steps are true.
pub fn program_succeeds(program: &str, arguments: &[&str]) -> Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let played = Command::new(program).args(arguments).current_dir(root).output()?;
    let said = String::from_utf8_lossy(&played.stdout);
    let complaint = String::from_utf8_lossy(&played.stderr);
    let last = said.lines().last().unwrap_or_default();
    ensure!(
        played.status.success() && last.contains("steps are true"),
        "{said}\n{complaint}"
    );
    Ok(())
}

fn play<S>(shared: &mut S, steps: &[Step<S>], lab: impl Fn(&S) -> &Lab) -> Result<()> {
    let begin = Instant::now();
    for (number, (title, step)) in (1..).zip(steps) {
        report::heading(number, title);
        if let Err(error) = step(shared) {
            eprint!("\n{}", agent::last_words(lab(shared)));
            return Err(error.context(format!("step {number} ({title}) is not true")));
        }
    }
    let seconds = begin.elapsed().as_secs_f32();
    println!("\nAll {} steps are true; {seconds:.0} seconds.", steps.len());
    Ok(())
}
