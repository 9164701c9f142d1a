//! `weir monitor` sees what really happens, alone and only while it asks.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, RingBuf};
use serde_json::Value;
use std::net::SocketAddr;
use tests::lab::{FAMILIES, Family, Node, Shape, agent, client, wait};
use weir_common::abi::LAYOUT_VERSION;

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

/// What a monitor of `node` says while clients ask the Service again and again, until `enough`.
fn watch(
    scene: &Scene,
    node: &Node,
    arguments: &[&str],
    asked: SocketAddr,
    enough: impl Fn(&[Value]) -> Result<()>,
) -> Result<Vec<Value>> {
    let mut monitor = agent::start(&scene.lab, node, "monitor", &[&["-o", "json"], arguments].concat())?;
    let seen = wait::until("samples", || {
        scene.lab.client.run(|| client::ask(asked))?;
        let lines = monitor.log();
        // The last line may be half written.
        let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let seen = whole
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()?;
        enough(&seen)?;
        Ok(seen)
    })?;
    ensure!(monitor.stop(wait::PATIENCE)?.success(), "{}", monitor.log());
    Ok(seen)
}

fn has(seen: &[Value], reason: &str) -> Result<Value> {
    let found = seen.iter().find(|line| line["reason"] == reason);
    found
        .cloned()
        .with_context(|| format!("nothing for {reason} in {seen:?}"))
}

#[test]
fn monitor_shows_verdicts_with_tunnel_and_backend() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let vip = Scene::http(family);
            let owner = scene.owner(family)?;
            let enough = |seen: &[Value]| {
                has(seen, "tunnel")
                    .and(has(seen, "local"))
                    .and(has(seen, "egress_reply"))?;
                // The monitor may have begun in the middle of a connection.
                let syn = seen
                    .iter()
                    .find(|line| line["flags"] == "SYN" && line["reason"] == "tunnel");
                ensure!(syn.is_some(), "no SYN in {seen:?}");
                Ok(())
            };
            let filter = vip.ip().to_string();
            let seen = watch(scene, owner, &["--vip", &filter], vip, enough)?;
            let tunnel = has(&seen, "tunnel")?;
            ensure!(
                tunnel["destination"] == vip.to_string() && tunnel["protocol"] == "TCP",
                "{tunnel}"
            );
            // The tunnel is over IPv4, whatever it carries.
            ensure!(tunnel["tunnel"][0] == owner.address(Family::V4).to_string(), "{tunnel}");
            ensure!(
                tunnel["interface"] == "eth0" && tunnel["verdict"] == "transmit",
                "{tunnel}"
            );
            let backend = tunnel["backend"].as_str().unwrap_or_default();
            ensure!(
                backend.contains("default/web on node-") && !backend.contains(&owner.name),
                "{tunnel}"
            );
            let local = has(&seen, "local")?;
            ensure!(local["vip"] == vip.to_string() && local["verdict"] == "pass", "{local}");
            ensure!(
                local["backend"].as_str().is_some_and(|name| name.contains(&owner.name)),
                "{local}"
            );
            let reply = has(&seen, "egress_reply")?;
            ensure!(
                reply["source"] == vip.to_string() && reply["verdict"] == "leaves",
                "{reply}"
            );
        }
        Ok(())
    })
}

#[test]
fn monitor_works_without_an_agent_shows_what_is_asked_for_and_ends_by_itself() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let family = Family::V4;
        let (vip, owner) = (Scene::http(family), scene.owner(family)?.name.clone());
        scene.agents.clear();
        let node = scene.lab.node(&owner)?;
        let only = |seen: &[Value]| {
            ensure!(seen.len() >= 3, "{seen:?}");
            Ok(())
        };
        let seen = watch(scene, node, &["--reason", "local", "--every", "2"], vip, only)?;
        ensure!(seen.iter().all(|line| line["reason"] == "local"), "{seen:?}");

        let mut monitor = agent::start(&scene.lab, node, "monitor", &["--count", "2"])?;
        let status = wait::until("the end", || {
            scene.lab.client.run(|| client::ask(vip))?;
            monitor.ended()?.context("it still runs")
        })?;
        ensure!(
            status.success() && monitor.log().lines().count() == 2,
            "{}",
            monitor.log()
        );
        Ok(())
    })
}

#[test]
fn only_one_monitor_reads_and_a_killed_one_goes_off() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let family = Family::V4;
        let node = scene.owner(family)?;
        let mut first = agent::start(&scene.lab, node, "monitor", &[])?;
        wait::until("a sample", || {
            scene.lab.client.run(|| client::ask(Scene::http(family)))?;
            ensure!(first.log().contains("10.10.1.2"), "{}", first.log());
            Ok(())
        })?;
        let refused = agent::run(&scene.lab, node, "monitor", &["--count", "1"]);
        let refused = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("another `weir monitor`"), "{refused}");
        first.kill()?;
        let map = MapData::from_pin(scene.lab.pin_directory(node).join(format!("v{LAYOUT_VERSION}/SAMPLES")))?;
        let mut ring = RingBuf::try_from(Map::RingBuf(map))?;
        wait::until("the end of samples that nobody asks for any more", || {
            let mut left = || std::iter::from_fn(|| ring.next().map(drop)).count();
            left();
            scene.lab.client.run(|| client::ask(Scene::http(family)))?;
            let sampled = left();
            ensure!(sampled == 0, "{sampled} samples");
            Ok(())
        })
    })
}
