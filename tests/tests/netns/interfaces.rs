//! What a node takes packets from: XDP in either mode, large frames, more than one interface, and interfaces that go.

use crate::scene::{Scene, web};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};
use tests::lab::{
    Agent, FAMILIES, Family, Node, Shape, address, cable, capture::Capture, client, manifests, servers, traffic, wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};
const MODES: [&str; 2] = ["native", "generic"];
/// Where nobody listens: that of discard (RFC 863).
const MARK_PORT: u16 = 9;

#[test]
fn native_and_generic_xdp_both_serve() -> Result<()> {
    in_each_mode(SHAPE, |scene| {
        for family in FAMILIES {
            exchange(scene, family, &[100, 1300])?;
        }
        Ok(())
    })
}

/// With 9000 bytes a frame no longer fits one page: XDP sees it in several buffers.
#[test]
fn jumbo_frames_are_carried_whole_in_both_modes() -> Result<()> {
    in_each_mode(Shape { mtu: 9000, ..SHAPE }, |scene| {
        for family in FAMILIES {
            exchange(scene, family, &[100, 3000, 5000, 8800])?;
        }
        Ok(())
    })
}

#[test]
fn clients_may_come_in_by_another_interface_than_the_tunnel_leaves_by() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        cable::add_second_lan(&scene.lab)?;
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        for mode in MODES {
            scene.agents = start(
                scene,
                &["--interface", "eth0", "--interface", "eth1", "--xdp-mode", mode],
            )?;
            for family in FAMILIES {
                let (vip, owner) = (Scene::http(family).ip(), scene.owner(family)?);
                // In by eth1, and the tunnel out by eth0.
                let by_second = format!("route replace {vip} via {}", address::second(family, owner.number));
                scene.lab.router.ip_batch(&by_second)?;
                let entered = Capture::at_node(&scene.lab, &cable::second_port(owner), &format!("dst host {vip}"))?;
                let filter = format!("dst host {vip} or udp dst port {MARK_PORT}");
                let direct = Capture::at_node(&scene.lab, &owner.name, &filter)?;
                exchange(scene, family, &[100, 1300]).with_context(|| format!("{mode}: in by eth1"))?;
                // What tcpdump has not read yet when it is ended, it never does.
                wait::until("what came in by eth1", || {
                    let packets = entered.lines()?.len();
                    ensure!(packets > 100, "{packets} packets");
                    Ok(())
                })?;
                // The other one may have nothing to read but this, which comes behind all there was.
                let owned = owner.address(family);
                let mark = format!("{owned}.{MARK_PORT}: UDP");
                wait::until("a mark by eth0", || {
                    let send = || Ok(client::udp_socket((owned, MARK_PORT).into())?.send(b"mark")?);
                    scene.lab.router.run(send)?;
                    let lines = direct.lines()?;
                    ensure!(lines.iter().any(|line| line.contains(&mark)), "{lines:?}");
                    Ok(())
                })?;
                // What was tunnelled shows its outer address to the filter, so this is what came by eth0 itself.
                let (entered, mut direct) = (entered.finish()?, direct.finish()?);
                direct.retain(|line| !line.contains(&mark));
                ensure!(
                    entered.len() > 100 && direct.is_empty(),
                    "{mode}, {family}: {} packets came in by eth1, and these by eth0: {direct:?}",
                    entered.len()
                );
                scene.lab.router.ip_batch(&format!("route del {vip}"))?;
            }
            // In by eth0, and the tunnel out by eth1: the underlay is IPv4.
            for node in &scene.lab.nodes {
                for other in scene.lab.nodes.iter().filter(|other| other.number != node.number) {
                    let (to, via) = (other.address(Family::V4), address::second(Family::V4, other.number));
                    node.namespace
                        .ip_batch(&format!("route replace {to} via {via} dev eth1"))?;
                }
            }
            for family in FAMILIES {
                let owner = scene.owner(family)?;
                let port = cable::second_port(owner);
                let tunnelled = Capture::at_node(&scene.lab, &port, "udp dst port 6081")?;
                wait::until("the tunnel to leave by eth1", || {
                    let sent = tunnelled.recorded()?;
                    exchange(scene, family, &[100, 1300])?;
                    ensure!(
                        tunnelled.recorded()? > sent,
                        "nothing has left by eth1 of {}",
                        owner.name
                    );
                    Ok(())
                })
                .with_context(|| format!("{mode}: out by eth1"))?;
            }
            for node in &scene.lab.nodes {
                for other in scene.lab.nodes.iter().filter(|other| other.number != node.number) {
                    node.namespace
                        .ip_batch(&format!("route del {}", other.address(Family::V4)))?;
                }
            }
            scene.agents.drain(..).try_for_each(Agent::stop)?;
        }
        Ok(())
    })
}

