//! What statuses say: agents how Eips stand on their nodes, the controller why something is not served.

use crate::cluster::Cluster;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};
use tests::lab::{Agent, Family, address::vip, client, manifests, process::Process, wait};
use weir_core::controller::silence;

/// What has written nothing for this long is taken to be at rest.
const QUIET: Duration = Duration::from_secs(8);
/// It has to write nothing for this long then: whoever writes again and again does so more often.
const REST: Duration = Duration::from_secs(25);

/// The controller gives out the lowest address.
const LOWEST: u8 = 0;
const CONDITION: &str = "lb.weir.dev/Served";

fn controlled(cluster: &mut Cluster) -> Result<Process> {
    let kubeconfig = cluster.control_plane.give_controller_rights()?;
    let controller = cluster.control_plane.start_controller(&kubeconfig, "one", &[])?;
    cluster.start_agents()?;
    Ok(controller)
}

/// The condition of this type in an object's status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind)
}

/// Waits until the condition of a Service that is served has this reason and text, and a Warning event about it the text.
fn is_warned_of(cluster: &Cluster, service: &str, reason: &str, wanted: &str) -> Result<()> {
    let has = |text: &Value| text.as_str().is_some_and(|text| text.contains(wanted));
    wait::until("the words of a condition", || {
        let condition = is_served(cluster, service, "True", reason)?;
        ensure!(has(&condition["message"]), "{condition}");
        Ok(())
    })?;
    wait::until("an event", || {
        let events = cluster.control_plane.kubectl().get("events")?;
        let mut all = events["items"].as_array().into_iter().flatten();
        let said = all.any(|event| {
            event["type"] == "Warning" && event["involvedObject"]["name"] == service && has(&event["message"])
        });
        ensure!(said, "{events}");
        Ok(())
    })
}

/// Waits until the Service's condition is as given.
pub fn is_served(cluster: &Cluster, service: &str, status: &str, reason: &str) -> Result<Value> {
    wait::until("the condition of a Service", || {
        let found = cluster.control_plane.kubectl().get(&format!("service {service}"))?;
        let condition = condition(&found, CONDITION).cloned().unwrap_or_default();
        ensure!(
            condition["status"] == status && condition["reason"] == reason,
            "{}",
            found["status"]
        );
        Ok(condition)
    })
}

/// [A16]
#[test]
fn a16_nodes_say_how_eips_stand_there_and_what_is_well_is_left_alone() -> Result<()> {
    Cluster::play(|cluster| {
        let _controller = controlled(cluster)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.apply(
            &manifests::Service::new("web")
                .from_eip("lan-ipv4", Family::V4)
                .with(cluster.lab.pods()),
        )?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
        let address = vip(Family::V4, LOWEST).to_string();
        let names: BTreeSet<&str> = cluster.lab.nodes.iter().map(|node| node.name.as_str()).collect();
        let eip = wait::until("what the nodes say", || {
            let eip = kubectl.get("eip lan-ipv4")?;
            let nodes = eip["status"]["nodes"].as_object().cloned().unwrap_or_default();
            ensure!(
                nodes.keys().map(String::as_str).eq(names.iter().copied()),
                "{}",
                eip["status"]
            );
            ensure!(nodes.values().all(|node| node["ready"] == true), "{nodes:?}");
            let announcers = nodes.values().filter(|node| node["announces"][0] == *address);
            ensure!(announcers.count() == 1, "{nodes:?}");
            ensure!(eip["status"]["ready"] == true, "{}", eip["status"]);
            let ready = condition(&eip, "Ready").cloned().unwrap_or_default();
            ensure!(ready["message"] == "2 nodes serve it.", "{ready}");
            Ok(eip)
        })?;
        // What others write stays beside it, and nothing is written at rest.
        ensure!(eip["status"]["used"][&address] == "default/web", "{}", eip["status"]);
        let rests = |time: Duration| -> Result<()> {
            let kinds = ["eip lan-ipv4", "service web"];
            let before = kinds.map(|kind| kubectl.get(kind));
            thread::sleep(time);
            for (kind, before) in kinds.into_iter().zip(before) {
                let (before, now) = (before?, kubectl.get(kind)?);
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                ensure!(version(&now) == version(&before), "{kind} was {before}, is {now}");
            }
            Ok(())
        };
        wait::until("rest", || rests(QUIET))?;
        rests(REST)?;
        is_never_called_unserved(cluster)?;

        // A node that leaves is no longer spoken of.
        let left = cluster.agents.pop();
        drop(left);
        let name = cluster.lab.nodes[1].name.clone();
        kubectl.run(&format!("delete node {name}"))?;
        wait::until("the end of its entry", || {
            let eip = kubectl.get("eip lan-ipv4")?;
            ensure!(eip["status"]["nodes"].get(&name).is_none(), "{}", eip["status"]);
            let ready = condition(&eip, "Ready").cloned().unwrap_or_default();
            ensure!(ready["message"] == "One node serves it.", "{ready}");
            Ok(())
        })
    })
}

