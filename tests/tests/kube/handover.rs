//! Packets while agents come: those of a cluster that OpenELB served, and those for pods of a node whose agent is late.

use crate::cluster::Cluster;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use tests::{
    lab::{FAMILIES, address::vip, client, manifests::Service, status::Status, wait},
    takeover::{Order, play},
};
use weir_core::election;

/// [G09] In the documented order nobody is without an answer: each request over a new connection has one, but for those that
/// were under way at the moment when the agent where they come in took over from kube-proxy.
#[test]
fn g09_new_connections_are_answered_all_through_a_takeover() -> Result<()> {
    for seen in play(Order::Documented)? {
        ensure!(seen.requests > 100, "{seen:?}");
        ensure!(seen.failed <= 1, "{seen:?}");
    }
    Ok(())
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
