//! `weir check` says what would not work on a node before anything is attached, and changes nothing.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Output;
use tests::lab::{
    Agent, Family, Lab, Node, Shape, agent, client,
    foreign::{End, Program},
    wait,
};

const SHAPE: Shape = Shape {
    nodes: 1,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

/// What `weir check` finds on a node, and whether it says that it would work.
fn check(lab: &Lab, node: &Node, interface: &str) -> Result<(bool, Vec<Value>)> {
    read(&agent::output(
        lab,
        node,
        "check",
        &["--interface", interface, "-o", "json"],
    )?)
}

/// The same as somebody who has no capabilities but these, as `setpriv` has them named.
fn check_with(lab: &Lab, node: &Node, capabilities: &str) -> Result<(bool, Vec<Value>)> {
    let mut command = node.namespace.command("setpriv");
    command.arg(format!("--bounding-set=-all{capabilities}"));
    command.args(["--inh-caps=-all", "--"]).arg(agent::binary());
    command.args(["check", "--interface", "eth0", "-o", "json", "--pin-dir"]);
    command
        .arg(lab.pin_directory(node))
        .arg("--state-dir")
        .arg(lab.state_directory(node));
    read(&command.output()?)
}

fn read(output: &Output) -> Result<(bool, Vec<Value>)> {
    let findings =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.success(), findings))
}

fn level<'a>(findings: &'a [Value], text: &str) -> Result<&'a str> {
    let finding = findings
        .iter()
        .find(|finding| finding["says"].as_str().is_some_and(|says| says.contains(text)));
    finding
        .and_then(|finding| finding["level"].as_str())
        .with_context(|| format!("nothing says {text} in {findings:?}"))
}

#[test]
fn a_node_that_would_serve_is_told_from_one_that_would_not() -> Result<()> {
    let lab = Lab::new(SHAPE)?;
    let node = lab.node("node-1")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(well, "{findings:?}");
    let release = node.namespace.output("uname -r")?;
    for text in [
        release.trim(),
        "the kernel describes its types",
        "all that are needed",
        "no XDP program yet",
        "veth runs XDP programs",
        "MTU 1500",
        "no strict reverse-path filter",
    ] {
        ensure!(level(&findings, text)? == "ok", "{findings:?}");
    }

    let (well, findings) = check(&lab, node, "eth7")?;
    ensure!(
        !well && level(&findings, "no such interface")? == "problem",
        "{findings:?}"
    );

    node.namespace.output("ip link set eth0 mtu 1300")?;
    node.namespace
        .output("sysctl -qw net.ipv4.conf.eth0.rp_filter=1 net.ipv4.ip_forward=0")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(
        !well && level(&findings, "IPv6 needs 1280")? == "problem",
        "{findings:?}"
    );
    ensure!(
        level(&findings, "strict reverse-path filter:")? == "warning",
        "{findings:?}"
    );
    ensure!(
        level(&findings, "forwards no IPv4 packets")? == "warning",
        "{findings:?}"
    );

    // Only what there is can suffer.
    node.namespace.output("ip -6 address flush scope global")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(
        well && level(&findings, "IPv6 needs 1280")? == "warning",
        "{findings:?}"
    );

    let both = ["--interface", "eth0", "--interface", "lo", "-o", "json"];
    let (_, findings) = read(&agent::output(&lab, node, "check", &both)?)?;
    ensure!(
        level(
            &findings,
            "strict reverse-path filter, on a host with several interfaces"
        )? == "problem",
        "{findings:?}"
    );
    Ok(())
}

#[test]
fn a_driver_without_xdp_is_a_problem_where_the_agent_is_to_have_no_other() -> Result<()> {
    let lab = Lab::new(SHAPE)?;
    let node = lab.node("node-1")?;
    for (mode, level_of_it, text) in [
        ("auto", "warning", "runs no XDP programs, so the kernel"),
        ("native", "problem", "runs no XDP programs, and --xdp-mode native"),
        ("generic", "ok", "--xdp-mode generic"),
    ] {
        let arguments = ["--interface", "lo", "--xdp-mode", mode, "-o", "json"];
        let (well, findings) = read(&agent::output(&lab, node, "check", &arguments)?)?;
        ensure!(
            well == (level_of_it != "problem") && level(&findings, text)? == level_of_it,
            "{mode}: {findings:?}"
        );
    }
    Ok(())
}

