//! What a monitoring system sees.

use crate::scene::{Scene, web};
use anyhow::{Result, ensure};
use std::net::{TcpListener, UdpSocket};
use tests::lab::{
    Agent, FAMILIES, Shape, client,
    metrics::{self, Metrics},
    status::Status,
    traffic, wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

#[test]
fn a_scrape_counts_what_was_served() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        const REQUESTS: usize = 40;
        for family in FAMILIES {
            traffic::spread(&scene.lab.client, Scene::http(family), REQUESTS)?;
        }
        for node in &scene.lab.nodes {
            // Until connections have ended, only ARP and NDP pass then, which these do not count.
            wait::until("a scrape that counts what the status does", || {
                let seen = Metrics::of(node)?;
                let status = scene.status(node)?;
                for reason in ["local", "tunnel", "decapsulated", "echo_reply"] {
                    let label = format!("reason=\"{reason}\"");
                    let counted = seen.sum("weir_packets_total", &[&label])?;
                    ensure!(
                        counted == status.reason(reason)? as f64,
                        "{reason}: {counted}, {:?}",
                        status.reasons
                    );
                }
                let web = ["service=\"web\"", "port=\"80\"", "protocol=\"TCP\""];
                for family in FAMILIES {
                    let frontend = status.tcp(Scene::http(family))?;
                    let vip = format!("vip=\"{}\"", Scene::http(family).ip());
                    let of_vip = [web[0], web[1], web[2], &vip];
                    ensure!(
                        seen.sum("weir_frontend_packets_total", &of_vip)? == frontend.packets as f64,
                        "{frontend:?}"
                    );
                    ensure!(
                        seen.sum("weir_frontend_bytes_total", &of_vip)? == frontend.bytes as f64,
                        "{frontend:?}"
                    );
                    ensure!(
                        seen.sum("weir_frontend_new_flows_total", &of_vip)? == frontend.syns as f64,
                        "{frontend:?}"
                    );
                    ensure!(
                        seen.sum("weir_frontend_serving_backends", &of_vip)? == 2.0,
                        "{frontend:?}"
                    );
                    let owned = seen.sum("weir_vip_owned", &[&vip])?;
                    ensure!(
                        owned == f64::from(u8::from(scene.owner(family)?.name == node.name)),
                        "{vip}: {owned}"
                    );
                    if owned == 1.0 {
                        ensure!(frontend.syns >= REQUESTS as u64, "{frontend:?}");
                        for backend in &frontend.backends {
                            let backend_label = format!("backend=\"{}\"", backend.address);
                            let packets =
                                seen.sum("weir_backend_packets_total", &[&backend_label, "protocol=\"TCP\""])?;
                            ensure!(
                                packets == backend.packets as f64 && packets > 0.0,
                                "{packets}, {backend:?}"
                            );
                        }
                    }
                }
                let flows: f64 = seen.sum("weir_flows", &[])?;
                ensure!(flows >= REQUESTS as f64 / 2.0, "{flows} flows");
                let mode = ["interface=\"eth0\"", "mode=\"native\""];
                ensure!(seen.sum("weir_interface_xdp_mode", &mode)? == 1.0);
                for map in ["BACKENDS", "DIRECTORY", "FLOWS", "FRONTENDS", "NODES", "ROWS"] {
                    let label = format!("map=\"{map}\"");
                    let (used, room) = (
                        seen.sum("weir_map_entries", &[&label])?,
                        seen.sum("weir_map_capacity", &[&label])?,
                    );
                    ensure!(0.0 < used && used < room, "{map}: {used} of {room}");
                }
                ensure!(seen.sum("weir_programming_latency_seconds_count", &[])? >= 1.0);
                ensure!(
                    seen.samples("weir_conditions").next().is_none(),
                    "{:?}",
                    status.conditions
                );
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_full_flow_table_is_a_condition_and_keeps_the_flows_it_has() -> Result<()> {
    const ROOM: usize = 64 * 4;
    Scene::without_agents(Shape { nodes: 1, ..SHAPE })?.then(|scene| {
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        let node = &scene.lab.nodes[0];
        let arguments = ["--interface", "eth0", "--max-flow-buckets", "64"];
        scene.agents.push(Agent::start_with(&scene.lab, node, &arguments)?);
        let dns = Scene::dns(FAMILIES[0]);
        let answered = || -> Result<UdpSocket> {
            let socket = client::udp_socket(dns)?;
            client::ask_udp_again(&socket)?;
            Ok(socket)
        };
        // With all places taken by flows that both ends have used, the next find none.
        let kept: Vec<UdpSocket> = scene.lab.client.run(|| (0..ROOM / 4).map(|_| answered()).collect())?;
        scene.lab.client.run(|| {
            for _ in 0..4 * ROOM {
                client::udp_socket(dns)?.send(b"one more")?;
            }
            Ok(())
        })?;
        let condition = || {
            Ok(scene
                .status(node)?
                .condition("Node", &node.name, "FlowTableFull")?
                .clone())
        };
        let said = wait::until("the condition", condition)?;
        ensure!(
            said.field == "--max-flow-buckets" && said.message.contains("power of two"),
            "{said:?}"
        );
        let seen = Metrics::of(node)?;
        let label = ["map=\"FLOWS\""];
        ensure!(seen.sum("weir_map_capacity", &label)? == ROOM as f64);
        ensure!(seen.sum("weir_conditions", &["reason=\"FlowTableFull\""])? == 1.0);
        scene.lab.client.run(|| {
            kept.iter()
                .try_for_each(|socket| client::ask_udp_again(socket).map(drop))
        })
    })
}

#[test]
fn counters_go_on_over_a_restart_which_is_counted() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        traffic::spread(&scene.lab.client, Scene::http(FAMILIES[0]), 20)?;
        let owner = scene.owner(FAMILIES[0])?.name.clone();
        let node = scene.lab.node(&owner)?;
        let before = Metrics::of(node)?;
        ensure!(before.sum("weir_agent_starts_total", &[])? == 1.0);
        ensure!(before.sum("weir_agent_adoptions_total", &[])? == 0.0);
        let number = usize::from(node.number) - 1;
        scene.agents.remove(number).kill()?;
        traffic::spread(&scene.lab.client, Scene::http(FAMILIES[0]), 20)?;
        scene.agents.insert(number, Agent::start(&scene.lab, node)?);
        let after = Metrics::of(node)?;
        let new = |metrics: &Metrics| metrics.sum("weir_frontend_new_flows_total", &["vip=\"10.10.1.2\""]);
        ensure!(
            new(&after)? >= new(&before)? + 20.0,
            "{} after {}",
            new(&after)?,
            new(&before)?
        );
        ensure!(after.sum("weir_agent_starts_total", &[])? == 2.0);
        ensure!(after.sum("weir_agent_adoptions_total", &[])? == 1.0);
        Ok(())
    })
}

#[test]
fn an_address_that_is_taken_is_a_condition_until_it_is_free() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let node = &scene.lab.nodes[0];
        let taken = node.namespace.run(|| Ok(TcpListener::bind(metrics::ADDRESS)?))?;
        scene.agents.push(Agent::start(&scene.lab, node)?);
        let condition = || {
            Ok(Status::of(&scene.lab, node)?
                .condition("Node", &node.name, "MetricsNotServed")?
                .clone())
        };
        let said = wait::until("the condition", condition)?;
        ensure!(said.field == "--metrics" && said.message.contains("9470"), "{said:?}");
        drop(taken);
        wait::until("metrics", || Metrics::of(node))?;
        wait::until("the end of the condition", || {
            let conditions = scene.status(node)?.conditions;
            ensure!(conditions.is_empty(), "{conditions:?}");
            Ok(())
        })
    })
}

