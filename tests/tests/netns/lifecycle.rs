//! The agent comes and goes; the data path does not.

use crate::scene::{Scene, all_whole, web};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{collections::BTreeSet, fs, thread, time::Duration};
use tests::lab::{
    Agent, FAMILIES, Family, Namespace, Node, Shape, agent, client,
    manifests::Endpoint,
    servers::{self, SLOW_RATE},
    traffic::{self, Requests},
    wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};
const DOWNLOAD: usize = 8 * SLOW_RATE;

/// [C11] All agents die at once, and what was open and what comes new is served nonetheless.
#[test]
fn killed_agents_break_nothing() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        servers::make_file(&scene.lab, "image", DOWNLOAD)?;
        for family in FAMILIES {
            let downloads = scene.downloads(family, "image", |_| true)?;
            let requests = Requests::start(&scene.lab.client, Scene::http(family));
            scene.agents.drain(..).try_for_each(Agent::kill)?;
            let served = traffic::spread(&scene.lab.client, Scene::http(family), 50)?;
            ensure!(served.len() == 2, "{family}: while the agents are dead: {served:?}");
            scene.agents = Agent::start_everywhere(&scene.lab)?;
            ensure!(
                downloads.iter().all(|download| download.is_running()),
                "a download broke"
            );
            let tally = requests.finish()?;
            ensure!(
                tally.failures.is_empty(),
                "{family}: of {} requests: {:?}",
                tally.total(),
                tally.failures
            );
            all_whole(downloads, DOWNLOAD)?;
        }
        Ok(())
    })
}

/// Pods flap and agents die at the same time, again and again.
#[test]
fn agents_that_die_while_pods_come_and_go_break_nothing() -> Result<()> {
    Scene::play(
        Shape {
            nodes: 3,
            pods_per_node: 2,
            ..SHAPE
        },
        |scene| {
            const LENGTH: usize = 8 * SLOW_RATE;
            servers::make_file(&scene.lab, "image", LENGTH)?;
            let requests = FAMILIES.map(|family| Requests::start(&scene.lab.client, Scene::http(family)));
            let mut downloads = scene.downloads(Family::V4, "image", |_| true)?;
            downloads.extend(scene.downloads(Family::V6, "image", |_| true)?);
            let pods: Vec<_> = scene.lab.pods().cloned().collect();
            for (round, leaving) in pods.iter().enumerate().take(4) {
                let states: Vec<_> = pods
                    .iter()
                    .map(|pod| {
                        (
                            pod,
                            if pod.name == leaving.name {
                                Endpoint::Terminating
                            } else {
                                Endpoint::Ready
                            },
                        )
                    })
                    .collect();
                let victim = round % scene.agents.len();
                scene
                    .lab
                    .apply("web.yaml", &(web().yaml() + &web().endpoints_in_states(&states)))?;
                scene.agents.remove(victim).kill()?;
                scene.lab.apply("web.yaml", &web().with(&pods))?;
                scene
                    .agents
                    .insert(victim, Agent::start(&scene.lab, &scene.lab.nodes[victim])?);
            }
            all_whole(downloads, LENGTH)?;
            for requests in requests {
                let tally = requests.finish()?;
                ensure!(
                    tally.failures.is_empty(),
                    "of {} requests: {:?}",
                    tally.total(),
                    tally.failures
                );
            }
            Ok(())
        },
    )
}

/// [C11] A graceful stop leaves everything in place, and the next agent takes it over without a gap.
#[test]
fn a_stopped_agent_leaves_the_data_path_and_the_next_adopts_it() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let before = scene
            .lab
            .nodes
            .iter()
            .map(|node| maps_of(scene, node))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            before.iter().all(|maps| maps.len() >= 10),
            "hardly any map is pinned: {before:?}"
        );
        let sent_again = syns_sent_again(&scene.lab.client)?;
        let requests = FAMILIES.map(|family| Requests::start(&scene.lab.client, Scene::http(family)));
        for _ in 0..2 {
            scene.agents.drain(..).try_for_each(Agent::stop)?;
            for node in &scene.lab.nodes {
                ensure!(!scene.status(node)?.agent_alive, "{} still has an agent", node.name);
                ensure!(agent::has_programs(node)?, "no program is left on {}", node.name);
            }
            thread::sleep(Duration::from_millis(200));
            scene.agents = Agent::start_everywhere(&scene.lab)?;
        }
        for requests in requests {
            let tally = requests.finish()?;
            ensure!(
                tally.failures.is_empty(),
                "of {} requests: {:?}",
                tally.total(),
                tally.failures
            );
        }
        let lost = syns_sent_again(&scene.lab.client)? - sent_again;
        ensure!(lost == 0, "{lost} SYNs had to be sent again");
        let after = scene
            .lab
            .nodes
            .iter()
            .map(|node| maps_of(scene, node))
            .collect::<Result<Vec<_>>>()?;
        ensure!(before == after, "the maps were replaced:\n{before:?}\n{after:?}");
        Ok(())
    })
}

