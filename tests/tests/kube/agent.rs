//! `weir agent`: serves what the API says, and goes on serving when it says nothing.

use crate::cluster::{Cluster, RIGHTS};
use anyhow::{Context, Result, ensure};
use tests::lab::{
    Agent, FAMILIES, Family,
    address::vip,
    agent,
    servers::{self, SLOW_RATE},
    status::Status,
    traffic::{Download, Requests},
    wait,
};

/// Last part of the addresses of the Service `web`.
const WEB: u8 = 2;

/// [G08] By EndpointSlices alone: Endpoints are never asked for.
#[test]
fn g08_what_the_api_says_is_served_and_followed() -> Result<()> {
    Cluster::play(|cluster| {
        let web = cluster.serve("web", WEB)?;
        cluster.start_agents()?;
        let all: Vec<String> = cluster.pods().into_iter().map(str::to_owned).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all)?;
        }
        let kubectl = cluster.control_plane.kubectl();
        // Endpoints come and go.
        let first = cluster.lab.pods().next();
        kubectl.apply(&web.endpoints(first))?;
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all[..1])?;
        }
        kubectl.apply(&web.endpoints(cluster.lab.pods()))?;
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all)?;
        }
        // A Service made while agents run; no agent gives it an address by itself.
        let shop = tests::lab::manifests::Service::new("shop");
        kubectl.apply(&shop.with(cluster.lab.pods()))?;
        // What is written later is seen later.
        cluster.serve("last", WEB + 2)?;
        cluster.answered_by(Family::V4, WEB + 2, &all)?;
        for node in &cluster.lab.nodes {
            ensure!(Status::of(&cluster.lab, node)?.addresses_of("default/shop").is_empty());
        }
        cluster.give("shop", &[vip(Family::V4, WEB + 1)])?;
        cluster.answered_by(Family::V4, WEB + 1, &all)?;

        // Another address, and none.
        cluster.give("web", &[vip(Family::V4, WEB + 3)])?;
        cluster.answered_by(Family::V4, WEB + 3, &all)?;
        cluster.give("web", &[])?;
        kubectl.run("delete service shop")?;
        wait::until("withdrawal", || {
            for node in &cluster.lab.nodes {
                let status = Status::of(&cluster.lab, node)?;
                for service in ["default/web", "default/shop"] {
                    let left = status.addresses_of(service);
                    ensure!(left.is_empty(), "{service} has {left:?} on {}", node.name);
                }
            }
            Ok(())
        })?;
        cluster.answered_by(Family::V6, WEB + 2, &all)?;

        let asked = cluster.control_plane.asked()?;
        let of = |resource: &str| asked.iter().filter(|request| request.resource == resource).count();
        ensure!(of("endpointslices") > 0 && of("endpoints") == 0, "{asked:?}");
        Ok(())
    })
}

