//! Steps about who answers for a VIP.

use super::{
    report,
    stage::{self, Stage, expect},
};
use crate::lab::{
    Agent, Family,
    address::{FAMILIES, vip},
    agent,
};
use anyhow::Result;
use std::time::Instant;

pub(super) fn network(stage: &mut Stage) -> Result<()> {
    report::text(
        "client 10.99.0.2 --- router === LAN 10.10.0.0/24 === node-1 10.10.0.11 --- pods 10.244.1.11 10.244.1.12\n\
         \x20      fd10:99::2         fd10:10::/64           === node-2 10.10.0.12 --- pods 10.244.2.11 10.244.2.12\n\
         \x20                                                === node-3 10.10.0.13 --- pods 10.244.3.11 10.244.3.12",
    );
    for pod in stage.lab.pods().step_by(5) {
        let line = format!("curl -s http://{}:8080/", pod.address(Family::V4));
        let answer = stage.client(&line)?;
        expect(answer.contains(&pod.name), || format!("an answer of {}", pod.name))?;
    }
    report::shown("Debian's nginx runs in every pod and says which pod it is and which client it sees. No VIP yet.");
    Ok(())
}

pub(super) fn manifests(stage: &mut Stage) -> Result<()> {
    let eips = stage::eips();
    report::command(
        "every node",
        "cat manifests/eip.yaml",
        eips.split("---").next().unwrap_or_default(),
    );
    let argocd = stage::service("argocd", 2).yaml();
    report::command(
        "every node",
        "cat manifests/services.yaml",
        argocd.trim_end_matches("---\n"),
    );
    stage.lab.apply("eip.yaml", &eips)?;
    stage.publish(stage.lab.pods().collect::<Vec<_>>())?;

    let begin = Instant::now();
    stage.start_agents()?;
    report::command(
        "every node",
        "weir run --manifests manifests --interface eth0 --node NODE",
        "",
    );
    let owner = stage.owner(vip(Family::V4, 2))?;
    report::command(&owner.name, "weir status", &agent::status_table(&stage.lab, owner)?);
    report::shown(&format!(
        "All nodes were ready after {:.1} s; nobody told them about each other, they plan alike.",
        begin.elapsed().as_secs_f32()
    ));
    Ok(())
}

pub(super) fn neighbours(stage: &mut Stage) -> Result<()> {
    for (family, reason) in FAMILIES.into_iter().zip(["arp_reply", "neighbor_advertisement"]) {
        let address = vip(family, 2);
        stage.lab.router.output("ip neigh flush dev lan")?;
        let before = stage.counts(reason)?;
        stage.client(&format!("ping -c 1 -W 2 {address} | head -2"))?;
        stage.router(&format!("ip neigh show to {address} dev lan"))?;
        let owner = stage.owner(address)?;
        let held = owner.namespace.output(&format!("ip address show to {address}"))?;
        let shown = if held.is_empty() { "(nothing)" } else { &held };
        report::command(&owner.name, &format!("ip address show to {address}"), shown);
        expect(held.trim().is_empty(), || {
            format!("{address} on no interface, it is on {held}")
        })?;
        for (node, count) in stage.counts(reason)? {
            let answered = count - before[&node];
            expect((answered > 0) == (node == owner.name), || {
                format!(
                    "only {} to answer for {address}; {node} counted {answered} {reason}",
                    owner.name
                )
            })?;
            report::text(&format!("{node}: {reason} +{answered}"));
        }
        report::shown(&format!(
            "{} answers for {address}, from XDP: its stack does not have the address, and its counter went up.",
            owner.name
        ));
    }
    Ok(())
}

pub(super) fn counters(stage: &mut Stage) -> Result<()> {
    let owner = stage.owner(vip(Family::V4, 2))?;
    let table = agent::status_table(&stage.lab, owner)?;
    println!("  {}$ weir status", owner.name);
    table.lines().for_each(|line| println!("    {line}"));
    report::shown("Every packet has one reason, and every reason a counter.");
    let running = stage
        .agents
        .values_mut()
        .map(Agent::is_running)
        .collect::<Result<Vec<_>>>()?;
    expect(running.iter().all(|&running| running), || {
        "all three agents to be running".into()
    })
}
