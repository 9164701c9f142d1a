//! Another agent takes over, of the same map layout or of a later one, while all kinds of traffic go on.

use crate::scene::{Scene, all_whole, web};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tests::lab::{
    Agent, FAMILIES, Node, Pod, Shape, agent, pinned,
    servers::{self, SLOW_RATE},
    traffic::{self, Download, Requests},
    wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 2,
    mtu: 1500,
    pod_offload: true,
};
const LENGTH: usize = 20 * SLOW_RATE;
/// The layout before the present one.
const FORMER: &str = "v1";

/// Connections that live through everything, of both families and to every pod there was when they began, and requests
/// that come all the time.
struct Traffic {
    downloads: Vec<Download>,
    requests: Vec<Requests>,
    datagrams: Vec<Requests>,
}

impl Traffic {
    fn start(scene: &Scene) -> Result<Self> {
        servers::make_file(&scene.lab, "image", LENGTH)?;
        let mut traffic = Self {
            downloads: Vec::new(),
            requests: Vec::new(),
            datagrams: Vec::new(),
        };
        let client = &scene.lab.client;
        for family in FAMILIES {
            for _ in 0..6 {
                let download = Download::start(client, Scene::http(family), "/files/image")?;
                traffic.downloads.push(download);
            }
            traffic.requests.push(Requests::start(client, Scene::http(family)));
            // Datagrams of one socket stay with one pod until their row changes.
            traffic.datagrams.push(Requests::start_udp(client, Scene::dns(family)));
        }
        Ok(traffic)
    }

    /// Ends it; nothing may have failed.
    fn finish(self) -> Result<()> {
        let running = self.downloads.iter().filter(|download| download.is_running()).count();
        ensure!(running == self.downloads.len(), "only {running} downloads still run");
        all_whole(self.downloads, LENGTH)?;
        for requests in self.requests {
            let tally = requests.finish()?;
            let total = tally.total();
            ensure!(total > 100, "hardly any request was answered: {tally:?}");
            ensure!(tally.failures.is_empty(), "of {total} requests: {:?}", tally.failures);
            println!("{total} requests, no failure, the longest gap {:?}", tally.longest_gap);
        }
        for datagrams in self.datagrams {
            let tally = datagrams.finish()?;
            let (total, lost) = (tally.total(), tally.failures.len());
            ensure!(total > 100, "hardly any datagram was answered: {tally:?}");
            // Nobody sends one again that found a queue full, which happens on a busy machine; what is lost to an upgrade
            // is lost to all datagrams of the flow.
            ensure!(lost <= 1, "of {total} datagrams: {:?}", tally.failures);
            println!("{total} datagrams, {lost} lost");
        }
        Ok(())
    }
}

/// [C11] Every agent loads its own program, so a restart is an upgrade within one layout.
#[test]
fn killed_and_stopped_agents_are_replaced_through_the_pinned_link_under_traffic() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let traffic = Traffic::start(scene)?;
        for gracefully in [false, true] {
            for index in 0..scene.lab.nodes.len() {
                let before = Attached::on(&scene.lab.nodes[index], &scene.lab)?;
                let old = scene.agents.remove(index);
                if gracefully {
                    old.stop()?
                } else {
                    old.kill()?
                };
                let new = Agent::start(&scene.lab, &scene.lab.nodes[index])?;
                scene.agents.insert(index, new);
                let after = Attached::on(&scene.lab.nodes[index], &scene.lab)?;
                ensure!(
                    before.link == after.link && before.program != after.program,
                    "{before:?} became {after:?}"
                );
            }
        }
        traffic.finish()
    })
}