#[test]
fn an_interface_that_comes_back_is_taken_again_by_itself() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for round in 0..3 {
            let node = &scene.lab.nodes[round % 2];
            cable::pull(node)?;
            let condition = wait::until("the missing interface to be told", || {
                Ok(scene
                    .status(node)?
                    .condition("Interface", "eth0", "InterfaceMissing")?
                    .clone())
            })?;
            ensure!(
                condition.message.contains("eth0") && condition.field == "--interface",
                "{condition:?}"
            );
            let begun = Instant::now();
            cable::plug(&scene.lab, node)?;
            let plugged = begun.elapsed();
            wait_for_program(node)?;
            let taken = begun.elapsed();
            println!(
                "{}: eth0 was made and configured in {plugged:?}, its program was there after {taken:?}",
                node.name
            );
            wait::until("the node to be ready again", || {
                let status = scene.status(node)?;
                status.check_ready(scene.agents[round % 2].id())?;
                ensure!(status.conditions.is_empty(), "{:?}", status.conditions);
                Ok(())
            })?;
            for family in FAMILIES {
                // The router has just given up asking for some, and says so to packets that waited for an answer.
                wait::until("both pods to serve again", || {
                    let served = traffic::spread(&scene.lab.client, Scene::http(family), 30)?;
                    ensure!(served.len() == 2, "{family}: {served:?}");
                    Ok(())
                })?;
                exchange(scene, family, &[100, 1300])?;
            }
        }
        Ok(())
    })
}

/// The other interfaces go on meanwhile.
#[test]
fn an_interface_that_never_was_keeps_no_other_from_serving() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        let nodes = &scene.lab.nodes;
        let arguments = ["--interface", "eth0", "--interface", "eth7"];
        scene.agents = nodes
            .iter()
            .map(|node| Agent::launch(&scene.lab, node, &arguments))
            .collect::<Result<_>>()?;
        for node in nodes {
            wait::until("the missing interface to be told", || {
                scene
                    .status(node)?
                    .condition("Interface", "eth7", "InterfaceMissing")
                    .map(drop)
            })?;
            wait_for_program(node)?;
        }
        for family in FAMILIES {
            wait::until("both pods to serve", || exchange(scene, family, &[100]))?;
        }
        Ok(())
    })
}

/// Nobody would answer elsewhere: each node says so, elected or not, until the interface is there and taken.
#[test]
fn an_eip_is_answered_for_where_packets_are_taken() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let name = |family: Family| format!("lan-{family}").to_lowercase();
        let eips = FAMILIES.map(|family| manifests::eip_on(&name(family), address::vip_network(family), "eth1"));
        scene.lab.apply("eips.yaml", &eips.concat())?;
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        let is_told = |scene: &Scene, reason: &str, text: &str| {
            wait::until("what keeps nodes from answering", || {
                for node in &scene.lab.nodes {
                    let status = scene.status(node)?;
                    for family in FAMILIES {
                        let condition = status.condition("Eip", &name(family), reason)?;
                        ensure!(
                            condition.field == "spec.interface" && condition.message.contains(text),
                            "{condition:?}"
                        );
                    }
                }
                Ok(())
            })
        };
        scene.agents = (scene.lab.nodes.iter())
            .map(|node| Agent::launch(&scene.lab, node, &["--interface", "eth0", "--interface", "eth1"]))
            .collect::<Result<_>>()?;
        is_told(scene, "InterfaceMissing", "has no interface eth1")?;

        cable::add_second_lan(&scene.lab)?;
        let by_second = FAMILIES.map(|family| {
            let vip = Scene::http(family).ip();
            format!("route replace {vip} dev {}\n", cable::SECOND_LAN)
        });
        scene.lab.router.ip_batch(&by_second.concat())?;
        for family in FAMILIES {
            wait::until("both pods to serve", || exchange(scene, family, &[100]))?;
        }
        for node in &scene.lab.nodes {
            let conditions = scene.status(node)?.conditions;
            ensure!(conditions.is_empty(), "{}: {conditions:?}", node.name);
        }

        scene.agents.clear();
        scene.agents = start(scene, &["--interface", "eth0"])?;
        is_told(scene, "InterfaceNotTaken", "--interface eth1")?;
        scene
            .lab
            .router
            .output(&format!("ip neigh flush dev {}", cable::SECOND_LAN))?;
        let asked = scene.lab.client.run(|| client::ask(Scene::http(Family::V4)));
        ensure!(asked.is_err(), "{asked:?}");
        Ok(())
    })
}

