//! MACs, next hops and MTUs change under a running agent: the maps follow what netlink says, and traffic goes on.

use crate::scene::{Scene, web};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};
use tests::lab::{
    Agent, FAMILIES, Family, Node, Shape, client,
    manifests::nodes_over,
    pinned, servers,
    traffic::{self, Requests, Tally},
    wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};
/// The only other node of two has the first id.
const OTHER: u32 = 1;

/// The node is not the one clients send to: where a VIP is, the router learns by announcements, which are not at issue.
/// Over IPv4 nothing needs to be announced, because the node asks for its neighbours anew, from its new MAC and its own
/// address; over IPv6 Linux asks from the link-local one.
#[test]
fn a_nodes_new_mac_is_followed_by_itself_and_by_others() -> Result<()> {
    for underlay in FAMILIES {
        over(underlay, |scene| {
            let family = Family::V4;
            let owner = scene.owner(family)?;
            let changed = other_than(scene, owner)?;
            if underlay == Family::V6 {
                announce_new_macs(changed, underlay)?;
            }
            let requests = Requests::start(&scene.lab.client, Scene::http(family));
            for mac in ["02:00:00:00:77:01", "02:00:00:00:77:02"] {
                let begun = Instant::now();
                changed
                    .namespace
                    .ip_batch(&format!("link set dev eth0 address {mac}"))?;
                let own = until_node(scene, changed, begun, |node| pinned::mac(node, "source_mac"), mac)?;
                let others = until_node(scene, owner, begun, |node| pinned::mac(node, "destination_mac"), mac)?;
                println!(
                    "tunnel over {underlay}: a new MAC is in the node's own map after {own:?}, in the other's after {others:?}"
                );
                both_serve(scene)?;
            }
            all_answered(requests.finish()?)
        })?;
    }
    Ok(())
}

