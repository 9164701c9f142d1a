//! Paths narrower than their ends: who has to know is told.

use crate::scene::{Scene, all_whole};
use anyhow::{Context, Result, ensure};
use tests::lab::{
    FAMILIES, Family, Shape, client,
    servers::{self},
    wait,
};

const LENGTH: usize = 4_000_000;
const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

/// The router's link to the client carries less than both ends believe. What the pods send too big comes back to the VIP as
/// an ICMP error, and without it a download stands still.
#[test]
fn downloads_pass_a_narrow_link_in_the_middle() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let router = &scene.lab.router;
        router.output("ip link set client mtu 1300")?;
        servers::make_file(&scene.lab, "image", LENGTH)?;
        for family in FAMILIES {
            all_whole(scene.downloads(family, "image", |_| true)?, LENGTH)?;
            let mut steered = 0;
            for node in &scene.lab.nodes {
                steered += scene.status(node)?.reason("icmp_error")?;
            }
            // One for each pod at least, one of which is behind the tunnel.
            ensure!(steered >= 3, "{family}: only {steered} ICMP errors were steered");
            ensure!(
                learnt(scene, family, 1300)?,
                "{family}: no pod has learnt the path's MTU"
            );
            router.output("ip link set client mtu 1280")?;
        }
        Ok(())
    })
}

/// Whether a pod knows that the path to the client carries no more than `mtu`.
fn learnt(scene: &Scene, family: Family, mtu: u32) -> Result<bool> {
    let to = tests::lab::address::client(family);
    for pod in scene.lab.pods() {
        let route = pod.namespace.output(&format!("ip route get {to}"))?;
        let known = route.split_whitespace().skip_while(|word| *word != "mtu").nth(1);
        if known.is_some_and(|known| known.parse().is_ok_and(|known: u32| known <= mtu)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A datagram that fits the client's link but not the tunnel: the client is told by the VIP, and sends it in pieces.
#[test]
fn datagrams_too_big_for_the_tunnel_are_answered_with_its_mtu() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let owner = scene.owner(family)?;
            let vip = Scene::dns(family);
            let client = &scene.lab.client;
            let answer = client.run(|| {
                for _ in 0..60 {
                    let socket = client::udp_socket(vip)?;
                    if client::ask_udp_again(&socket)?.pod.starts_with(&owner.name) {
                        continue;
                    }
                    // The first one is lost, and what its answer says is known from then on.
                    return wait::until("an answer to a big datagram", || {
                        client::ask_udp_with(&socket, &[7; 1440]).map(drop)
                    });
                }
                anyhow::bail!("60 sockets, and none to another node")
            });
            answer.with_context(|| format!("{family}"))?;
            let route = client.output(&format!("ip route get {}", vip.ip()))?;
            // The tunnel goes over the nodes' first addresses, which are IPv4 ones, and its longest option has to fit, too.
            let mtu = format!("mtu {}", 1500 - 96);
            ensure!(route.contains(&mtu), "{family}: no {mtu} in {route}");
            ensure!(
                scene.status(owner)?.reason("too_big_answered")? > 0,
                "{family}: nothing was answered"
            );
        }
        Ok(())
    })
}