/// Flows move while packets pass: a data path of another capacity is another `FLOWS` map.
#[test]
fn a_rebuilt_data_path_keeps_its_flows() -> Result<()> {
    const LENGTH: usize = 10 * SLOW_RATE;
    Scene::play(SHAPE, |scene| {
        servers::make_file(&scene.lab, "image", LENGTH)?;
        let mut downloads = scene.downloads(Family::V4, "image", |_| true)?;
        downloads.extend(scene.downloads(Family::V6, "image", |_| true)?);
        scene.agents.drain(..).try_for_each(Agent::stop)?;
        for node in &scene.lab.nodes {
            let arguments = ["--interface", "eth0", "--max-flow-buckets", "65536"];
            let agent = Agent::start_with(&scene.lab, node, &arguments)?;
            let log = agent.log();
            // Each node has a pod, and each pod serves a download of each family.
            let moved = log
                .lines()
                .filter(|line| line.contains("moved flows") && line.contains("lost=0"))
                .filter_map(|line| line.split("placed=").nth(1)?.split_whitespace().next()?.parse().ok())
                .max();
            ensure!(moved >= Some(2), "{}: {moved:?} flows have moved:\n{log}", node.name);
            scene.agents.push(agent);
            let flows = flow_maps(scene, node)?;
            ensure!(flows == [("FLOWS".to_owned(), 65536)], "{}: {flows:?}", node.name);
        }
        ensure!(
            downloads.iter().all(|download| download.is_running()),
            "a download broke"
        );
        let served = traffic::spread(&scene.lab.client, Scene::http(Family::V4), 40)?;
        ensure!(served.len() == 2, "{served:?}");
        all_whole(downloads, LENGTH)
    })
}

#[test]
fn detaching_removes_programs_and_pins_and_starting_again_serves_again() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        scene.agents.drain(..).try_for_each(Agent::stop)?;
        for node in &scene.lab.nodes {
            agent::detach(&scene.lab, node)?;
            // The kernel takes a program off its device a moment after the last reference is gone.
            wait::until("the programs to be gone", || {
                ensure!(!agent::has_programs(node)?, "a program is left on {}", node.name);
                Ok(())
            })?;
            let pins = scene.lab.pin_directory(node);
            ensure!(!pins.exists(), "{} is still there", pins.display());
            // There is nothing left to remove, and that is fine.
            agent::detach(&scene.lab, node)?;
        }
        let served = scene.lab.client.run(|| client::ask(Scene::http(Family::V4)));
        ensure!(served.is_err(), "somebody still serves: {served:?}");
        scene.agents = Agent::start_everywhere(&scene.lab)?;
        // The router has just given up asking, and says so to packets that waited for an answer.
        let served = wait::until("requests to be served again", || {
            traffic::spread(&scene.lab.client, Scene::http(Family::V4), 40)
        })?;
        ensure!(served.len() == 2, "{served:?}");
        Ok(())
    })
}

#[test]
fn pinned_maps_of_another_shape_are_refused_and_left_alone() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        scene.agents.drain(..).try_for_each(Agent::stop)?;
        let node = &scene.lab.nodes[0];
        let pin = fs::read_dir(scene.lab.pin_directory(node))?
            .filter_map(|entry| Some(entry.ok()?.path().join("BACKENDS")))
            .find(|pin| pin.exists())
            .context("BACKENDS is not pinned")?;
        fs::remove_file(&pin)?;
        let create = "bpftool map create PIN type array key 4 value 16 entries 131072 name BACKENDS flags 0x400";
        node.namespace.output(&create.replace("PIN", &pin.to_string_lossy()))?;

        let mut agent = Agent::launch(&scene.lab, node, &["--interface", "eth0"])?;
        let status = agent.wait()?;
        ensure!(!status.success(), "it took the map over");
        for part in ["BACKENDS", "value size", "16", "--detach"] {
            ensure!(
                agent.log().contains(part),
                "{part} is not in its message:\n{}",
                agent.log()
            );
        }
        ensure!(pin.exists() && agent::has_programs(node)?, "it has removed something");
        let served = traffic::spread(&scene.lab.client, Scene::http(Family::V4), 40)?;
        ensure!(served.len() == 2, "the data path does not serve any more: {served:?}");

        agent::detach(&scene.lab, node)?;
        scene.agents = Agent::start_everywhere(&scene.lab)?;
        let served = traffic::spread(&scene.lab.client, Scene::http(Family::V4), 40)?;
        ensure!(served.len() == 2, "{served:?}");
        Ok(())
    })
}

