//! Fields of Services and EndpointSlices that decide who gets traffic, from a real API to real clients. What each means in detail
//! is tested on hosts (kind netns); here it is that the API's objects are followed.

use crate::cluster::Cluster;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::{net::TcpStream, time::Duration};
use tests::lab::{
    FAMILIES, Family, address, address::vip, client, manifests::Endpoint, servers::WEB_PORT, traffic, wait,
};

/// Last part of the addresses of the Service `web`.
const WEB: u8 = 2;
/// How long nothing has to come before it is taken for refused.
const SILENCE: Duration = Duration::from_millis(400);

fn patch(cluster: &Cluster, spec: &Value) -> Result<()> {
    cluster
        .control_plane
        .kubectl()
        .patch("service web", &json!({ "spec": spec }))
}

/// [C03 C04 C09]
#[test]
fn c03_c04_c09_affinity_source_ranges_and_echo_are_as_the_service_says() -> Result<()> {
    Cluster::play(|cluster| {
        cluster.serve("web", WEB)?;
        cluster.start_agents()?;
        let all = cluster.pods();
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all)?;
            let said = cluster
                .lab
                .client
                .output(&format!("ping -q -c 3 -i 0.05 -W 15 {}", vip(family, WEB)))?;
            ensure!(said.contains("3 received"), "{said}");
        }

        patch(
            cluster,
            &json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}),
        )?;
        for family in FAMILIES {
            wait::until("one pod for the client", || {
                let pods = traffic::spread(&cluster.lab.client, Cluster::http(family, WEB), 30)?;
                ensure!(pods.len() == 1, "{family}: one client at {pods:?}");
                Ok(())
            })?;
        }
        patch(
            cluster,
            &json!({"sessionAffinity": "None", "sessionAffinityConfig": null}),
        )?;
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all)?;
        }

        let ranges = |of: fn(Family) -> std::net::IpAddr| {
            let ranges = FAMILIES.map(|family| format!("{}/{}", of(family), address::host_length(family)));
            json!({"loadBalancerSourceRanges": ranges})
        };
        for (spec, let_in) in [
            (ranges(address::second_client), false),
            (ranges(address::client), true),
            (ranges(address::second_client), false),
            (json!({"loadBalancerSourceRanges": null}), true),
        ] {
            patch(cluster, &spec)?;
            for family in FAMILIES {
                wait::until("the right clients to be let in", || {
                    let at = Cluster::http(family, WEB);
                    let connect = || Ok(TcpStream::connect_timeout(&at, SILENCE).is_ok());
                    ensure!(cluster.lab.client.run(connect)? == let_in, "{family} {spec}");
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

/// [C05 C06]
#[test]
fn c05_c06_endpoints_of_every_state_and_in_every_slice_are_as_the_slices_say() -> Result<()> {
    Cluster::play(|cluster| {
        let web = cluster.serve("web", WEB)?;
        cluster.start_agents()?;
        let kubectl = cluster.control_plane.kubectl();
        let pods: Vec<_> = cluster.lab.pods().collect();
        let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        let in_states = |states: [Endpoint; 2]| {
            let pods: Vec<_> = pods.iter().copied().zip(states).collect();
            kubectl.apply(&web.endpoints_in_states(&pods))
        };

        for family in FAMILIES {
            let at = Cluster::http(family, WEB);
            in_states([Endpoint::Ready, Endpoint::Ready])?;
            cluster.answered_by(family, WEB, &sorted)?;
            let mut kept = wait::until("a connection to the first pod", || {
                let mut connection = cluster.lab.client.run(|| client::connect(at))?;
                let pod = cluster.lab.client.run(|| client::ask_on(&mut connection))?.pod;
                ensure!(pod == names[0], "{pod}");
                Ok(connection)
            })?;
            // It ends: nothing new, what is there goes on.
            in_states([Endpoint::Terminating, Endpoint::Ready])?;
            cluster.answered_by(family, WEB, &names[1..])?;
            let pod = cluster.lab.client.run(|| client::ask_on(&mut kept))?.pod;
            ensure!(pod == names[0], "the connection went to {pod}");
            // It is all there is.
            in_states([Endpoint::Terminating, Endpoint::NotReady])?;
            cluster.answered_by(family, WEB, &names[..1])?;
            in_states([Endpoint::NotReady, Endpoint::NotReady])?;
            wait::until("nobody to answer", || {
                let connect = || Ok(TcpStream::connect_timeout(&at, SILENCE).is_err());
                ensure!(cluster.lab.client.run(connect)?);
                Ok(())
            })?;
            patch(cluster, &json!({"publishNotReadyAddresses": true}))?;
            cluster.answered_by(family, WEB, &sorted)?;
            patch(cluster, &json!({"publishNotReadyAddresses": false}))?;
        }

        // 1,042 endpoints in twelve slices; of those that are ready, one is in the first and one in the last.
        kubectl.apply(&web.endpoints(pods[..1].iter().copied()))?;
        let slice = |name: &str, endpoints: Vec<Value>| {
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "ports": [{"name": "http", "protocol": "TCP", "port": WEB_PORT}],
                "endpoints": endpoints,
            });
            kubectl.apply(&format!("---\n{slice}\n"))
        };
        let node = &cluster.lab.nodes[0].name;
        for number in 0..10u8 {
            let endpoints = (0..104u8).map(|last| {
                json!({
                    "addresses": [format!("10.77.{number}.{last}")], "nodeName": node,
                    "conditions": {"ready": false, "serving": false, "terminating": false},
                })
            });
            slice(&format!("web-many-{number}"), endpoints.collect())?;
        }
        cluster.answered_by(Family::V4, WEB, &names[..1])?;
        let last = pods[1];
        let ready = json!({
            "addresses": [last.address(Family::V4)], "nodeName": last.node,
            "conditions": {"ready": true, "serving": true, "terminating": false},
        });
        slice("web-zz-last", vec![ready])?;
        cluster.answered_by(Family::V4, WEB, &sorted)
    })
}