/// Runs `check` with agents in native and then in generic mode on the same lab: changing the mode is part of it.
fn in_each_mode(shape: Shape, check: impl Fn(&Scene) -> Result<()>) -> Result<()> {
    Scene::without_agents(shape)?.then(|scene| {
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        for mode in MODES {
            scene.agents = start(scene, &["--interface", "eth0", "--xdp-mode", mode])?;
            for node in &scene.lab.nodes {
                let status = scene.status(node)?;
                let modes: Vec<_> = status
                    .interfaces
                    .iter()
                    .map(|found| found.xdp_mode.as_deref())
                    .collect();
                ensure!(modes == [Some(mode)], "{} runs {modes:?}, not {mode}", node.name);
            }
            check(scene).with_context(|| format!("{mode} XDP"))?;
            scene.agents.drain(..).try_for_each(Agent::stop)?;
        }
        Ok(())
    })
}

fn start(scene: &Scene, arguments: &[&str]) -> Result<Vec<Agent>> {
    let nodes = scene.lab.nodes.iter();
    nodes
        .map(|node| Agent::start_with(&scene.lab, node, arguments))
        .collect()
}

/// Datagrams of these sizes there and back, and a file up and down, with every pod.
fn exchange(scene: &Scene, family: Family, sizes: &[usize]) -> Result<()> {
    const LENGTH: usize = 300_000;
    servers::make_file(&scene.lab, "small", LENGTH)?;
    let content = servers::content(LENGTH);
    let all: BTreeSet<String> = scene.lab.pods().map(|pod| pod.name.clone()).collect();
    scene.lab.client.run(|| {
        for &size in sizes {
            let answered = until_all(&all, || {
                let socket = client::udp_socket(Scene::dns(family))?;
                Ok(client::ask_udp_with(&socket, &content[..size])?.pod)
            });
            answered.with_context(|| format!("{family}: datagrams of {size} bytes"))?;
        }
        until_all(&all, || {
            let mut connection = client::connect(Scene::http(family))?;
            let pod = client::ask_on(&mut connection)?.pod;
            ensure!(
                client::get_on(&mut connection, "/files/small")? == content,
                "{pod}: harmed on the way down"
            );
            client::put_on(&mut connection, &format!("/upload/small-{family}"), &content)?;
            Ok(pod)
        })
        .with_context(|| format!("{family}: files"))
    })?;
    for (pod, web) in scene.lab.pods().zip(&scene.webs) {
        let uploaded = web.uploaded(&format!("small-{family}"))?;
        ensure!(uploaded == content, "{}: harmed on the way up", pod.name);
    }
    Ok(())
}

/// Repeats `attempt`, which names a pod, until each pod has had its turn.
fn until_all(all: &BTreeSet<String>, mut attempt: impl FnMut() -> Result<String>) -> Result<()> {
    let mut seen = BTreeMap::<String, usize>::new();
    for _ in 0..60 {
        *seen.entry(attempt()?).or_default() += 1;
        if seen.len() == all.len() {
            return Ok(());
        }
    }
    anyhow::bail!("of {all:?} only {seen:?} in 60 attempts")
}

fn wait_for_program(node: &Node) -> Result<()> {
    let deadline = Instant::now() + wait::PATIENCE;
    loop {
        let link = node.namespace.output("ip -d link show dev eth0")?;
        if link.contains("prog/xdp") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no program on eth0 of {}: {link}", node.name);
        thread::sleep(Duration::from_millis(1));
    }
}
