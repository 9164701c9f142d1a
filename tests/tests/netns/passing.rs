//! What is not for a VIP passes as if Weir were not there.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    thread,
};
use tests::lab::{
    FAMILIES, Family, Shape, client,
    servers::{ECHO_PORT, WEB_PORT},
    wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

#[test]
fn a_nodes_own_services_ping_and_fragments_work() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            for node in &scene.lab.nodes {
                let own = node.address(family);
                for size in [56, 4000] {
                    let line = format!("ping -q -c 2 -i 0.05 -W 15 -s {size} {own}");
                    let said = scene.lab.client.output(&line)?;
                    ensure!(said.contains("2 received"), "{said}");
                }
                let listener = node.namespace.run(|| Ok(TcpListener::bind((own, 22))?))?;
                let greeter = thread::spawn(move || -> Result<()> {
                    let (mut connection, _) = listener.accept()?;
                    connection.write_all(b"hello from the node")?;
                    Ok(())
                });
                let said = scene.lab.client.run(|| {
                    let mut said = String::new();
                    client::connect(SocketAddr::new(own, 22))?.read_to_string(&mut said)?;
                    Ok(said)
                })?;
                ensure!(said == "hello from the node", "{said:?}");
                greeter.join().expect("the greeter does not panic")?;
            }
        }
        Ok(())
    })
}

/// Also between nodes, where packets pass both programs.
#[test]
fn pods_are_reached_at_their_own_addresses() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let [first, second] = [&scene.lab.nodes[0].pods[0], &scene.lab.nodes[1].pods[0]];
            for (from, to) in [
                (&scene.lab.client, first),
                (&scene.lab.client, second),
                (&first.namespace, second),
            ] {
                let address: IpAddr = to.address(family);
                let web = from.run(|| client::ask(SocketAddr::new(address, WEB_PORT)))?;
                ensure!(web.pod == to.name && web.client == web.local, "{web:?}");
                let echo = from.run(|| client::ask_udp(SocketAddr::new(address, ECHO_PORT)))?;
                ensure!(echo.pod == to.name && echo.client == echo.local, "{echo:?}");
            }
        }
        Ok(())
    })
}

/// A port of a VIP that no Service has is the stack's business: it does not have the address, so nobody answers.
#[test]
fn a_port_that_is_not_served_stands_aside_and_is_counted() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let owner = scene.owner(family)?;
            let before = scene.status(owner)?.reason("no_frontend")?;
            let vip = Scene::http(family).ip();
            let answer = scene.lab.client.run(|| Ok(client::ask(SocketAddr::new(vip, 81))));
            ensure!(answer.context("no client")?.is_err(), "somebody answers on port 81");
            let after = scene.status(owner)?.reason("no_frontend")?;
            ensure!(after > before, "no_frontend stayed at {before}");
        }
        Ok(())
    })
}

/// Nobody outside the cluster can hand packets to pods by speaking the tunnel's language; other people's Geneve passes.
#[test]
fn a_tunnel_packet_from_outside_is_dropped_and_counted() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let node = &scene.lab.nodes[0];
        let IpAddr::V4(pod) = node.pods[0].address(Family::V4) else {
            anyhow::bail!("the pod has no IPv4 address")
        };
        // RFC 8926: six words of options, critical, IPv4 inside; one option of five words.
        let mut forged = vec![6, 0x40, 8, 0, 0, 0, 0, 0, 0xff, 0xe1, 0x81, 5];
        forged.extend(pod.to_ipv6_mapped().octets());
        forged.extend(WEB_PORT.to_be_bytes());
        forged.extend([0; 62]);
        let foreign = [0; 60];
        for (payload, reason) in [(&forged[..], "tunnel_unknown_sender"), (&foreign, "not_served")] {
            let before = scene.status(node)?.reason(reason)?;
            scene.lab.client.run(|| {
                client::udp_socket(SocketAddr::new(node.address(Family::V4), 6081))?.send(payload)?;
                Ok(())
            })?;
            wait::until("the packet to be counted", || {
                let after = scene.status(node)?.reason(reason)?;
                ensure!(after > before, "{reason}: {before}, then {after}");
                Ok(())
            })?;
        }
        Ok(())
    })
}
