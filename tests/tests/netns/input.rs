//! Bad input: one clear message about the object at fault, and everything else keeps being served.

use crate::scene::{Scene, web};
use anyhow::{Result, ensure};
use std::{path::PathBuf, process::Command};
use tests::lab::{
    Agent, Family, Shape,
    address::vip,
    manifests::{Service, eip, eip_on},
    status::Condition,
    traffic, wait,
};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

/// Waits for the condition on every node, and checks that its message names what it has to, and that `web` is served.
fn told(scene: &Scene, kind: &str, name: &str, reason: &str, parts: &[&str]) -> Result<Condition> {
    let mut last = None;
    for node in &scene.lab.nodes {
        let condition = wait::until("a condition", || {
            scene.status(node)?.condition(kind, name, reason).cloned()
        })?;
        let whole = format!(
            "{} {} {} {}",
            condition.object.kind, condition.object.name, condition.field, condition.message
        );
        for part in parts {
            ensure!(whole.contains(part), "{part} is not in {condition:?}");
        }
        last = Some(condition);
    }
    still_served(scene)?;
    Ok(last.expect("a lab has nodes"))
}

fn still_served(scene: &Scene) -> Result<()> {
    let served = traffic::spread(&scene.lab.client, Scene::http(Family::V4), 40)?;
    ensure!(served.len() == 2, "web is served by {served:?}");
    Ok(())
}

/// Waits until nothing is wrong any more.
fn resolved(scene: &Scene) -> Result<()> {
    wait::until("no conditions", || {
        for node in &scene.lab.nodes {
            let conditions = scene.status(node)?.conditions;
            ensure!(conditions.is_empty(), "{conditions:?}");
        }
        Ok(())
    })
}

#[test]
fn broken_objects_are_named_and_the_others_served() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let lab = &scene.lab;
        let pods: Vec<_> = lab.pods().collect();
        let of = |name: &str, host: u8| Service::new(name).at([vip(Family::V4, host)]);

        lab.apply(
            "broken.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: [unclosed\n",
        )?;
        told(scene, "File", "broken.yaml", "Unparsable", &["broken.yaml"])?;
        lab.retract("broken.yaml")?;
        resolved(scene)?;

        lab.apply("eip2.yaml", &eip("overlapping", "10.10.1.128/25"))?;
        told(scene, "Eip", "overlapping", "Overlap", &["lan-ipv4", "spec.address"])?;
        lab.retract("eip2.yaml")?;

        lab.apply("eip2.yaml", &eip("nonsense", "10.10.300.0/24"))?;
        told(
            scene,
            "Eip",
            "nonsense",
            "InvalidRange",
            &["10.10.300.0/24", "spec.address"],
        )?;
        lab.retract("eip2.yaml")?;

        lab.apply("eip2.yaml", &eip_on("placeless", "10.10.2.0/24", "\"\""))?;
        told(scene, "Eip", "placeless", "InvalidInterface", &["spec.interface"])?;
        lab.retract("eip2.yaml")?;

        lab.apply(
            "outside.yaml",
            &Service::new("outside")
                .at(["192.0.2.9".parse()?])
                .with(pods.iter().copied()),
        )?;
        told(
            scene,
            "Service",
            "outside",
            "AddressOutsideEips",
            &["192.0.2.9", "eip.openelb.kubesphere.io/v1alpha1"],
        )?;
        lab.retract("outside.yaml")?;

        let small = eip("small", "10.10.1.250").replace("10.10.1.250", "10.10.2.250");
        let one = Service::new("one")
            .from_eip("small", Family::V4)
            .with(pods.iter().copied());
        lab.apply("small.yaml", &(small + &one))?;
        resolved(scene)?;
        lab.apply(
            "two.yaml",
            &Service::new("two")
                .from_eip("small", Family::V4)
                .with(pods.iter().copied()),
        )?;
        let exhausted = told(scene, "Service", "two", "Exhausted", &["small", "Add an Eip"])?;
        ensure!(!exhausted.field.is_empty(), "{exhausted:?}");
        lab.retract("two.yaml")?;
        lab.retract("small.yaml")?;

        lab.apply("empty.yaml", &of("empty", 20).with([]))?;
        let empty = told(
            scene,
            "Service",
            "empty",
            "NoEndpoints",
            &["10.10.1.20", "Check that", "selector", "EndpointSlices"],
        )?;
        ensure!(!empty.field.is_empty(), "{empty:?}");
        lab.retract("empty.yaml")?;
        resolved(scene)
    })
}

