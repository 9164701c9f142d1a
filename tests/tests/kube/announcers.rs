//! Events about who announces what: one for each change of it for the whole cluster, with real agents on two nodes.

use crate::{cluster::Cluster, status::condition};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{thread, time::Duration};
use tests::{
    kube::Kubectl,
    lab::{
        Agent, Family,
        address::{self, vip},
        cable,
        frames::Wire,
        manifests,
        process::Process,
        wait,
    },
};

/// The controller gives out the lowest address.
const LOWEST: u8 = 0;
/// How long to look whether something is said that is not to be; longer than anything waits that is settled.
const QUIET: Duration = Duration::from_secs(20);

/// What has been said of an object for this reason, in order.
fn said(kubectl: &Kubectl, object: &str, reason: &str) -> Result<Vec<String>> {
    let events = kubectl.get("events --sort-by=.eventTime")?;
    let mut said = Vec::new();
    for event in events["items"].as_array().into_iter().flatten() {
        if event["involvedObject"]["name"] != object || event["reason"] != reason {
            continue;
        }
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        ensure!(
            text("reportingComponent") == "speakerManager" && event.get("series").is_none(),
            "{event}"
        );
        said.push(format!("{}: {}", text("type"), text("message")));
    }
    Ok(said)
}

/// Waits until this is all that has been said.
fn is_said(kubectl: &Kubectl, object: &str, reason: &str, messages: &[String]) -> Result<()> {
    wait::until("what is said", || {
        let said = said(kubectl, object, reason)?;
        ensure!(said == messages, "{object} {reason}: {said:?}, not {messages:?}");
        Ok(())
    })
}

/// Whose entry in the Eip's status has the address, if it is one node's alone.
fn announcer(kubectl: &Kubectl, address: &str) -> Result<String> {
    let eip = kubectl.get("eip lan-ipv4")?;
    let nodes = eip["status"]["nodes"].as_object().cloned().unwrap_or_default();
    let announces = |standing: &Value| {
        let mut all = standing["announces"].as_array().into_iter().flatten();
        all.any(|announced| announced == address)
    };
    let mut by = nodes.iter().filter(|(_, standing)| announces(standing));
    let (name, _) = by
        .next()
        .with_context(|| format!("nobody announces {address}: {nodes:?}"))?;
    ensure!(by.next().is_none(), "{nodes:?}");
    Ok(name.clone())
}

/// [B17 B25]
#[test]
fn b25_one_event_per_change_of_who_announces() -> Result<()> {
    Cluster::play(|cluster| {
        let kubeconfig = cluster.control_plane.give_controller_rights()?;
        let start = |cluster: &Cluster, identity: &str| {
            let arguments = ["--no-webhook"];
            cluster
                .control_plane
                .start_controller(&kubeconfig, identity, &arguments)
        };
        let mut first = start(cluster, "first")?;
        cluster.start_agents()?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let set = |address: &str, node: &str| format!("Normal: {address} is announced by {node}");
        let gone = |address: &str| format!("Normal: {address} is announced no longer");
        let service = |name: &str| manifests::Service::new(name).from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&service("web").with(cluster.lab.pods()))?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
        let address = vip(Family::V4, LOWEST).to_string();
        let one = wait::until("an announcer", || announcer(&kubectl, &address))?;
        is_said(&kubectl, "web", "SetBalancer", &[set(&address, &one)])?;

        // Another has to, while both agents run: one begins, one ends, and it is one change.
        let exclude = "node.kubernetes.io/exclude-from-external-load-balancers";
        kubectl.run(&format!("label node {one} {exclude}="))?;
        let other = wait::until("another announcer", || {
            let other = announcer(&kubectl, &address)?;
            ensure!(other != one);
            Ok(other)
        })?;
        let both = [set(&address, &one), set(&address, &other)];
        is_said(&kubectl, "web", "SetBalancer", &both)?;
        // Two nodes serve each Eip, and it is said once for each.
        let set_up = |count: usize| -> Result<()> {
            for eip in ["lan-ipv4", "lan-ipv6"] {
                wait::until("an Eip that is set up", || {
                    let said = said(&kubectl, eip, "ConfigSpeaker")?;
                    ensure!(said.len() == count, "{eip}: {said:?}");
                    Ok(())
                })?;
            }
            Ok(())
        };
        set_up(1)?;

        // Who leads next does not say it again, but what is new.
        ensure!(first.stop(wait::patience())?.success(), "{}", first.log());
        let second = start(cluster, "second")?;
        kubectl.apply(&service("new").with(cluster.lab.pods()))?;
        let new = vip(Family::V4, LOWEST + 1).to_string();
        is_said(&kubectl, "new", "SetBalancer", &[set(&new, &other)])?;
        thread::sleep(QUIET);
        is_said(&kubectl, "new", "SetBalancer", &[set(&new, &other)])?;
        is_said(&kubectl, "web", "SetBalancer", &both)?;
        set_up(1)?;
        for reason in ["DelBalancer", "ConfigSpeakerFailed"] {
            for object in ["web", "new", "lan-ipv4", "lan-ipv6"] {
                is_said(&kubectl, object, reason, &[])?;
            }
        }

        // Without its annotation, and without itself.
        kubectl.run("annotate service web lb.kubesphere.io/v1alpha1-")?;
        kubectl.run("delete service new --timeout=60s")?;
        is_said(&kubectl, "web", "DelBalancer", &[gone(&address)])?;
        is_said(&kubectl, "new", "DelBalancer", &[gone(&new)])?;
        is_said(&kubectl, "web", "SetBalancer", &both)?;
        drop(second);
        Ok(())
    })
}

