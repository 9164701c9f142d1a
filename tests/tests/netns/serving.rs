//! Where requests go and replies come from.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use tests::lab::{
    FAMILIES, Shape, address,
    capture::Capture,
    client::{self, Answer},
};

const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 2,
    mtu: 1500,
    pod_offload: true,
};
/// So many requests leave out one of six pods less than once in 10^14 runs.
const MANY: usize = 180;

/// [C01] and the client's address is kept on the way.
#[test]
fn tcp_and_udp_reach_the_pods_of_every_node_and_show_them_the_client() -> Result<()> {
    Scene::play(SHAPE, |scene| reaches_all(scene))
}

/// As pods of a virtual machine, whose device computes no checksums.
#[test]
fn replies_with_finished_checksums_are_rewritten_as_well() -> Result<()> {
    Scene::play(
        Shape {
            pod_offload: false,
            ..SHAPE
        },
        |scene| reaches_all(scene),
    )
}

fn reaches_all(scene: &Scene) -> Result<()> {
    let pods: BTreeSet<&str> = scene.lab.pods().map(|pod| pod.name.as_str()).collect();
    for family in FAMILIES {
        let web = scene.lab.client.run(|| {
            (0..MANY)
                .map(|_| client::ask(Scene::http(family)))
                .collect::<Result<Vec<_>>>()
        })?;
        let dns = scene.lab.client.run(|| {
            (0..MANY)
                .map(|_| client::ask_udp(Scene::dns(family)))
                .collect::<Result<Vec<_>>>()
        })?;
        for (what, answers) in [("TCP", web), ("UDP", dns)] {
            let seen: BTreeSet<&str> = answers.iter().map(|answer| answer.pod.as_str()).collect();
            ensure!(seen == pods, "{family} {what} reached only {seen:?}");
            let strange: Vec<&Answer> = answers.iter().filter(|answer| answer.client != answer.local).collect();
            ensure!(
                strange.is_empty(),
                "{family} {what}, not the client's own address: {strange:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_udp_socket_stays_with_its_pod() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let pods = scene.lab.client.run(|| {
                let socket = client::udp_socket(Scene::dns(family))?;
                (0..50)
                    .map(|_| Ok(client::ask_udp_again(&socket)?.pod))
                    .collect::<Result<BTreeSet<_>>>()
            })?;
            ensure!(pods.len() == 1, "{family}: {pods:?}");
        }
        Ok(())
    })
}

#[test]
fn a_reply_leaves_from_the_backends_node_and_does_not_pass_the_load_balancing_node() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let owner = scene.owner(family)?;
            let filter = format!("host {} or udp port 6081", address::client(family));
            let captures = scene
                .lab
                .nodes
                .iter()
                .map(|node| Capture::at_node(&scene.lab, &node.name, &filter));
            let captures = captures.collect::<Result<Vec<_>>>()?;
            let answers: Vec<Answer> = scene
                .lab
                .client
                .run(|| (0..30).map(|_| client::ask(Scene::http(family))).collect())?;
            let remote = answers
                .iter()
                .find(|answer| !answer.pod.starts_with(&owner.name))
                .context("no remote pod")?;
            let port = format!(".{}:", remote.local.port());
            let reply = format!("{}.80 > {}{port}", Scene::http(family).ip(), address::client(family));
            for (node, capture) in scene.lab.nodes.iter().zip(captures) {
                let serves = remote.pod.starts_with(&node.name);
                if serves {
                    capture.wait_for(&reply)?;
                }
                let lines = capture.finish()?;
                let plain = lines.iter().filter(|line| !line.contains("Geneve"));
                let replies = plain.filter(|line| line.contains(&reply)).count();
                ensure!(
                    (replies > 0) == serves,
                    "{family}: {replies} x {reply} at {} ({remote:?})",
                    node.name
                );
            }
        }
        Ok(())
    })
}
