//! Which endpoints get how much of a Service's traffic.

use crate::scene::{Scene, web};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, fmt::Write, net::SocketAddr};
use tests::lab::{
    FAMILIES, Family, Node, Pod, Shape,
    address::{self, vip},
    client,
    frames::Wire,
    manifests::{Endpoint, Service},
    servers::WEB_PORT,
    traffic, wait,
};

const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 2,
    mtu: 1500,
    pod_offload: true,
};

fn spread(scene: &Scene, address: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
    traffic::spread(&scene.lab.client, address, count)
}

/// Requests by the node of the pod that answers.
fn by_node(answers: &BTreeMap<String, usize>, node: &Node) -> usize {
    let own = |pod: &&Pod| answers.get(&pod.name);
    node.pods.iter().filter_map(|pod| own(&pod)).sum()
}

/// Six to three to none, of two pods on each node.
#[test]
fn new_connections_follow_the_weights_of_nodes_and_weight_0_gets_none() -> Result<()> {
    const COUNT: usize = 600;
    Scene::play(SHAPE, |scene| {
        let weighted = web().annotated("lb.weir.dev/weights", "node-1=2,node-3=0");
        scene.lab.apply("web.yaml", &weighted.with(scene.lab.pods()))?;
        for family in FAMILIES {
            wait::until("node-3 to get nothing", || {
                let answers = spread(scene, Scene::http(family), 60)?;
                ensure!(by_node(&answers, &scene.lab.nodes[2]) == 0, "{family}: {answers:?}");
                Ok(())
            })?;
            let answers = spread(scene, Scene::http(family), COUNT)?;
            let [heavy, light, none] = [0, 1, 2].map(|index| by_node(&answers, &scene.lab.nodes[index]));
            // Two thirds of 600 is 400, with a standard deviation of 12.
            ensure!(none == 0 && heavy + light == COUNT, "{family}: {answers:?}");
            ensure!(
                (330..=470).contains(&heavy),
                "{family}: {heavy} of {COUNT} for two thirds of the weight"
            );
        }
        Ok(())
    })
}

/// Waits until this node alone answers for the VIP, and has the router ask again: how soon it would by itself is not the
/// question here.
fn moves_to(scene: &Scene, family: Family, node: &Node) -> Result<()> {
    let wire = Wire::of_stranger(&scene.lab)?;
    wait::until("the node with the endpoints to answer", || {
        let answers = wire.who_has(vip(family, 2), address::stranger(family))?;
        ensure!(answers == [node.mac()], "{family}: {answers:?}");
        Ok(())
    })?;
    let flag = if family == Family::V4 { "-4" } else { "-6" };
    let flush = format!("ip {flag} neigh flush dev lan");
    scene.lab.router.output(&flush).map(drop)
}

/// [C02 E05] The node that answers has an endpoint, and its pods alone get the traffic.
#[test]
fn with_policy_local_only_a_node_with_endpoints_answers_and_uses_its_own() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let local = web().with_spec("externalTrafficPolicy: Local");
        for index in [1, 2, 0] {
            let node = &scene.lab.nodes[index];
            scene.lab.apply("web.yaml", &local.with(&node.pods))?;
            for family in FAMILIES {
                moves_to(scene, family, node)?;
                wait::until("the router to notice", || {
                    scene.lab.client.run(|| client::ask(Scene::http(family)))
                })?;
                let answers = scene.lab.client.run(|| {
                    (0..60)
                        .map(|_| client::ask(Scene::http(family)))
                        .collect::<Result<Vec<_>>>()
                })?;
                let elsewhere = answers.iter().find(|answer| !answer.pod.starts_with(&node.name));
                ensure!(elsewhere.is_none(), "{family}: {elsewhere:?} instead of {}", node.name);
                ensure!(
                    answers.iter().all(|answer| answer.client == answer.local),
                    "{family}: not the client's address"
                );
            }
        }
        Ok(())
    })
}