#[test]
fn probes_tell_whether_the_node_does_what_it_should() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let node = &scene.lab.nodes[0];
        scene.agents.push(Agent::start(&scene.lab, node)?);
        // The first report may be there before the server is.
        wait::until("readiness", || {
            ensure!(metrics::get(node, "/healthz")? == b"ok\n");
            ensure!(metrics::get(node, "/readyz")? == b"ok\n");
            Ok(())
        })?;
        scene.agents.clear();

        let missing = ["--interface", "eth0", "--interface", "eth7"];
        scene.agents.push(Agent::launch(&scene.lab, node, &missing)?);
        wait::until("the report", || {
            scene
                .status(node)?
                .condition("Interface", "eth7", "InterfaceMissing")
                .map(drop)
        })?;
        // The report may be there before the server is.
        wait::until("the probes", || {
            ensure!(metrics::get(node, "/healthz")? == b"ok\n");
            let ready = metrics::get(node, "/readyz");
            let refused = ready.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(refused.contains("503"), "{refused}");
            Ok(())
        })
    })
}

/// On a node whose administrator has taken IPv6 from it, or from sockets that ask for both families.
#[test]
fn any_address_is_an_ipv4_address_too() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let settings = ["net.ipv6.bindv6only=1", "net.ipv6.conf.all.disable_ipv6=1"];
        for (node, setting) in scene.lab.nodes.iter().zip(settings) {
            node.namespace.output(&format!("sysctl -w {setting}"))?;
            let _agent = Agent::launch(&scene.lab, node, &["--interface", "eth0", "--metrics", "[::]:9470"])?;
            wait::until(setting, || Metrics::of(node)?.sum("weir_build_info", &[]))?;
        }
        Ok(())
    })
}