/// One that comes is not called unserved while nodes have not said yet that they serve it; on a machine where that takes them longer
/// than they are waited for, the next one is looked at.
fn is_never_called_unserved(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.control_plane.kubectl();
    for number in 1..=20 {
        let (name, begun) = (format!("late-{number}"), Instant::now());
        let late = manifests::Service::new(&name).from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&late.with(cluster.lab.pods()))?;
        wait::until("its announcement", || {
            let nodes = kubectl.get("eip lan-ipv4")?["status"]["nodes"].to_string();
            ensure!(nodes.contains(&vip(Family::V4, LOWEST + number).to_string()), "{nodes}");
            Ok(())
        })?;
        let late = kubectl.get(&format!("service {name}"))?;
        let in_time = begun.elapsed() < silence(2);
        cluster.answered_by(Family::V4, LOWEST + number, &cluster.pods())?;
        if in_time {
            ensure!(condition(&late, CONDITION).is_none(), "{}", late["status"]);
            return Ok(());
        }
    }
    bail!("nodes have taken longer than {:?} each time", silence(2))
}

#[test]
fn why_a_service_is_not_served_is_said_in_its_status_and_by_an_event() -> Result<()> {
    Cluster::play(|cluster| {
        let _controller = controlled(cluster)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let web = manifests::Service::new("web").from_eip("nowhere", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        // What the controller knows by itself.
        let condition = is_served(cluster, "web", "False", "UnknownEip")?;
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(message.contains("there is no Eip nowhere"), "{message}");
        kubectl.run("annotate --overwrite service web eip.openelb.kubesphere.io/v1alpha2=lan-ipv4")?;
        let served = is_served(cluster, "web", "True", "Served")?;
        ensure!(
            served["lastTransitionTime"] != condition["lastTransitionTime"],
            "{served}"
        );
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
        // [B20] Of what is served already it is said, and that is all: nodes serve what is shown.
        let writes = cluster.writes_at_rest()?;
        kubectl.run("annotate --overwrite service web eip.openelb.kubesphere.io/v1alpha2=nowhere")?;
        is_warned_of(cluster, "web", "AddressKept", "there is no Eip nowhere")?;
        kubectl.run("annotate service web eip.openelb.kubesphere.io/v1alpha1=ten")?;
        is_warned_of(cluster, "web", "AddressKept", "`ten` is not an IP address")?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
        let now = cluster.writes();
        ensure!(now == writes, "maps were written to {writes:?} times, now {now:?}");
        kubectl.run("annotate service web eip.openelb.kubesphere.io/v1alpha1-")?;
        kubectl.run("annotate --overwrite service web eip.openelb.kubesphere.io/v1alpha2=lan-ipv4")?;
        is_served(cluster, "web", "True", "Served")?;
        // What only the nodes know.
        kubectl.apply(&web.endpoints(std::iter::empty()))?;
        is_served(cluster, "web", "False", "NoEndpoints")?;
        wait::until("an event", || {
            let events = kubectl.get("events")?;
            let mut all = events["items"].as_array().into_iter().flatten();
            let said = all.any(|event| event["reason"] == "NoEndpoints" && event["involvedObject"]["name"] == "web");
            ensure!(said, "{events}");
            Ok(())
        })?;
        kubectl.apply(&web.endpoints(cluster.lab.pods()))?;
        is_served(cluster, "web", "True", "Served")?;
        // What is wrong with an EndpointSlice is said of its Service.
        kubectl.run("annotate endpointslice web-ipv4 lb.weir.dev/weight=heavy")?;
        let wanted = "EndpointSlice web-ipv4 metadata.annotations[lb.weir.dev/weight]: `heavy` is not a weight";
        is_warned_of(cluster, "web", "InvalidValue", wanted)?;
        kubectl.run("annotate endpointslice web-ipv4 lb.weir.dev/weight-")?;
        is_served(cluster, "web", "True", "Served")?;
        // No longer ours, nothing of ours is left.
        kubectl.run("annotate service web lb.kubesphere.io/v1alpha1-")?;
        wait::until("the end of the condition", || {
            let found = kubectl.get("service web")?;
            ensure!(found["status"] == json!({"loadBalancer": {}}), "{}", found["status"]);
            Ok(())
        })
    })
}

/// [A16] A node stays Ready and its agent is gone, as when a DaemonSet no longer wants it, or it cannot start.
#[test]
fn a16_an_agent_that_is_gone_has_no_say_and_at_rest_only_leases_are_written() -> Result<()> {
    Cluster::play(|cluster| {
        let kubeconfig = cluster.control_plane.give_controller_rights()?;
        let _controller = cluster.control_plane.start_controller(&kubeconfig, "one", &[])?;
        cluster.control_plane.give_agent_rights()?;
        let start = |cluster: &Cluster, at: usize| -> Result<Agent> {
            let node = &cluster.lab.nodes[at];
            let kubeconfig = cluster.kubeconfig(&node.name)?;
            let mut agent = Agent::launch_in_cluster_with(&cluster.lab, node, &kubeconfig, &["--lease-seconds", "6"])?;
            agent.wait_until_ready(&cluster.lab)?;
            Ok(agent)
        };
        let mut agents = [Some(start(cluster, 0)?), Some(start(cluster, 1)?)];
        let kubectl = cluster.control_plane.kubectl().clone();
        let web = manifests::Service::new("web").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
        let address = vip(Family::V4, LOWEST).to_string();
        let eip_says = |message: &str, nodes: usize| {
            wait::until("what the Eip says", || {
                let eip = kubectl.get("eip lan-ipv4")?;
                let entries = eip["status"]["nodes"].as_object().cloned().unwrap_or_default();
                let ready = condition(&eip, "Ready").cloned().unwrap_or_default();
                ensure!(
                    entries.len() == nodes && ready["message"].as_str().is_some_and(|text| text.contains(message)),
                    "{}",
                    eip["status"]
                );
                ensure!(eip["status"]["ready"] == (nodes > 0), "{}", eip["status"]);
                Ok(entries)
            })
        };
        let announcer = wait::until("an announcer", || {
            let entries = eip_says("2 nodes serve it.", 2)?;
            let at = cluster
                .lab
                .nodes
                .iter()
                .position(|node| entries[&node.name]["announces"][0] == *address);
            at.with_context(|| format!("{entries:?}"))
        })?;

        let others = |cluster: &Cluster| -> Result<(Vec<String>, usize)> {
            let asked = cluster.control_plane.asked()?;
            let writes = asked
                .iter()
                .filter(|asked| !["get", "list", "watch"].contains(&&*asked.verb));
            let (leases, others): (Vec<_>, Vec<_>) = writes.partition(|asked| asked.resource == "leases");
            let agents = leases.iter().filter(|asked| asked.account == "weir-agent");
            Ok((
                others.iter().map(|asked| format!("{asked:?}")).collect(),
                agents.count(),
            ))
        };
        let rests = |time: Duration| -> Result<()> {
            let (before, renewed) = others(cluster)?;
            thread::sleep(time);
            let (after, renewals) = others(cluster)?;
            ensure!(after == before, "{:?}", &after[before.len()..]);
            ensure!(renewals > renewed, "no agent has renewed its Lease");
            Ok(())
        };
        wait::until("rest", || rests(QUIET))?;
        rests(REST)?;
        let lease = kubectl.get(&format!(
            "lease weir-agent-{} -n weir-system",
            cluster.lab.nodes[announcer].name
        ))?;
        ensure!(lease["metadata"]["ownerReferences"][0]["kind"] == "Node", "{lease}");

        if let Some(agent) = agents[announcer].take() {
            agent.kill()?;
        }
        let left = eip_says("One node serves it.", 1)?;
        ensure!(!left.contains_key(&cluster.lab.nodes[announcer].name), "{left:?}");
        let unserved = is_served(cluster, "web", "False", "NotAnnounced")?;
        ensure!(unserved["message"].to_string().contains(&address), "{unserved}");
        // What it left in the kernel forwards all the same.
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;

        if let Some(agent) = agents[1 - announcer].take() {
            agent.kill()?;
        }
        eip_says("no node has said that it serves this Eip", 0)?;
        agents[announcer] = Some(start(cluster, announcer)?);
        eip_says("One node serves it.", 1)?;
        is_served(cluster, "web", "True", "Served").map(drop)
    })
}

/// [B13] Whoever has its own nodes in mind, and shares its address with one that has not, is warned as long as that is so; both are
/// served where they have pods.
#[test]
fn b13_local_at_a_shared_address_is_warned_of() -> Result<()> {
    const SHARED: u8 = 9;
    Cluster::play(|cluster| {
        let _controller = controlled(cluster)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let address = vip(Family::V4, SHARED);
        let near = manifests::Service::new("near")
            .at([address])
            .with_spec("externalTrafficPolicy: Local");
        let wide = manifests::Service::new("wide").at([address]).on_port(8080);
        kubectl.apply(&near.with(&cluster.lab.nodes[0].pods))?;
        kubectl.apply(&wide.with(cluster.lab.pods()))?;
        is_warned_of(cluster, "near", "SharedLocal", "is shared with Service default/wide")?;
        let pods: BTreeSet<&str> = cluster.pods().into_iter().collect();
        wait::until("all pods of the other one", || {
            let to = SocketAddr::new(address, 8080);
            let ask = || (0..40).map(|_| Ok(client::ask(to)?.pod)).collect();
            let seen: Result<BTreeSet<String>> = cluster.lab.client.run(ask);
            let seen = seen?;
            ensure!(seen.iter().map(String::as_str).eq(pods.iter().copied()), "{seen:?}");
            Ok(())
        })?;
        kubectl.patch("service near", &json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
        is_served(cluster, "near", "True", "Served")?;
        let own: Vec<&str> = cluster.lab.nodes[0].pods.iter().map(|pod| pod.name.as_str()).collect();
        cluster.answered_by(Family::V4, SHARED, &own)
    })
}
