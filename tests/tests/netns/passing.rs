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
                    let line = format!("ping -q -c 2 -i 0.05 -W 2 -s {size} {own}");
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

/// Nobody outside the cluster can hand packets to pods by speaking the tunnel's language.
#[test]
fn a_tunnel_packet_from_outside_is_dropped_and_counted() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let node = &scene.lab.nodes[0];
        let before = scene.status(node)?.reason("tunnel_unknown_sender")?;
        scene.lab.client.run(|| {
            let socket = client::udp_socket(SocketAddr::new(node.address(Family::V4), 6081))?;
            socket.send(&[0; 100])?;
            Ok(())
        })?;
        wait::until("the packet to be counted", || {
            let after = scene.status(node)?.reason("tunnel_unknown_sender")?;
            ensure!(after == before + 1, "{before}, then {after}");
            Ok(())
        })
    })
}