/// The API server dies under traffic and comes back; meanwhile an agent is replaced.
#[test]
fn an_api_server_that_goes_and_comes_changes_no_map() -> Result<()> {
    const LENGTH: usize = 16 * SLOW_RATE;
    Cluster::play(|cluster| {
        servers::make_file(&cluster.lab, "image", LENGTH)?;
        let web = cluster.serve("web", WEB)?;
        cluster.start_agents()?;
        let kubeconfig = cluster.kubeconfig(&cluster.lab.nodes[0].name)?;
        let all: Vec<String> = cluster.pods().into_iter().map(str::to_owned).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        cluster.answered_by(Family::V4, WEB, &all)?;
        let requests: Vec<Requests> = FAMILIES
            .map(|family| Requests::start(&cluster.lab.client, Cluster::http(family, WEB)))
            .into();
        let download = Download::start(&cluster.lab.client, Cluster::http(Family::V4, WEB), "/files/image")?;
        let before = cluster.writes_at_rest()?;

        cluster.control_plane.stop_api_server()?;
        cluster.is_missed()?;
        cluster.control_plane.start_api_server()?;
        cluster.is_back()?;
        ensure!(
            cluster.writes() == before,
            "{before:?} writes before, {:?} after",
            cluster.writes()
        );
        let said = [0, 1].map(|at| cluster.said(at, "cannot be reached"));
        ensure!(said == [1, 1], "{said:?} times");

        // An agent that starts while nobody tells it anything leaves everything as it is.
        cluster.control_plane.stop_api_server()?;
        cluster.is_missed()?;
        cluster.agents.remove(0).kill()?;
        let restarted = Agent::launch_in_cluster(&cluster.lab, &cluster.lab.nodes[0], &kubeconfig)?;
        cluster.agents.insert(0, restarted);
        wait::until("the new agent to notice", || {
            let said = cluster.said(0, "cannot be reached");
            ensure!(said == 3, "{said} times");
            Ok(())
        })?;
        cluster.answered_by(Family::V6, WEB, &all)?;
        // It is logged first, then reported.
        let status = wait::until("the new agent's report", || {
            let status = Status::of(&cluster.lab, &cluster.lab.nodes[0])?;
            let shown = (status.agent_alive, status.pid == cluster.agents[0].id());
            ensure!(shown == (true, true), "{status:?} is of an earlier agent");
            Ok(status)
        })?;
        status.condition("APIServer", cluster.control_plane.server(), "Unreachable")?;
        let waiting = status.waiting.as_ref().context("it waits for nothing")?;
        ensure!(
            waiting.awaited.contains("endpointslices") && waiting.as_of.is_some(),
            "{waiting:?}"
        );
        status.tcp(Cluster::http(Family::V4, WEB))?;
        let table = agent::status_table(&cluster.lab, &cluster.lab.nodes[0])?;
        ensure!(table.contains("as the agent before it left it"), "{table}");
        cluster.control_plane.start_api_server()?;
        cluster.agents[0].wait_until_ready(&cluster.lab)?;
        cluster.is_back()?;
        ensure!(
            cluster.writes() == before,
            "{before:?} writes before, {:?} after",
            cluster.writes()
        );
        for requests in requests {
            let tally = requests.finish()?;
            ensure!(tally.failures.is_empty() && tally.total() > 0, "{tally:?}");
        }
        ensure!(download.finish()? == servers::content(LENGTH), "the file was harmed");

        // And what is said now is heard.
        cluster
            .control_plane
            .kubectl()
            .apply(&web.endpoints(cluster.lab.pods().next()))?;
        cluster.answered_by(Family::V4, WEB, &all[..1])
    })
}

#[test]
fn a_missing_right_is_named_with_its_remedy() -> Result<()> {
    Cluster::play(|cluster| {
        cluster.serve("web", WEB)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.run(&format!("apply -f {RIGHTS}"))?;
        let without = r#"[{"op": "test", "path": "/rules/1/resources/0", "value": "endpointslices"}, {"op": "remove", "path": "/rules/1"}]"#;
        let mut command = kubectl.command();
        command.args(["patch", "clusterrole", "weir-agent", "--type=json", "-p", without]);
        agent::finished(&mut command)?;
        cluster.launch_agents()?;
        wait::until("the agents to say what is missing", || {
            let said = [0, 1].map(|at| cluster.said(at, "Forbidden"));
            ensure!(said == [1, 1], "said {said:?} times");
            Ok(())
        })?;
        let log = cluster.agents[0].log();
        for part in [
            "endpointslices.discovery.k8s.io is forbidden",
            "system:serviceaccount:weir-system:weir-agent",
            "deploy/rbac-agent.yaml",
        ] {
            ensure!(log.contains(part), "no `{part}` in\n{log}");
        }
        ensure!(
            cluster.writes() == [0, 0],
            "they have written without having read everything"
        );

        kubectl.run(&format!("apply -f {RIGHTS}"))?;
        cluster.wait_for_agents()?;
        cluster.answered_by(Family::V4, WEB, &cluster.pods())
    })
}