#[test]
fn pins_of_another_layout_version_are_refused() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let node = &scene.lab.nodes[0];
        fs::create_dir_all(scene.lab.pin_directory(node).join("v999"))?;
        let mut agent = Agent::launch(&scene.lab, node, &["--interface", "eth0"])?;
        ensure!(!agent.wait()?.success(), "it started");
        for part in ["999", "--detach"] {
            ensure!(
                agent.log().contains(part),
                "{part} is not in its message:\n{}",
                agent.log()
            );
        }
        Ok(())
    })
}

#[test]
fn two_agents_do_not_share_one_data_path() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let node = &scene.lab.nodes[0];
        let mut second = Agent::launch(&scene.lab, node, &["--interface", "eth0"])?;
        ensure!(!second.wait()?.success(), "the second one runs as well");
        let state = scene.lab.state_directory(node);
        for part in [&*state.to_string_lossy(), "--state-dir", "--pin-dir"] {
            ensure!(
                second.log().contains(part),
                "{part} is not in what it says: {}",
                second.log()
            );
        }
        // What guards the pins guards them from being taken away as well.
        let pins = scene.lab.pin_directory(node);
        let refusal = agent::detach(&scene.lab, node).err().context("it was detached")?;
        ensure!(
            refusal
                .to_string()
                .contains(&format!("already uses {}", pins.display())),
            "it says: {refusal}"
        );
        ensure!(scene.agents[0].is_running()?, "the first one has gone");
        Ok(())
    })
}

/// How many SYNs a network has sent more than once.
fn syns_sent_again(namespace: &Namespace) -> Result<u64> {
    let text = namespace.output("cat /proc/net/netstat")?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    let mut counters = names.split(' ').zip(values.split(' '));
    let (_, count) = counters
        .find(|(name, _)| *name == "TCPSynRetrans")
        .with_context(|| format!("no count in {text}"))?;
    Ok(count.parse()?)
}

/// Name and capacity of every pinned map of flows, in order.
fn flow_maps(scene: &Scene, node: &Node) -> Result<Vec<(String, u64)>> {
    let mut flows = Vec::new();
    for folder in fs::read_dir(scene.lab.pin_directory(node))? {
        for pin in fs::read_dir(folder?.path())? {
            let pin = pin?.path();
            let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == "FLOWS" || name.starts_with("FLOWS_") {
                let line = format!("bpftool -j map show pinned {}", pin.display());
                let map: Value = serde_json::from_str(&node.namespace.output(&line)?)?;
                flows.push((name, map["max_entries"].as_u64().context("a map without capacity")?));
            }
        }
    }
    flows.sort();
    Ok(flows)
}

/// Ids of the maps pinned for the node that its program uses.
fn maps_of(scene: &Scene, node: &Node) -> Result<BTreeSet<u64>> {
    let link = node.namespace.output("ip -d link show dev eth0")?;
    let id = link
        .split("prog/xdp id ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let id = id.with_context(|| format!("no program on {}: {link}", node.name))?;
    let program: Value = serde_json::from_str(&node.namespace.output(&format!("bpftool -j prog show id {id}"))?)?;
    let used: Vec<u64> = serde_json::from_value(program["map_ids"].clone())?;
    let mut pinned = BTreeSet::new();
    for folder in fs::read_dir(scene.lab.pin_directory(node))? {
        let folder = folder?.path();
        for pin in fs::read_dir(folder).into_iter().flatten() {
            let line = format!("bpftool -j map show pinned {}", pin?.path().display());
            // Links are pinned there too, and are no maps.
            if let Ok(map) = node.namespace.output(&line) {
                let map: Value = serde_json::from_str(&map)?;
                pinned.extend(map["id"].as_u64().filter(|id| used.contains(id)));
            }
        }
    }
    Ok(pinned)
}
