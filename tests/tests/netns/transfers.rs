//! Files through a VIP: nothing is lost to tunnels, large packets or checksums.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::{FAMILIES, Shape, agent, client, segments, servers, wait};

const LENGTH: usize = 20_000_000;

#[test]
fn twenty_megabytes_go_up_and_down_unharmed() -> Result<()> {
    Scene::play(
        Shape {
            nodes: 2,
            pods_per_node: 1,
            mtu: 1500,
            pod_offload: true,
        },
        |scene| up_and_down(scene),
    )
}

#[test]
fn twenty_megabytes_go_up_and_down_unharmed_with_finished_checksums() -> Result<()> {
    Scene::play(
        Shape {
            nodes: 2,
            pods_per_node: 1,
            mtu: 1500,
            pod_offload: false,
        },
        |scene| up_and_down(scene),
    )
}

#[test]
fn twenty_megabytes_go_up_and_down_unharmed_in_jumbo_frames() -> Result<()> {
    Scene::play(
        Shape {
            nodes: 2,
            pods_per_node: 1,
            mtu: 9000,
            pod_offload: true,
        },
        |scene| up_and_down(scene),
    )
}

/// Pods give their device more than 64 KiB at once, for which an IP header has no length.
#[test]
fn replies_beyond_64_kilobytes_get_the_vip() -> Result<()> {
    let shape = Shape {
        nodes: 2,
        pods_per_node: 1,
        mtu: 1500,
        pod_offload: true,
    };
    Scene::play(shape, |scene| {
        for pod in scene.lab.pods() {
            segments::allow(&pod.namespace, "eth0", 150_000)?;
            // A node does not route what fills the MTU once the header with its length is added, which no segment keeps.
            pod.namespace.output("ip link set eth0 mtu 1400")?;
        }
        servers::make_file(&scene.lab, "image", LENGTH)?;
        for family in FAMILIES {
            let node = scene.owner(family)?;
            let wanted = ["-o", "json", "--reason", "egress_reply"];
            let monitor = agent::start(&scene.lab, node, "monitor", &wanted)?;
            wait::until("a large reply", || {
                let image = scene
                    .lab
                    .client
                    .run(|| client::get(Scene::http(family), "/files/image"))?;
                ensure!(image == servers::content(LENGTH), "{family}: harmed on the way down");
                // The last line may be half written.
                let replies = monitor.log();
                let replies = replies.lines().flat_map(serde_json::from_str::<Value>);
                let largest = replies.filter_map(|reply| reply["length"].as_u64()).max();
                ensure!(
                    largest > Some(14 + 40 + 65_535),
                    "{family}: the largest has {largest:?} bytes"
                );
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Until both the local and the remote pod have served.
fn up_and_down(scene: &Scene) -> Result<()> {
    servers::make_file(&scene.lab, "image", LENGTH)?;
    let content = servers::content(LENGTH);
    for family in FAMILIES {
        let owner = scene.owner(family)?;
        for name in scene.lab.pods().map(|pod| pod.name.clone()) {
            let place = if name.starts_with(&owner.name) {
                "local"
            } else {
                "remote"
            };
            scene
                .lab
                .client
                .run(|| {
                    for _ in 0..60 {
                        let mut connection = client::connect(Scene::http(family))?;
                        if client::ask_on(&mut connection)?.pod == name {
                            ensure!(
                                client::get_on(&mut connection, "/files/image")? == content,
                                "harmed on the way down"
                            );
                            return client::put_on(&mut connection, &format!("/upload/{family}"), &content);
                        }
                    }
                    anyhow::bail!("60 connections, and none to {name}")
                })
                .with_context(|| format!("{family}, {place} pod"))?;
            let (_, web) = scene
                .lab
                .pods()
                .zip(&scene.webs)
                .find(|(pod, _)| pod.name == name)
                .context("no such pod")?;
            ensure!(
                web.uploaded(&family.to_string())? == content,
                "{family}: harmed on the way up to a {place} pod"
            );
        }
        let status = scene.status(scene.owner(family)?)?;
        ensure!(
            status.reason("too_big_for_tunnel")? == 0,
            "packets were too big for the tunnel"
        );
    }
    Ok(())
}