/// [B12 B13] Two Services may share an address, but not a port of it.
#[test]
fn a_port_claimed_twice_stays_with_the_first() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let first = &scene.lab.nodes[0].pods[0];
        scene.lab.apply(
            "web2.yaml",
            &Service::new("zweb").at([vip(Family::V4, 2)]).with([first]),
        )?;
        let conflict = wait::until("a condition", || {
            let status = scene.status(&scene.lab.nodes[0])?;
            let about = |condition: &&Condition| condition.object.name == "zweb";
            let found = status.conditions.iter().find(about).cloned();
            found.ok_or_else(|| anyhow::anyhow!("{:?}", status.conditions))
        })?;
        ensure!(
            ["PortConflict", "FrontendTaken"].contains(&&*conflict.reason),
            "{conflict:?}"
        );
        ensure!(conflict.message.contains("default/web"), "{conflict:?}");
        still_served(scene)?;
        scene.lab.retract("web2.yaml")?;
        resolved(scene)
    })
}

#[test]
fn an_interface_that_does_not_exist_is_named_and_taken_when_it_appears() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        for node in &scene.lab.nodes {
            scene.agents.push(Agent::launch(
                &scene.lab,
                node,
                &["--interface", "eth0", "--interface", "eth7"],
            )?);
        }
        told(scene, "Interface", "eth7", "InterfaceMissing", &["eth7", "--interface"])?;
        for node in &scene.lab.nodes {
            node.namespace
                .output("ip link add eth7 type veth peer name eth7-peer")?;
            node.namespace.output("ip link set eth7 up")?;
        }
        resolved(scene)
    })
}

#[test]
fn a_foreign_xdp_program_is_left_alone_and_named() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        scene.lab.apply("web.yaml", &web().with(scene.lab.pods()))?;
        let node = &scene.lab.nodes[0];
        let foreign =
            scene
                .lab
                .pin_directory(node)
                .with_file_name(format!("{}-foreign-{}", scene.lab.name(), node.name));
        let load = format!("bpftool prog loadall {} {}", object().display(), foreign.display());
        node.namespace.output(&load)?;
        let attach = format!(
            "bpftool net attach xdpdrv pinned {}/weir_ingress dev eth0",
            foreign.display()
        );
        node.namespace.output(&attach)?;
        let before = node.namespace.output("ip link show dev eth0")?;

        scene
            .agents
            .push(Agent::launch(&scene.lab, node, &["--interface", "eth0"])?);
        let condition = wait::until("a condition", || {
            scene
                .status(node)?
                .condition("Interface", "eth0", "ForeignXdpProgram")
                .cloned()
        })?;
        ensure!(
            condition.message.contains("eth0") && condition.message.contains("weir_ingress"),
            "{condition:?}"
        );
        ensure!(
            node.namespace.output("ip link show dev eth0")? == before,
            "the foreign program was touched"
        );

        node.namespace.output("bpftool net detach xdpdrv dev eth0")?;
        std::fs::remove_dir_all(foreign)?;
        wait::until("the interface to be taken", || {
            let status = scene.status(node)?;
            ensure!(
                status.interfaces.iter().all(|interface| interface.xdp_mode.is_some()),
                "{:?}",
                status.conditions
            );
            Ok(())
        })
    })
}

#[test]
fn without_privileges_the_agent_says_what_is_missing() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let node = &scene.lab.nodes[0];
        let run = tests::lab::agent::binary();
        let output = Command::new("setpriv")
            .args(["--bounding-set=-all", "--inh-caps=-all", "--"])
            .arg(run)
            .args(["run", "--interface", "lo", "--node", "node-1", "--manifests"])
            .arg(scene.lab.manifest_directory(node))
            .arg("--pin-dir")
            .arg(scene.lab.pin_directory(node))
            .arg("--state-dir")
            .arg(scene.lab.state_directory(node))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "it started: {said}");
        for part in [
            "missing capability",
            "CAP_BPF",
            "CAP_NET_ADMIN",
            "run as root or grant it",
        ] {
            ensure!(said.contains(part), "{part} is not in its message: {said}");
        }
        Ok(())
    })
}

/// Where `cargo xtask build-ebpf` leaves the object.
fn object() -> PathBuf {
    std::env::var_os("WEIR_EBPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf/weir.o"),
        PathBuf::from,
    )
}
