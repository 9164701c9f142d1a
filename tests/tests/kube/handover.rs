//! Packets while agents come: those of a cluster that OpenELB served, and those for pods of a node whose agent is late.

use crate::cluster::Cluster;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use tests::{
    lab::{FAMILIES, address::vip, client, manifests::Service, metrics::Metrics, status::Status, wait},
    takeover::{Mode, Order, play, stage::Stage},
};
use weir_core::election;

/// [G09] In the documented order nobody notices: each request over a new connection is answered, and each connection goes on.
#[test]
fn g09_no_connection_is_lost_by_a_takeover() -> Result<()> {
    for seen in play(Mode::Layer2, Order::Documented)? {
        ensure!(seen.requests > 100, "{seen:?}");
        ensure!((seen.failed, seen.broken) == (0, 0), "{seen:?}");
    }
    Ok(())
}

/// [G09, F07] Where keepalived has the addresses on the interface of one node, as in OpenELB's VIP mode, each goes to the node of its
/// choice, and most are answered all the time. Those that came to the master before the agents drew packets may be reset: their
/// address goes to another node, which knows nothing of them.
#[test]
fn g09_f07_addresses_of_keepalived_are_taken_over() -> Result<()> {
    for seen in play(Mode::Vip, Order::Documented)? {
        ensure!(seen.failed * 10 < seen.requests, "{seen:?}");
    }
    Ok(())
}

/// [G09] What kube-proxy had stays with it over the end of an agent, and until it ends; all else is Weir's.
#[test]
fn g09_connections_that_kube_proxy_had_stay_with_it_until_they_end() -> Result<()> {
    Stage::new(Mode::Layer2)?.hold(|stage| {
        let services = stage.services().to_vec();
        let mut held = Vec::new();
        for served in &services {
            held.push(stage.lab.client.run(|| client::connect(served.at))?);
        }
        let mut go_on = || {
            held.iter_mut()
                .try_for_each(|connection| client::ask_on(connection).map(drop))
        };
        go_on()?;
        stage.start_controller()?;
        // One that ends before it draws anything changes nothing.
        stage.try_in_vain(0)?;
        stage.start_agents(0..)?;
        stage.wait_for_agents()?;
        go_on()?;
        stage.is_taken_over()?;
        let left_aside = |stage: &Stage| Status::of(&stage.lab, &stage.lab.nodes[0])?.reason("stack_flow");
        let before = left_aside(stage)?;
        ensure!(
            before >= services.len() as u64,
            "{before} packets were left to the stack"
        );

        stage.replace_agent(0)?;
        go_on()?;
        ensure!(
            left_aside(stage)? > before,
            "the new agent has drawn what is kube-proxy's"
        );
        let left = |stage: &Stage| Metrics::of(&stage.lab.nodes[0])?.sum("weir_map_entries", &["map=\"STACK_FLOWS\""]);
        let count = left(stage)?;
        ensure!(count >= services.len() as f64, "{count} flows in STACK_FLOWS");
        drop(held);
        wait::until("the last of them to be forgotten", || {
            let log = stage.log_of_agent(0);
            ensure!(log.contains("no connection that kube-proxy had is left"), "{log}");
            Ok(())
        })?;
        ensure!(left(stage)? == 0.0, "some are left in STACK_FLOWS");
        let after = left_aside(stage)?;
        stage.is_taken_over()?;
        ensure!(left_aside(stage)? == after, "something new was left to the stack");
        Ok(())
    })
}

/// A node that has joined, with pods and without an agent yet, gets no new connections from others; it gets its share when its
/// agent has come, and nobody's connection breaks.
#[test]
fn pods_of_a_node_without_an_agent_wait_for_it() -> Result<()> {
    Cluster::play(|cluster| {
        let names: Vec<_> = cluster.lab.nodes.iter().map(|node| node.name.clone()).collect();
        let first = |number: &u8| {
            FAMILIES.iter().all(|family| {
                election::owner(names.iter().map(String::as_str), vip(*family, *number)) == Some(&names[0])
            })
        };
        let number = (2..250).find(first).unwrap_or_default();
        let web = Service::new("web");
        let kubectl = cluster.control_plane.kubectl();
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        cluster.give("web", &FAMILIES.map(|family| vip(family, number)))?;
        cluster.control_plane.give_agent_rights()?;
        let early = cluster.launch_agent(0)?;
        cluster.agents.push(early);
        cluster.wait_for_agents()?;

        let pods = |node: usize| -> Vec<&str> { cluster.lab.nodes[node].pods.iter().map(|pod| &*pod.name).collect() };
        let status = Status::of(&cluster.lab, &cluster.lab.nodes[0])?;
        status.condition("Node", &names[1], "NoAgent")?;
        let mut held = Vec::new();
        for family in FAMILIES {
            cluster.answered_by(family, number, &pods(0))?;
            held.push(
                cluster
                    .lab
                    .client
                    .run(|| client::connect(Cluster::http(family, number)))?,
            );
        }

        let late = cluster.launch_agent(1)?;
        cluster.agents.push(late);
        for family in FAMILIES {
            cluster.answered_by(family, number, &cluster.pods())?;
        }
        wait::until("the condition to go", || {
            let status = Status::of(&cluster.lab, &cluster.lab.nodes[0])?;
            let about: BTreeSet<_> = status.conditions.iter().map(|it| it.reason.as_str()).collect();
            ensure!(!about.contains("NoAgent"), "{about:?}");
            Ok(())
        })?;
        for connection in &mut held {
            client::ask_on(connection)?;
        }
        Ok(())
    })
}
