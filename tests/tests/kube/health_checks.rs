//! Who asks at a Service's `spec.healthCheckNodePort` whether a node has endpoints of it, where no kube-proxy runs.

use crate::cluster::{Cluster, RIGHTS};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener},
};
use tests::lab::{
    Agent, FAMILIES, Family, Node, Pod,
    address::vip,
    client,
    manifests::{Endpoint, Service},
    status::Status,
    wait,
};

/// The Service that is asked about, and where.
const NEAR: (&str, u16) = ("near", 32_100);
/// What the agents say of a port that another has.
const TAKEN: &str = "HealthCheckPortTaken";

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Of `X-Load-Balancing-Endpoint-Weight`.
    weight: String,
    body: Value,
}

/// Asks a node from outside; `None`: nobody listens there.
fn ask(cluster: &Cluster, node: &Node, family: Family, port: u16) -> Result<Option<Answer>> {
    let address = SocketAddr::new(node.address(family), port);
    let text = cluster.lab.client.run(|| {
        let mut connection = match client::connect(address) {
            Ok(connection) => connection,
            Err(error) => {
                let refused = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                return (refused == Some(ErrorKind::ConnectionRefused))
                    .then_some(None)
                    .ok_or(error);
            }
        };
        // Version 1.0, so that the answer ends with the connection.
        connection.write_all(b"GET / HTTP/1.0\r\nHost: lab\r\n\r\n")?;
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        Ok(Some(text))
    })?;
    let Some(text) = text else { return Ok(None) };
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let weight = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-load-balancing-endpoint-weight"));
    Ok(Some(Answer {
        status: status.with_context(|| head.to_owned())?,
        weight: weight.map(|(_, value)| value.to_owned()).unwrap_or_default(),
        body: serde_json::from_str(body).with_context(|| body.to_owned())?,
    }))
}

/// Waits until each node says, in both families, that it has so many endpoints of the Service; `None`: until nobody listens at
/// the port. Whoever answers, kube-proxy or an agent, says it in the same way.
pub fn are_told(cluster: &Cluster, (service, port): (&str, u16), expected: &[Option<usize>]) -> Result<()> {
    wait::until("the right answers", || {
        for (node, expected) in cluster.lab.nodes.iter().zip(expected) {
            for family in FAMILIES {
                let answer = ask(cluster, node, family, port)?;
                let said = format!("{} over {family}: {answer:?}, not {expected:?}", node.name);
                let (answer, expected) = match (answer, expected) {
                    (Some(answer), Some(expected)) => (answer, *expected),
                    (answer, expected) => {
                        ensure!(answer.is_none() && expected.is_none(), "{said}");
                        continue;
                    }
                };
                let body = json!({
                    "service": {"namespace": "default", "name": service},
                    "localEndpoints": expected,
                    "serviceProxyHealthy": true,
                });
                ensure!(answer.body == body && answer.weight == expected.to_string(), "{said}");
                ensure!(answer.status == if expected > 0 { 200 } else { 503 }, "{said}");
            }
        }
        Ok(())
    })
}

/// [C08]
#[test]
fn c08_without_kube_proxy_each_node_says_whether_it_has_endpoints() -> Result<()> {
    Cluster::play(|cluster| {
        let kubectl = cluster.control_plane.kubectl();
        kubectl.run(&format!("apply -f {RIGHTS}"))?;
        for node in &cluster.lab.nodes {
            let kubeconfig = cluster.kubeconfig(&node.name)?;
            let agent = Agent::launch_in_cluster_with(&cluster.lab, node, &kubeconfig, &["--health-check-node-ports"])?;
            cluster.agents.push(agent);
        }
        cluster.wait_for_agents()?;
        let lab = &cluster.lab;
        let kubectl = cluster.control_plane.kubectl();
        let near = Service::new(NEAR.0)
            .with_spec("externalTrafficPolicy: Local")
            .with_spec(format!("healthCheckNodePort: {}", NEAR.1));
        let [first, second] = &*lab.nodes else {
            anyhow::bail!("not two nodes");
        };

        let other = first
            .namespace
            .run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, NEAR.1))?))?;
        kubectl.apply(&near.with(&first.pods))?;
        cluster.give(NEAR.0, &FAMILIES.map(|family| vip(family, 4)))?;
        wait::until("the port to be missed", || {
            let status = Status::of(lab, first)?;
            let said = status.condition("Service", NEAR.0, TAKEN)?;
            ensure!(said.message.contains(&NEAR.1.to_string()), "{said:?}");
            ensure!(Status::of(lab, second)?.condition("Service", NEAR.0, TAKEN).is_err());
            let answer = ask(cluster, second, Family::V4, NEAR.1)?.context("nobody answers on the other node")?;
            ensure!(answer.status == 503, "{answer:?}");
            Ok(())
        })?;
        drop(other);
        are_told(cluster, NEAR, &[Some(1), Some(0)])?;
        wait::until("nothing to be missed", || {
            let said = Status::of(lab, first)?;
            ensure!(
                said.condition("Service", NEAR.0, TAKEN).is_err(),
                "{:?}",
                said.conditions
            );
            Ok(())
        })?;

        let in_state = |pods: &[Pod], state| {
            let all: Vec<_> = pods.iter().map(|pod| (pod, state)).collect();
            kubectl.apply(&near.endpoints_in_states(&all))
        };
        in_state(&first.pods, Endpoint::NotReady)?;
        are_told(cluster, NEAR, &[Some(0), Some(0)])?;
        in_state(&first.pods, Endpoint::Ready)?;
        are_told(cluster, NEAR, &[Some(1), Some(0)])?;
        in_state(&first.pods, Endpoint::Terminating)?;
        are_told(cluster, NEAR, &[Some(0), Some(0)])?;
        in_state(&second.pods, Endpoint::Ready)?;
        are_told(cluster, NEAR, &[Some(0), Some(1)])?;

        // One that asks again over the connection it has is not told what is no longer so.
        let address = SocketAddr::new(second.address(Family::V4), NEAR.1);
        let mut kept = lab.client.run(|| client::connect(address))?;
        lab.client.run(|| client::get_on(&mut kept, "/healthz").map(drop))?;
        kubectl.run(&format!("delete service {}", NEAR.0))?;
        are_told(cluster, NEAR, &[None, None])?;
        let late = lab.client.run(|| client::get_on(&mut kept, "/healthz"));
        ensure!(late.is_err(), "{late:?}");
        Ok(())
    })
}