/// A controller, agents and the Service `web`, which has the lowest address: who leads, the address, and who announces it.
fn announced(cluster: &mut Cluster) -> Result<(Process, Kubectl, String, String)> {
    let kubeconfig = cluster.control_plane.give_controller_rights()?;
    let arguments = ["--no-webhook"];
    let controller = cluster.control_plane.start_controller(&kubeconfig, "one", &arguments)?;
    cluster.start_agents()?;
    let kubectl = cluster.control_plane.kubectl().clone();
    let web = manifests::Service::new("web").from_eip("lan-ipv4", Family::V4);
    kubectl.apply(&web.with(cluster.lab.pods()))?;
    cluster.answered_by(Family::V4, LOWEST, &cluster.pods())?;
    let address = vip(Family::V4, LOWEST).to_string();
    let by = wait::until("an announcer", || announcer(&kubectl, &address))?;
    Ok((controller, kubectl, address, by))
}

/// [A16 B25] Nobody is left who announces it: warned of once, on the Service and on the Eip, and said when it is announced again.
#[test]
fn b25_an_address_that_nobody_announces_is_warned_of_once() -> Result<()> {
    Cluster::play(|cluster| {
        let (_controller, kubectl, address, by) = announced(cluster)?;
        let set = format!("Normal: {address} is announced by {by}");
        is_said(&kubectl, "web", "SetBalancer", std::slice::from_ref(&set))?;
        // An interface that no node has.
        kubectl.run(r#"patch eip lan-ipv4 --type=merge -p {"spec":{"interface":"eth7"}}"#)?;
        let failed = wait::until("warnings", || {
            let said = said(&kubectl, "web", "SetBalancer")?;
            ensure!(
                said.len() == 2 && said[1].starts_with(&format!("Warning: no node announces {address}; ")),
                "{said:?}"
            );
            let failed = crate::announcers::said(&kubectl, "lan-ipv4", "ConfigSpeakerFailed")?;
            let last = failed.last().cloned().unwrap_or_default();
            ensure!(last.starts_with("Warning: ") && last.contains("eth7"), "{failed:?}");
            // That one node less serves it is said before, if the others say so later.
            ensure!(!last.contains("of the nodes serve it"), "{failed:?}");
            Ok(failed)
        })?;
        thread::sleep(QUIET);
        is_said(&kubectl, "lan-ipv4", "ConfigSpeakerFailed", &failed)?;
        ensure!(said(&kubectl, "web", "SetBalancer")?.len() == 2);
        kubectl.run(r#"patch eip lan-ipv4 --type=merge -p {"spec":{"interface":"eth0"}}"#)?;
        wait::until("its announcement", || {
            let said = said(&kubectl, "web", "SetBalancer")?;
            ensure!(said.len() == 3 && said[2] == set, "{said:?}");
            Ok(())
        })?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())
    })
}

/// [A16 B25] An interface that nodes have and agents do not take is as good as none. Each node says so, elected or not, so the Eip is
/// not ready; it is when agents take it.
#[test]
fn a16_an_eip_is_not_ready_where_no_packets_are_taken() -> Result<()> {
    Cluster::play(|cluster| {
        cable::add_second_lan(&cluster.lab)?;
        let (_controller, kubectl, address, by) = announced(cluster)?;
        let by_second = format!("route replace {address} dev {}\n", cable::SECOND_LAN);
        let set = format!("Normal: {address} is announced by {by}");
        is_said(&kubectl, "web", "SetBalancer", std::slice::from_ref(&set))?;
        kubectl.run(r#"patch eip lan-ipv4 --type=merge -p {"spec":{"interface":"eth1"}}"#)?;
        wait::until("both nodes to say so", || {
            let eip = kubectl.get("eip lan-ipv4")?;
            let nodes = eip["status"]["nodes"].as_object().cloned().unwrap_or_default();
            ensure!(nodes.len() == 2, "{nodes:?}");
            for (node, standing) in &nodes {
                let message = standing["message"].as_str().unwrap_or_default();
                ensure!(
                    message.starts_with("Eip lan-ipv4, spec.interface: InterfaceNotTaken: ")
                        && message.contains("--interface eth1"),
                    "{node}: {standing}"
                );
                ensure!(
                    standing["ready"] == false && standing.get("announces").is_none(),
                    "{node}: {standing}"
                );
            }
            ensure!(eip["status"]["ready"] == false, "{}", eip["status"]);
            let ready = condition(&eip, "Ready").cloned().unwrap_or_default();
            ensure!(ready["status"] == "False", "{ready}");
            Ok(())
        })?;
        wait::until("a warning", || {
            let said = said(&kubectl, "web", "SetBalancer")?;
            let last = said.last().cloned().unwrap_or_default();
            ensure!(
                said.len() == 2 && last.starts_with(&format!("Warning: no node announces {address}; ")),
                "{said:?}"
            );
            Ok(())
        })?;

        cluster.agents.clear();
        for node in &cluster.lab.nodes {
            let kubeconfig = cluster.kubeconfig(&node.name)?;
            let agent = Agent::launch_in_cluster_with(&cluster.lab, node, &kubeconfig, &["--interface", "eth1"])?;
            cluster.agents.push(agent);
        }
        kubectl.run("wait eip --all --for=condition=Ready --timeout=60s")?;
        wait::until("its announcement", || {
            let again = announcer(&kubectl, &address)?;
            ensure!(again == by, "{again}, not {by}");
            Ok(())
        })?;
        cluster.lab.router.ip_batch(&by_second)?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())
    })
}

/// [A25 B25] The label is seen by agents and the controller, and said by all of them.
#[test]
fn a25_what_is_left_to_the_cni_is_said_by_nodes_eip_and_service() -> Result<()> {
    Cluster::play(|cluster| {
        let (_controller, kubectl, address, by) = announced(cluster)?;
        is_said(
            &kubectl,
            "web",
            "SetBalancer",
            &[format!("Normal: {address} is announced by {by}")],
        )?;
        let says = |eip_reason: &str, service_reason: &str, text: &str| {
            wait::until("what is said", || {
                let (eip, service) = (kubectl.get("eip lan-ipv4")?, kubectl.get("service web")?);
                for (object, reason) in [(&eip, eip_reason), (&service, service_reason)] {
                    let condition = &object["status"]["conditions"][0];
                    ensure!(
                        condition["status"] == "True" && condition["reason"] == reason,
                        "{condition}"
                    );
                    ensure!(
                        condition["message"].as_str().is_some_and(|said| said.contains(text)),
                        "{condition}"
                    );
                }
                Ok(eip)
            })
        };
        let wire = Wire::of_stranger(&cluster.lab)?;
        let answers = || wire.who_has(vip(Family::V4, LOWEST), address::stranger(Family::V4));

        kubectl.run("label eip lan-ipv4 openelb.kubesphere.io/cni=calico")?;
        let reason = "AnnouncedByOthers";
        says(reason, reason, "openelb.kubesphere.io/cni")?;
        let eip = wait::until("both nodes to say so", || {
            let eip = kubectl.get("eip lan-ipv4")?;
            let standings: Vec<_> = eip["status"]["nodes"].as_object().into_iter().flatten().collect();
            ensure!(standings.len() == 2, "{standings:?}");
            for (node, standing) in standings {
                let message = standing["message"].as_str().unwrap_or_default();
                ensure!(
                    standing["ready"] == true && message.contains(reason) && standing.get("announces").is_none(),
                    "{node}: {standing}"
                );
            }
            Ok(eip)
        })?;
        ensure!(eip["status"]["used"][&address] == "default/web", "{}", eip["status"]);
        ensure!(answers()?.is_empty(), "{:?}", answers()?);
        is_said(
            &kubectl,
            "web",
            "DelBalancer",
            &[format!("Normal: {address} is announced no longer")],
        )?;

        kubectl.run("label eip lan-ipv4 openelb.kubesphere.io/cni-")?;
        says("Ready", "Served", "serve")?;
        wait::until("its owner's answer", || {
            let answers = answers()?;
            ensure!(answers.len() == 1, "{answers:?}");
            Ok(())
        })?;
        cluster.answered_by(Family::V4, LOWEST, &cluster.pods())
    })
}
