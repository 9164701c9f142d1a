//! An agent that finds the API server as a pod does, by its environment and the files of its ServiceAccount.

use crate::cluster::{Cluster, RIGHTS};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    kube::WEIR_NAMESPACE,
    lab::{Agent, FAMILIES, Family, status::Status, traffic::Requests, wait},
};

/// Last part of the addresses of the Service `web`.
const WEB: u8 = 2;
const ACCOUNT: &str = "weir-agent";

/// [G08] The token is another one, and the former is good for nothing any more.
#[test]
fn g08_an_agent_goes_on_with_the_token_that_takes_the_place_of_its_own() -> Result<()> {
    Cluster::play(|cluster| {
        let web = cluster.serve("web", WEB)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.run(&format!("apply -f {RIGHTS}"))?;
        let token =
            |secret: &str, plane: &tests::kube::ControlPlane| plane.token_bound_to(WEIR_NAMESPACE, ACCOUNT, secret);
        let first = token("first", &cluster.control_plane)?;
        let server = cluster.control_plane.server().trim_start_matches("https://").parse()?;
        let mut folders = Vec::new();
        for node in &cluster.lab.nodes {
            let mounted = cluster.control_plane.mounted(WEIR_NAMESPACE, &node.name, &first)?;
            cluster
                .agents
                .push(Agent::launch_in_pod(&cluster.lab, node, server, mounted.folder())?);
            folders.push(mounted);
        }
        cluster.wait_for_agents()?;
        let all: Vec<String> = cluster.pods().into_iter().map(str::to_owned).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all)?;
        }
        let requests = Requests::start(&cluster.lab.client, Cluster::http(Family::V4, WEB));
        let before = cluster.writes_at_rest()?;

        let second = cluster
            .control_plane
            .token_bound_to(WEIR_NAMESPACE, ACCOUNT, "second")?;
        for mounted in &mut folders {
            mounted.turn_to(&second)?;
        }
        kubectl.run(&format!("delete secret -n {WEIR_NAMESPACE} first"))?;
        // Every watch has to be asked for again.
        cluster.control_plane.stop_api_server()?;
        cluster.is_missed()?;
        cluster.control_plane.start_api_server()?;
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": first}});
        let review: Value = serde_json::from_str(&kubectl.run_with("create -o json", &review.to_string())?)?;
        ensure!(
            review["status"]["authenticated"] != true && review["status"]["error"].is_string(),
            "the first token is good for something still: {review}"
        );
        // The file is read again within 50 s, and what was refused is asked for again within 10 s more: all of one wait.
        cluster.is_back().or_else(|_| cluster.is_back())?;
        ensure!(
            cluster.writes() == before,
            "{before:?} writes before, {:?} after",
            cluster.writes()
        );
        let used = cluster.control_plane.asked()?;
        let last = used
            .iter()
            .rfind(|request| request.account == ACCOUNT && request.verb == "watch")
            .context("no watch")?;
        ensure!(last.code == 200, "{last:?}");

        kubectl.apply(&web.endpoints(cluster.lab.pods().next()))?;
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all[..1])?;
        }
        wait::until("nothing to be wrong", || {
            for node in &cluster.lab.nodes {
                let conditions = Status::of(&cluster.lab, node)?.conditions;
                ensure!(conditions.is_empty(), "{conditions:?}");
            }
            Ok(())
        })?;
        let tally = requests.finish()?;
        ensure!(tally.failures.is_empty() && tally.total() > 0, "{tally:?}");
        Ok(())
    })
}
