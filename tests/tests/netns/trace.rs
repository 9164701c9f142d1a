//! `weir trace` says what would happen, and nothing has happened then.

use crate::scene::{Scene, web};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};
use tests::lab::{FAMILIES, Family, Lab, Node, Shape, address, agent, client, metrics::Metrics, wait};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

fn trace(lab: &Lab, node: &Node, from: SocketAddr, to: SocketAddr, more: &[&str]) -> Result<Value> {
    let (from, to) = (from.to_string(), to.to_string());
    let arguments = [&["--from", &from, "--to", &to, "-o", "json"], more].concat();
    let answer: Value = serde_json::from_str(&agent::run(lab, node, "trace", &arguments)?)?;
    ensure!(
        answer["agrees"] == true,
        "the kernel and the explanation differ: {answer:#}"
    );
    ensure!(answer["same_code"] == true, "{answer:#}");
    Ok(answer)
}

/// A client port whose flow to `to` gets this reason.
fn port_for(scene: &Scene, node: &Node, to: SocketAddr, more: &[&str], reason: &str) -> Result<(SocketAddr, Value)> {
    for port in 40_000..40_040 {
        let from = SocketAddr::new(address::client(family_of(to)), port);
        let answer = trace(&scene.lab, node, from, to, more)?;
        if answer["reason"] == reason {
            return Ok((from, answer));
        }
    }
    anyhow::bail!("forty ports, and none for {reason}")
}

fn family_of(socket: SocketAddr) -> Family {
    if socket.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Everything that packets change, of what these tests send.
fn state(node: &Node) -> Result<Vec<f64>> {
    let metrics = Metrics::of(node)?;
    let mut state = Vec::new();
    for reason in [
        "local",
        "tunnel",
        "second_chance",
        "no_frontend",
        "no_backend",
        "decapsulated",
    ] {
        state.push(metrics.sum("weir_packets_total", &[&format!("reason=\"{reason}\"")])?);
    }
    for name in [
        "weir_frontend_packets_total",
        "weir_frontend_new_flows_total",
        "weir_flows",
    ] {
        state.push(metrics.sum(name, &[])?);
    }
    for map in ["FLOWS", "FLOW_CACHE"] {
        state.push(metrics.sum("weir_map_entries", &[&format!("map=\"{map}\"")])?);
    }
    Ok(state)
}

/// The state when nothing comes of earlier packets any more: connections end after the client is done, and how many flows there are
/// is counted every five seconds.
fn state_at_rest(node: &Node) -> Result<Vec<f64>> {
    wait::until("rest", || {
        let before = state(node)?;
        thread::sleep(Duration::from_secs(6));
        let now = state(node)?;
        ensure!(now == before, "{before:?} became {now:?}");
        Ok(now)
    })
}

#[test]
fn a_traced_flow_goes_where_it_was_said_to_and_nothing_changed_before() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            let (dns, owner) = (Scene::dns(family), scene.owner(family)?);
            let before = state_at_rest(owner)?;
            let mut said = Vec::new();
            for (reason, verdict) in [("local", "pass"), ("tunnel", "redirect")] {
                let (from, answer) = port_for(scene, owner, dns, &["--proto", "udp"], reason)?;
                ensure!(answer["verdict"] == verdict, "{answer:#}");
                ensure!(answer["directory"]["service"] == "default/web", "{answer:#}");
                ensure!(answer["row"]["current"]["id"] == answer["backend"]["id"], "{answer:#}");
                ensure!((answer["node"] == Value::Null) == (reason == "local"), "{answer:#}");
                said.push((from, answer));
            }
            ensure!(state(owner)? == before, "{before:?} became {:?}", state(owner)?);

            for (from, answer) in said {
                let pod = scene.lab.client.run(|| {
                    let socket = UdpSocket::bind(from)?;
                    socket.set_read_timeout(Some(wait::PATIENCE))?;
                    socket.connect(dns)?;
                    client::ask_udp_again(&socket)
                })?;
                let pod = scene
                    .lab
                    .pods()
                    .find(|known| known.name == pod.pod)
                    .context("no such pod")?;
                let backend = answer["backend"]["address"].as_str().unwrap_or_default();
                ensure!(
                    backend.contains(&pod.address(family).to_string()),
                    "{} answered, {answer:#}",
                    pod.name
                );
                let again = trace(&scene.lab, scene.lab.node(&pod.node)?, from, dns, &["--proto", "udp"])?;
                ensure!(again["flow"]["vip"] == dns.to_string(), "{again:#}");
            }
        }
        Ok(())
    })
}

#[test]
fn trace_tells_rows_in_transition_and_what_is_not_served() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let family = Family::V4;
        let (http, owner) = (Scene::http(family), scene.owner(family)?.name.clone());
        let node = scene.lab.node(&owner)?;
        let (from, first) = port_for(scene, node, http, &["--syn"], "local")?;
        ensure!(
            first["row"]["previous"] == Value::Null && first["syn"] == true,
            "{first:#}"
        );
        let connection = scene.lab.client.run(|| {
            for _ in 0..60 {
                let mut connection = client::connect(http)?;
                if client::ask_on(&mut connection)?.pod.starts_with(&owner) {
                    return Ok(connection);
                }
            }
            anyhow::bail!("60 connections, and none to a pod of {owner}")
        })?;

        let others = scene.lab.pods().filter(|pod| pod.node != owner);
        scene.lab.apply("web.yaml", &web().with(others))?;
        wait::until("the row to change", || {
            let syn = trace(&scene.lab, node, from, http, &["--syn"])?;
            ensure!(syn["reason"] == "tunnel", "{syn:#}");
            ensure!(syn["row"]["previous"]["id"] == first["backend"]["id"], "{syn:#}");
            Ok(())
        })?;
        // It goes on where it is, wherever that may be among all numbers.
        let known = trace(&scene.lab, node, connection.local_addr()?, http, &[])?;
        ensure!(
            known["reason"] == "local" && known["flow"]["state"] == "established",
            "{known:#}"
        );
        let before = state_at_rest(node)?;
        let middle = trace(&scene.lab, node, from, http, &[])?;
        ensure!(
            middle["reason"] == "tunnel" && middle["row"]["current"]["id"] == middle["backend"]["id"],
            "{middle:#}"
        );
        let text = agent::run(
            &scene.lab,
            node,
            "trace",
            &["--from", &from.to_string(), "--to", &http.to_string()],
        )?;
        for part in ["tunnel", "ROWS", "previous", "default/web", "node "] {
            ensure!(text.contains(part), "no {part} in:\n{text}");
        }

        let closed = SocketAddr::new(http.ip(), 81);
        let answer = trace(&scene.lab, node, from, closed, &["--syn"])?;
        ensure!(
            answer["reason"] == "no_frontend" && answer["verdict"] == "pass",
            "{answer:#}"
        );
        ensure!(answer["directory"]["kind"] == "vip", "{answer:#}");
        let stranger = SocketAddr::new(address::router(family), 80);
        let answer = trace(&scene.lab, node, from, stranger, &["--syn"])?;
        ensure!(
            answer["reason"] == "not_ours" && answer["filter"] == false,
            "{answer:#}"
        );
        ensure!(state(node)? == before, "{before:?} became {:?}", state(node)?);
        Ok(())
    })
}