/// The former agents are those of `WEIR_FORMER_BIN`, a program of version 1. Without one, the pins are made those of
/// version 1 while no agent runs: its `FLOWS` with its states, and the maps that kept their form; the programs that run
/// are then the present ones, and know nothing of it.
#[test]
fn agents_of_an_earlier_layout_are_replaced_under_traffic_with_flows_and_rows() -> Result<()> {
    let former = env::var_os("WEIR_FORMER_BIN").map(PathBuf::from);
    Scene::without_agents(SHAPE)?.then(|scene| {
        scene.lab.apply("web.yaml", &web().with(first_pods(scene)))?;
        scene.agents = start_former(scene, former.as_deref())?;
        let traffic = Traffic::start(scene)?;
        let served = change_rows(scene)?;
        scene.agents.drain(..).try_for_each(Agent::kill)?;
        if former.is_none() {
            for node in &scene.lab.nodes {
                let flows = make_former(scene, node)?;
                ensure!(flows >= 8, "{}: only {flows} flows are there", node.name);
            }
        }
        interrupt(scene, &scene.lab.nodes[0])?;
        take_over(scene)?;
        let after = traffic::spread(&scene.lab.client, Scene::http(FAMILIES[0]), 60)?;
        ensure!(after.len() == served, "{after:?}");
        traffic.finish()
    })
}

#[test]
fn flows_of_an_earlier_layout_that_nobody_can_read_are_refused_and_left_alone() -> Result<()> {
    Scene::without_agents(Shape { nodes: 1, ..SHAPE })?.then(|scene| {
        let node = &scene.lab.nodes[0];
        let folder = scene.lab.pin_directory(node).join(FORMER);
        fs::create_dir_all(&folder)?;
        let pin = folder.join("FLOWS");
        let create = "type array key 4 value 16 entries 64 name FLOWS flags 0x400";
        node.namespace
            .output(&format!("bpftool map create {} {create}", pin.display()))?;
        let mut agent = Agent::launch(&scene.lab, node, &["--interface", "eth0"])?;
        ensure!(!agent.wait()?.success(), "it started");
        for part in [&*pin.to_string_lossy(), "--detach"] {
            ensure!(
                agent.log().contains(part),
                "{part} is not in its message:\n{}",
                agent.log()
            );
        }
        ensure!(pin.exists(), "it has removed them");
        agent::detach(&scene.lab, node)?;
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        scene.agents = Agent::start_everywhere(&scene.lab)?;
        Ok(())
    })
}

fn first_pods(scene: &Scene) -> impl Iterator<Item = &Pod> {
    scene.lab.pods().filter(|pod| pod.name.ends_with("-1"))
}

/// Starts agents of `program`, or present ones with flow maps so small that bpftool may print them whole.
fn start_former(scene: &Scene, program: Option<&Path>) -> Result<Vec<Agent>> {
    let nodes = scene.lab.nodes.iter();
    let Some(program) = program else {
        let small = ["--max-flow-buckets", "1024"];
        return nodes
            .map(|node| Agent::start_with(&scene.lab, node, &[arguments(node), &small].concat()))
            .collect();
    };
    let agents = nodes
        .map(|node| Agent::launch_program(program, &scene.lab, node, arguments(node)))
        .collect();
    for family in FAMILIES {
        wait::until("the former agents to serve", || {
            let served = traffic::spread(&scene.lab.client, Scene::http(family), 40)?;
            ensure!(served.len() == 2, "{served:?}");
            Ok(())
        })?;
    }
    agents
}

/// One node uses tcx, the other does as if its kernel had none.
fn arguments(node: &Node) -> &'static [&'static str] {
    match node.number {
        1 => &["--interface", "eth0", "--egress", "tcx"],
        _ => &["--interface", "eth0", "--egress", "clsact"],
    }
}

/// Adds the second pods, so that half of all connections belong to the former owner of their row; how many serve then.
fn change_rows(scene: &Scene) -> Result<usize> {
    scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
    wait::until("all pods to serve", || {
        let served = traffic::spread(&scene.lab.client, Scene::http(FAMILIES[0]), 60)?;
        ensure!(served.len() == 4, "{served:?}");
        Ok(served.len())
    })
}