#[test]
fn an_announced_mac_is_followed() -> Result<()> {
    for underlay in FAMILIES {
        over(underlay, |scene| {
            let [watched, changed] = [&scene.lab.nodes[0], &scene.lab.nodes[1]];
            // No agent that asks: what the other node hears is what the kernel announces.
            scene.agents.remove(1).stop()?;
            announce_new_macs(changed, underlay)?;
            let begun = Instant::now();
            let mac = "02:00:00:00:77:03";
            changed
                .namespace
                .ip_batch(&format!("link set dev eth0 address {mac}"))?;
            let took = until_node(scene, watched, begun, |node| pinned::mac(node, "destination_mac"), mac)?;
            println!("tunnel over {underlay}: an announced MAC is in the map after {took:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_replaced_neighbour_is_followed() -> Result<()> {
    for underlay in FAMILIES {
        over(underlay, |scene| {
            let [node, other] = [&scene.lab.nodes[0], &scene.lab.nodes[1]];
            for mac in ["02:00:00:00:99:99", &other.mac()] {
                let begun = Instant::now();
                let line = format!(
                    "neigh replace {} lladdr {mac} dev eth0 nud reachable",
                    other.address(underlay)
                );
                node.namespace.ip_batch(&line)?;
                let took = until_node(scene, node, begun, |node| pinned::mac(node, "destination_mac"), mac)?;
                println!("tunnel over {underlay}: a replaced neighbour is in the map after {took:?}");
            }
            both_serve(scene)
        })?;
    }
    Ok(())
}

/// The way to another node leads over another next hop from now on, and back.
#[test]
fn another_next_hop_is_followed() -> Result<()> {
    for underlay in FAMILIES {
        over(underlay, |scene| {
            let [node, other] = [&scene.lab.nodes[0], &scene.lab.nodes[1]];
            let requests = Requests::start(&scene.lab.client, Scene::http(Family::V4));
            let by_router = format!(
                "{} via {}",
                other.address(underlay),
                tests::lab::address::router(underlay)
            );
            for (verb, mac) in [("replace", router_mac(scene)?), ("del", other.mac())] {
                let begun = Instant::now();
                node.namespace.ip_batch(&format!("route {verb} {by_router}"))?;
                let took = until_node(scene, node, begun, |node| pinned::mac(node, "destination_mac"), &mac)?;
                println!("tunnel over {underlay}: another next hop is in the map after {took:?}");
                both_serve(scene)?;
            }
            all_answered(requests.finish()?)
        })?;
    }
    Ok(())
}

#[test]
fn mtus_of_interfaces_and_routes_are_followed() -> Result<()> {
    for underlay in FAMILIES {
        over(underlay, |scene| {
            let requests = FAMILIES.map(|family| Requests::start(&scene.lab.client, Scene::http(family)));
            for mtu in [1400, 1450] {
                for node in &scene.lab.nodes {
                    node.namespace.ip_batch(&format!("link set dev eth0 mtu {mtu}"))?;
                }
                follow_mtu(scene, underlay, mtu)?;
            }
            for node in &scene.lab.nodes {
                let other = other_than(scene, node)?.address(underlay);
                node.namespace
                    .ip_batch(&format!("route replace {other} dev eth0 mtu 1350"))?;
            }
            follow_mtu(scene, underlay, 1350)?;
            for node in &scene.lab.nodes {
                let other = other_than(scene, node)?.address(underlay);
                node.namespace.ip_batch(&format!("route del {other} dev eth0"))?;
            }
            follow_mtu(scene, underlay, 1450)?;
            requests
                .into_iter()
                .try_for_each(|requests| all_answered(requests.finish()?))
        })?;
    }
    Ok(())
}

/// Waits until all nodes clamp for `mtu`, and sends a file up and down at each pod.
fn follow_mtu(scene: &Scene, underlay: Family, mtu: u64) -> Result<()> {
    const LENGTH: usize = 200_000;
    for node in &scene.lab.nodes {
        wait::until("the MTU to be in the maps", || {
            let seen = pinned::value(&scene.lab, node, "NODES", OTHER)?["mtu"].as_u64();
            ensure!(seen == Some(mtu), "{}: {seen:?}, not {mtu}", node.name);
            let config = pinned::value(&scene.lab, node, "CONFIG", 0)?;
            // Outer headers with the longest option, and the inner headers of each family.
            let tunnel = if underlay == Family::V4 { 96 } else { 116 };
            let wanted = [Some(mtu - tunnel - 40), Some(mtu - tunnel - 60)];
            let clamps = ["mss_v4", "mss_v6"].map(|field| config[field].as_u64());
            ensure!(clamps == wanted, "{}: clamps to {clamps:?}, not {wanted:?}", node.name);
            Ok(())
        })?;
    }
    servers::make_file(&scene.lab, "small", LENGTH)?;
    let content = servers::content(LENGTH);
    for family in FAMILIES {
        let mut served = BTreeSet::new();
        scene
            .lab
            .client
            .run(|| {
                for _ in 0..60 {
                    let mut connection = client::connect(Scene::http(family))?;
                    served.insert(client::ask_on(&mut connection)?.pod);
                    ensure!(
                        client::get_on(&mut connection, "/files/small")? == content,
                        "harmed on the way down"
                    );
                    client::put_on(&mut connection, "/upload/small", &content)?;
                    if served.len() == 2 {
                        return Ok(());
                    }
                }
                anyhow::bail!("only {served:?} have served")
            })
            .with_context(|| format!("{family} with an MTU of {mtu}"))?;
    }
    Ok(())
}

/// Runs `act` in a lab of two nodes whose tunnels run over `underlay`.
fn over(underlay: Family, act: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    let outcome = Scene::without_agents(SHAPE)?.then(|scene| {
        scene.lab.apply("nodes.yaml", &nodes_over(&scene.lab, underlay))?;
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        scene.agents = Agent::start_everywhere(&scene.lab)?;
        both_serve(scene)?;
        act(scene)
    });
    outcome.with_context(|| format!("tunnels over {underlay}"))
}

/// Has the kernel say so when the MAC of `eth0` changes: by a gratuitous ARP, or an unsolicited advertisement.
fn announce_new_macs(node: &Node, underlay: Family) -> Result<()> {
    let option = match underlay {
        Family::V4 => "ipv4/conf/eth0/arp_notify",
        Family::V6 => "ipv6/conf/eth0/ndisc_notify",
    };
    let file = format!("/proc/sys/net/{option}");
    node.namespace.run(|| Ok(fs::write(file, "1")?))
}

fn other_than<'a>(scene: &'a Scene, node: &Node) -> Result<&'a Node> {
    let other = scene.lab.nodes.iter().find(|other| other.number != node.number);
    other.context("there is only one node")
}

fn both_serve(scene: &Scene) -> Result<()> {
    for family in FAMILIES {
        let served = traffic::spread(&scene.lab.client, Scene::http(family), 40)?;
        ensure!(served.len() == 2, "{family}: {served:?}");
    }
    Ok(())
}

fn all_answered(tally: Tally) -> Result<()> {
    ensure!(tally.total() > 0, "nothing was asked");
    ensure!(
        tally.failures.is_empty(),
        "of {} requests: {:?}",
        tally.total(),
        tally.failures
    );
    Ok(())
}

/// How long after `begun` the entry of the other node in `node`'s map says `wanted`.
fn until_node(
    scene: &Scene,
    node: &Node,
    begun: Instant,
    read: impl Fn(&Value) -> Result<String>,
    wanted: &str,
) -> Result<Duration> {
    loop {
        let found = read(&pinned::value(&scene.lab, node, "NODES", OTHER)?)?;
        let now = begun.elapsed();
        if found == wanted {
            return Ok(now);
        }
        ensure!(now < wait::PATIENCE, "{}: still {found}, not {wanted}", node.name);
    }
}

fn router_mac(scene: &Scene) -> Result<String> {
    let link = scene.lab.router.output("ip link show dev lan")?;
    let mac = link
        .split("link/ether ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    mac.map(str::to_owned).with_context(|| format!("no MAC in {link}"))
}
