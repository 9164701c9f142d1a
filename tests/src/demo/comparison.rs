//! The step that puts the same Service done with nftables beside Weir.

use super::{
    report,
    stage::{IPERF_PORT, MEASURED, Stage, expect},
};
use crate::lab::{Family, address::vip, agent, nat::Nat, wait};
use anyhow::{Context, Result};
use serde_json::Value;

/// Seconds of one measurement.
const SECONDS: u32 = 3;

pub(super) fn throughput(stage: &mut Stage) -> Result<()> {
    let address = vip(Family::V4, MEASURED);
    let owner = stage.owner(address)?.name.clone();
    expect(stage.measured_pod().node != owner, || {
        format!("{owner} not to be the node of the measured pod")
    })?;
    let weir = [measure(stage, false)?, measure(stage, true)?];

    for (name, agent) in std::mem::take(&mut stage.agents) {
        agent.stop()?;
        let node = stage.lab.node(&name)?;
        agent::detach(&stage.lab, node)?;
        // The kernel takes a program off its device a moment after the last reference is gone.
        wait::until("the programs to be gone", || {
            let link = node.namespace.output("ip link show dev eth0")?;
            expect(!link.contains("xdp"), || format!("no program left on {name}: {link}"))
        })?;
        expect(!stage.lab.pin_directory(node).exists(), || {
            format!("no pins left on {name}")
        })?;
    }
    report::command("every node", "weir run --detach", "");
    let nat = Nat::start(
        stage.lab.node(&owner)?,
        address,
        IPERF_PORT,
        &[stage.measured_pod()],
        IPERF_PORT,
    )?;
    let before = stage.lab.node(&owner)?.namespace.output("nft list table ip lab")?;
    report::command(&owner, "nft list table ip lab", &before);
    let nft = [measure(stage, false)?, measure(stage, true)?];
    drop(nat);

    println!(
        "    {:28}{:>12}{:>12}{:>8}",
        "Gbit/s over one connection", "Weir", "nftables", "ratio"
    );
    for (what, (weir, nft)) in ["client to pod", "pod to client"]
        .into_iter()
        .zip(weir.into_iter().zip(nft))
    {
        println!("    {what:28}{weir:12.2}{nft:12.2}{:8.2}", weir / nft);
    }
    report::shown(
        "All of this shares two or so cores with client, pods and router, so read the ratio, not the rates. \
         nftables hides the client's address and carries replies through the same node.",
    );
    Ok(())
}

/// Gbit/s of one TCP connection to the measured Service, or from it.
fn measure(stage: &Stage, from_pod: bool) -> Result<f64> {
    let direction = if from_pod { " --reverse" } else { "" };
    let line = format!(
        "iperf3 --client {} --port {IPERF_PORT} --time {SECONDS}{direction} --json",
        vip(Family::V4, MEASURED)
    );
    let text = stage.client_unseen(&line)?;
    let result: Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
    let rate = result
        .pointer("/end/sum_received/bits_per_second")
        .and_then(Value::as_f64);
    let rate = rate.with_context(|| format!("expected a rate from iperf3, it says {}", result["error"]))?;
    report::command("client", &line, &format!("{:.2} Gbit/s", rate / 1e9));
    Ok(rate / 1e9)
}