/// [C05] Where all are terminating, those that still serve are used; with policy Local, those of the node.
#[test]
fn pods_that_terminate_serve_when_nobody_else_is_left() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let state = |pod: &Pod| match pod.node.as_str() {
            "node-1" => Endpoint::Terminating,
            _ => Endpoint::NotReady,
        };
        let states: Vec<_> = scene.lab.pods().map(|pod| (pod, state(pod))).collect();
        for (service, is_local) in [(web(), false), (web().with_spec("externalTrafficPolicy: Local"), true)] {
            scene
                .lab
                .apply("web.yaml", &(service.yaml() + &service.endpoints_in_states(&states)))?;
            for family in FAMILIES {
                if is_local {
                    moves_to(scene, family, &scene.lab.nodes[0])?;
                }
                wait::until("the terminating pods to serve", || {
                    let answers = spread(scene, Scene::http(family), 40)?;
                    ensure!(by_node(&answers, &scene.lab.nodes[0]) == 40, "{family}: {answers:?}");
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

/// [C06]
#[test]
fn pods_that_are_not_ready_serve_if_the_service_publishes_them() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let states: Vec<_> = scene.lab.pods().map(|pod| (pod, Endpoint::NotReady)).collect();
        let service = web().with_spec("publishNotReadyAddresses: true");
        scene
            .lab
            .apply("web.yaml", &(service.yaml() + &service.endpoints_in_states(&states)))?;
        for family in FAMILIES {
            let answers = wait::until("an answer", || spread(scene, Scene::http(family), 180))?;
            ensure!(answers.len() == 6, "{family}: {answers:?}");
        }
        Ok(())
    })
}

/// [C01 B12] Ports of one address that belong to different Services.
#[test]
fn services_share_an_address_without_sharing_ports() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let second = FAMILIES.map(|family| vip(family, 2));
        let admin = Service::new("admin").on_port(8443).at(second);
        let (first, others) = scene.lab.nodes.split_first().context("nodes")?;
        scene.lab.apply("web.yaml", &web().with(&first.pods))?;
        scene
            .lab
            .apply("admin.yaml", &admin.with(others.iter().flat_map(|node| &node.pods)))?;
        for family in FAMILIES {
            let at = |port| SocketAddr::new(vip(family, 2), port);
            wait::until("both Services to be served by their own pods", || {
                let (web, admin) = (spread(scene, at(80), 60)?, spread(scene, at(8443), 90)?);
                ensure!(web.len() == 2 && by_node(&web, first) == 60, "{family}: {web:?}");
                ensure!(admin.len() == 4 && by_node(&admin, first) == 0, "{family}: {admin:?}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Addresses that each pod has, for a Service with 1,200 endpoints.
const ADDRESSES: usize = 200;
/// Endpoints in a slice, Kubernetes' default.
const SLICE: usize = 100;

/// [C06] 1,200 endpoints in 12 slices: every pod has two hundred addresses, all of them behind one port.
#[test]
fn a_service_has_more_than_a_thousand_endpoints() -> Result<()> {
    Scene::without_agents(SHAPE)?.then(|scene| {
        let mut endpoints = Vec::new();
        for node in &scene.lab.nodes {
            let mut routes = String::new();
            for (index, pod) in (1..).zip(&node.pods) {
                let network = format!("fd10:244:{}:0:{}::", node.number, index);
                let mut addresses = String::new();
                for host in 1..=ADDRESSES {
                    writeln!(addresses, "address add {network}{host:x}/128 dev eth0 nodad")?;
                    endpoints.push((format!("{network}{host:x}"), &node.name));
                }
                pod.namespace.ip_batch(&addresses)?;
                writeln!(routes, "route add {network}/80 dev pod-{index}")?;
            }
            node.namespace.ip_batch(&routes)?;
        }
        let service = Service::new("web").at([vip(Family::V6, 2)]);
        let slices = endpoints.chunks(SLICE).enumerate().map(|(number, endpoints)| {
            let endpoints = endpoints.iter().map(|(address, node)| {
                format!("  - {{addresses: [\"{address}\"], nodeName: {node}}}\n")
            });
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-{number}\n  namespace: default\n  \
                 labels:\n    kubernetes.io/service-name: web\naddressType: IPv6\nports:\n  - {{name: http, port: {WEB_PORT}}}\n\
                 endpoints:\n{}---\n",
                endpoints.collect::<String>()
            )
        });
        scene.lab.apply("web.yaml", &(service.yaml() + &slices.collect::<String>()))?;
        scene.agents = tests::lab::Agent::start_everywhere(&scene.lab)?;
        let address = Scene::http(Family::V6);
        let backends = scene.status(scene.owner(Family::V6)?)?.tcp(address)?.backends.clone();
        ensure!(backends.len() == endpoints.len() && backends.iter().all(|backend| backend.state == "serving"));
        let answers = spread(scene, address, 300)?;
        ensure!(answers.len() == 6, "{answers:?}");
        let status = scene.status(scene.owner(Family::V6)?)?;
        let used = status.tcp(address)?.backends.iter().filter(|backend| backend.packets > 0).count();
        // 300 of 1,200, chosen at random, are about 265 different ones.
        ensure!(used > 200, "300 connections used {used} endpoints");
        Ok(())
    })
}
