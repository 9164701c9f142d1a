//! `weir check` says what would not work on a node before anything is attached, and changes nothing.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::{Family, Lab, Node, Shape, agent, client};

const SHAPE: Shape = Shape {
    nodes: 1,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

/// What `weir check` finds on a node, and whether it says that it would work.
fn check(lab: &Lab, node: &Node, interface: &str) -> Result<(bool, Vec<Value>)> {
    let output = agent::output(lab, node, "check", &["--interface", interface, "-o", "json"])?;
    let findings =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.success(), findings))
}

fn level<'a>(findings: &'a [Value], text: &str) -> Result<&'a str> {
    let finding = findings
        .iter()
        .find(|finding| finding["says"].as_str().is_some_and(|says| says.contains(text)));
    finding
        .and_then(|finding| finding["level"].as_str())
        .with_context(|| format!("nothing says {text} in {findings:?}"))
}

#[test]
fn a_node_that_would_serve_is_told_from_one_that_would_not() -> Result<()> {
    let lab = Lab::new(SHAPE)?;
    let node = lab.node("node-1")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(well, "{findings:?}");
    for text in [
        "no XDP program yet",
        "veth runs XDP programs",
        "MTU 1500",
        "no strict reverse-path filter",
    ] {
        ensure!(level(&findings, text)? == "ok", "{findings:?}");
    }

    let (well, findings) = check(&lab, node, "eth7")?;
    ensure!(
        !well && level(&findings, "no such interface")? == "problem",
        "{findings:?}"
    );

    node.namespace.output("ip link set eth0 mtu 1300")?;
    node.namespace
        .output("sysctl -qw net.ipv4.conf.eth0.rp_filter=1 net.ipv4.ip_forward=0")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(
        !well && level(&findings, "IPv6 needs 1280")? == "problem",
        "{findings:?}"
    );
    ensure!(
        level(&findings, "strict reverse-path filter:")? == "warning",
        "{findings:?}"
    );
    ensure!(
        level(&findings, "forwards no IPv4 packets")? == "warning",
        "{findings:?}"
    );
    Ok(())
}

#[test]
fn a_check_beside_a_running_agent_finds_its_programs_and_leaves_them() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let node = scene.owner(Family::V4)?;
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(
            well && level(&findings, "runs weir's XDP program")? == "ok",
            "{findings:?}"
        );
        scene.lab.client.run(|| client::ask(Scene::http(Family::V4))).map(drop)
    })
}