#[test]
fn capabilities_that_are_missing_are_named() -> Result<()> {
    let lab = Lab::new(SHAPE)?;
    let node = lab.node("node-1")?;
    for (capabilities, missing) in [
        ("", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing"),
        (",+net_admin", "CAP_BPF, CAP_PERFMON missing"),
    ] {
        let (well, findings) = check_with(&lab, node, capabilities)?;
        ensure!(!well && level(&findings, missing)? == "problem", "{findings:?}");
    }
    Ok(())
}

#[test]
fn an_xdp_program_of_somebody_else_is_a_problem() -> Result<()> {
    let lab = Lab::new(SHAPE)?;
    let node = lab.node("node-1")?;
    Program::xdp("somebody_elses")?.attach_xdp(&node.namespace, "eth0")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(
        !well && level(&findings, "runs the XDP program somebody_elses")? == "problem",
        "{findings:?}"
    );
    node.namespace.output("ip link set dev eth0 xdp off")?;
    let (well, findings) = check(&lab, node, "eth0")?;
    ensure!(well && level(&findings, "no XDP program yet")? == "ok", "{findings:?}");
    Ok(())
}

/// What comes before weir's egress program may hide replies from it; what comes behind it, and on the way in, sees what it has
/// done. Weir serves beside them already, so that none of them keeps an agent from starting; what is said of one is so.
#[test]
fn programs_of_others_at_tc_are_told_with_their_place() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let node = scene.owner(Family::V4)?;
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(well && level(&findings, "others' tc programs").is_err(), "{findings:?}");
        let others = Program::classifier("somebody_elses")?;
        others.attach_tcx(&node.namespace, "eth0", false, End::Last)?;
        others.attach_tcx(&node.namespace, "eth0", true, End::Last)?;
        for line in [
            "tc qdisc add dev eth0 clsact",
            "tc filter add dev eth0 ingress prio 3 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1",
            "tc filter add dev eth0 egress prio 7 protocol ip u32 match ip dst 192.0.2.1 flowid 1:1",
        ] {
            node.namespace.output(line)?;
        }
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(well, "{findings:?}");
        for text in [
            "on the way into eth0: somebody_elses (tcx), u32 (filter, priority 3);",
            "on the way out of eth0, behind weir's: somebody_elses (tcx), u32 (filter, priority 7);",
        ] {
            ensure!(level(&findings, text)? == "warning", "{findings:?}");
        }
        // As in a pod, where names are not told.
        let (well, findings) = check_with(&scene.lab, node, ",+bpf,+net_admin,+perfmon")?;
        ensure!(
            well && level(
                &findings,
                "out of eth0, behind weir's: ? (tcx), u32 (filter, priority 7);"
            )? == "warning",
            "{findings:?}"
        );

        Program::classifier("at_the_head")?.attach_tcx(&node.namespace, "eth0", true, End::First)?;
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(
            well && level(&findings, "before weir's: at_the_head (tcx);")? == "warning",
            "{findings:?}"
        );
        scene.lab.client.run(|| client::ask(Scene::http(Family::V4)))?;
        Program::last_word("last_word")?.attach_tcx(&node.namespace, "eth0", true, End::First)?;
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(
            well && level(&findings, "before weir's: last_word (tcx), at_the_head (tcx);")? == "warning",
            "{findings:?}"
        );
        let pod = node.pods[0].address(Family::V4);
        let sender = wait::until("an answer", || {
            scene.lab.client.run(|| client::answers_from(Scene::dns(Family::V4)))
        })?;
        ensure!(sender.ip() == pod, "the answer of {pod} comes from {sender}");
        // The remedy.
        scene.agents.drain(..).try_for_each(Agent::kill)?;
        agent::detach(&scene.lab, &scene.lab.nodes[0])?;
        scene.agents = Agent::start_everywhere(&scene.lab)?;
        scene.lab.client.run(|| client::ask(Scene::http(Family::V4))).map(drop)
    })
}

/// As on kernels without tcx.
#[test]
fn filters_before_that_of_weir_are_told() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let node = &scene.lab.nodes[0];
        let arguments = ["--interface", "eth0", "--egress", "clsact"];
        let mut agent = Agent::launch(&scene.lab, node, &arguments)?;
        agent.wait_until_ready(&scene.lab)?;
        scene.agents.push(agent);
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(well && level(&findings, "others' tc programs").is_err(), "{findings:?}");
        let pin = scene.lab.pin_directory(node).join("somebody-elses");
        Program::classifier("unnamed")?.pin(&pin)?;
        // What `tc` calls a program that it has found pinned.
        let name = "somebody-elses:[*fsobj]";
        for (verb, priority) in [("add", 1), ("add", 60), ("del", 1)] {
            let of = if verb == "add" {
                format!(" bpf da pinned {}", pin.display())
            } else {
                String::new()
            };
            node.namespace
                .output(&format!("tc filter {verb} dev eth0 egress prio {priority}{of}"))?;
            let (well, findings) = check(&scene.lab, node, "eth0")?;
            let before = level(&findings, &format!("before weir's: {name} (filter, priority 1);")).ok();
            let behind = level(&findings, &format!("behind weir's: {name} (filter, priority 60);")).ok();
            let there = verb == "add";
            ensure!(well && before == there.then_some("warning"), "{findings:?}");
            ensure!(
                behind == (priority == 60 || !there).then_some("warning"),
                "{findings:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_check_beside_a_running_agent_finds_its_programs_and_leaves_them() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let node = scene.owner(Family::V4)?;
        let (well, findings) = check(&scene.lab, node, "eth0")?;
        ensure!(
            well && level(&findings, "runs weir's XDP program")? == "ok",
            "{findings:?}"
        );
        scene.lab.client.run(|| client::ask(Scene::http(Family::V4))).map(drop)
    })
}
