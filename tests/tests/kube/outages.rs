//! Agents that were away for longer than the API server remembers what has changed.

use crate::cluster::Cluster;
use anyhow::{Result, ensure};
use tests::lab::{
    FAMILIES, Family, Node,
    address::{self, host_length, vip},
    manifests::{self, Service},
    status::Status,
    wait,
};

/// Last part of the addresses of the Service `web`, and of the first of the others.
const WEB: u8 = 2;
/// How many others there are.
const OTHERS: u8 = 20;

/// Services, EndpointSlices, Nodes and Eips.
const KINDS: usize = 4;

fn other(number: u8) -> String {
    format!("other-{number}")
}

/// All is read anew, and the maps get what differs: nothing for objects that have only been touched.
#[test]
fn what_has_changed_meanwhile_is_all_that_is_written() -> Result<()> {
    Cluster::play(|cluster| {
        let web = cluster.serve("web", WEB)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let services: String = (0..OTHERS)
            .map(|number| Service::new(&other(number)).with(cluster.lab.pods()))
            .collect();
        kubectl.apply(&services)?;
        for number in 0..OTHERS {
            cluster.give(&other(number), &FAMILIES.map(|family| vip(family, WEB + 1 + number)))?;
        }
        cluster.start_agents()?;
        let all: Vec<String> = cluster.pods().into_iter().map(str::to_owned).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        cluster.answered_by(Family::V4, WEB + OTHERS, &all)?;
        let before = cluster.writes_at_rest()?;

        away(cluster, |_| {
            for kind in ["services", "endpointslices", "nodes", "eips"] {
                kubectl.run(&format!("annotate {kind} --all touched=once"))?;
            }
            Ok(())
        })?;
        wait::until("all kinds to be read anew", || {
            let said = [0, 1].map(|at| cluster.said(at, "listing anew"));
            ensure!(said.iter().all(|count| *count >= KINDS), "{said:?} of {KINDS}");
            Ok(())
        })?;
        ensure!(
            cluster.writes() == before,
            "{before:?} writes before, {:?} after nothing has changed",
            cluster.writes()
        );

        away(cluster, |cluster| {
            kubectl.apply(&web.endpoints(cluster.lab.pods().next()))?;
            kubectl.run(&format!("delete service {}", other(0)))?;
            kubectl.run(&format!("delete eip lan-{}", Family::V6).to_lowercase())?;
            cluster.serve("late", WEB + 1 + OTHERS).map(drop)
        })?;
        cluster.answered_by(Family::V4, WEB, &all[..1])?;
        cluster.answered_by(Family::V4, WEB + 1 + OTHERS, &all)?;
        cluster.answered_by(Family::V4, WEB + OTHERS, &all)?;
        // The node that does not answer may be later, and one kind of object later than another.
        wait::until("nothing of what is deleted to be served", || {
            for node in &cluster.lab.nodes {
                let status = Status::of(&cluster.lab, node)?;
                ensure!(
                    status.addresses_of(&other(0)).is_empty(),
                    "a deleted Service is served on {}",
                    node.name
                );
                ensure!(status.vips.iter().all(|vip| vip.address.is_ipv4()), "{:?}", status.vips);
            }
            Ok(())
        })?;
        kubectl.apply(&manifests::eip(
            &format!("lan-{}", Family::V6).to_lowercase(),
            address::vip_network(Family::V6),
        ))?;
        cluster.answered_by(Family::V6, WEB, &all[..1])
    })
}

/// Cuts the agents off, lets `change` happen, makes the API server forget how it came about, and brings them back.
fn away(cluster: &mut Cluster, change: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let way = |node: &Node, verb: &str| {
        let to = FAMILIES.map(|family| {
            let address = address::control_plane(family);
            format!("route {verb} unreachable {address}/{}\n", host_length(family))
        });
        node.namespace.ip_batch(&to.concat())
    };
    for node in &cluster.lab.nodes {
        way(node, "add")?;
    }
    // Ends their connections.
    cluster.control_plane.stop_api_server()?;
    cluster.control_plane.start_api_server()?;
    cluster.is_missed()?;
    change(cluster)?;
    cluster.control_plane.forget_history()?;
    cluster.control_plane.stop_api_server()?;
    cluster.control_plane.start_api_server()?;
    for node in &cluster.lab.nodes {
        way(node, "del")?;
    }
    cluster.is_back()
}