/// Starts the agents one after the other, and waits until nothing of the former layout is left.
fn take_over(scene: &mut Scene) -> Result<()> {
    for node in &scene.lab.nodes {
        let before = Attached::on(node, &scene.lab)?;
        let agent = Agent::start_with(&scene.lab, node, arguments(node))?;
        scene.agents.push(agent);
        let after = Attached::on(node, &scene.lab)?;
        ensure!(
            before.link == after.link && before.program != after.program,
            "{before:?} became {after:?}"
        );
        wait::until("the former pins to be gone", || {
            let former = scene.lab.pin_directory(node).join(FORMER);
            ensure!(!former.exists(), "{} is still there", former.display());
            Ok(())
        })?;
        wait::until("the former programs to be gone", || {
            let links = fs::read_dir(scene.lab.pin_directory(node).join("links"))?;
            let mut links: Vec<_> = links
                .map(|link| Ok(link?.file_name().into_string().unwrap_or_default()))
                .collect::<Result<_>>()?;
            links.sort();
            let filters = node.namespace.output("tc filter show dev eth0 egress")?;
            let expected: (&[&str], usize) = match node.number {
                1 => (&["tc-eth0", "xdp-eth0"], 0),
                _ => (&["xdp-eth0"], 1),
            };
            let found = filters.matches(" name weir_egress").count();
            ensure!(links == expected.0 && found == expected.1, "{links:?} and {filters}");
            Ok(())
        })?;
        // Nodes of both layouts work together meanwhile.
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Lets agents begin to take over, and kills each a little later than the one before.
fn interrupt(scene: &Scene, node: &Node) -> Result<()> {
    for delay in [0, 20, 60, 150] {
        let begun = |agent: &Agent| agent.log().matches("taking over").count();
        let agent = Agent::launch(&scene.lab, node, arguments(node))?;
        let before = begun(&agent);
        wait::until("the agent to begin", || {
            ensure!(begun(&agent) > before, "it has not begun:\n{}", agent.log());
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(delay));
        agent.kill()?;
    }
    let former = scene.lab.pin_directory(node).join(FORMER);
    ensure!(former.exists(), "all of them were too late");
    Ok(())
}

/// Makes the pins of `node` those of version 1; how many flows they have.
fn make_former(scene: &Scene, node: &Node) -> Result<usize> {
    const CARRIED: [&str; 7] = [
        "BACKENDS",
        "DIRECTORY",
        "DISPLACEMENT",
        "FILTER",
        "NODES",
        "RESPONDERS",
        "ROWS",
    ];
    let present = pinned::path(&scene.lab, node, "FLOWS")?;
    let present = present.parent().context("a pin without folder")?;
    let former = scene.lab.pin_directory(node).join(FORMER);
    fs::create_dir(&former)?;
    let create = "type array key 4 value 256 entries 2048 name FLOWS flags 0x400";
    let flows = former.join("FLOWS");
    node.namespace
        .output(&format!("bpftool map create {} {create}", flows.display()))?;
    let dump = format!("bpftool -j map dump pinned {}", present.join("FLOWS").display());
    let buckets: Vec<Value> = serde_json::from_str(&node.namespace.output(&dump)?)?;
    let mut count = 0;
    for (index, bucket) in buckets.iter().enumerate() {
        let bytes: Vec<String> = serde_json::from_value(bucket["value"].clone())?;
        let bytes = bytes
            .iter()
            .map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16));
        let mut bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
        for flow in bytes.chunks_mut(64) {
            flow[55] = match flow[55] {
                // Opening, and answered.
                2 | 3 => 2,
                // Established.
                4 => 3,
                // Closed by one end, or by both.
                5..=7 => 4,
                // UDP.
                8 => 5,
                _ => 0,
            };
            flow[60..64].fill(0);
            count += usize::from(flow[55] != 0);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            let hex = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
            let key = hex(&(index as u32).to_ne_bytes());
            let update = format!(
                "bpftool map update pinned {} key {key} value {}",
                flows.display(),
                hex(&bytes)
            );
            node.namespace.output(&update)?;
        }
    }
    for name in CARRIED {
        fs::rename(present.join(name), former.join(name)).with_context(|| format!("{name} of {}", node.name))?;
    }
    fs::remove_dir_all(present)?;
    Ok(count)
}

/// What runs on a node's `eth0`.
#[derive(Debug)]
struct Attached {
    link: u64,
    program: u64,
}

impl Attached {
    fn on(node: &Node, lab: &tests::lab::Lab) -> Result<Self> {
        let pin = lab.pin_directory(node).join("links/xdp-eth0");
        let text = node
            .namespace
            .output(&format!("bpftool -j link show pinned {}", pin.display()))?;
        let link: Value = serde_json::from_str(&text)?;
        let number = |field: &str| link[field].as_u64().with_context(|| format!("no {field} in {text}"));
        Ok(Self {
            link: number("id")?,
            program: number("prog_id")?,
        })
    }
}
