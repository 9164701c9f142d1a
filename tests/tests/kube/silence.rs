//! Connections to the API server over which nothing comes any more, without a word: no reset, no error, no link that is down.
//!
//! A watch that is silent for longer than a minute is dead to agents anyway; these tests wait less.

use crate::{
    cluster::Cluster,
    controlled::{LABEL, pool, service, shown, shown_and_recorded},
};
use anyhow::{Result, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tests::{
    kube::WEIR_NAMESPACE,
    lab::{FAMILIES, Family, Namespace, client, traffic::Requests, wait},
};

/// Last part of the addresses of the Service `web`.
const WEB: u8 = 2;

/// [G08] Noticed and said, traffic goes on as it was, and what has changed meanwhile is followed.
#[test]
fn g08_agents_notice_an_api_server_that_has_fallen_silent() -> Result<()> {
    Cluster::play(|cluster| {
        let web = cluster.serve("web", WEB)?;
        cluster.start_agents()?;
        let all: Vec<String> = cluster.pods().into_iter().map(str::to_owned).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        cluster.answered_by(Family::V4, WEB, &all)?;
        let requests: Vec<Requests> = FAMILIES
            .map(|family| Requests::start(&cluster.lab.client, Cluster::http(family, WEB)))
            .into();
        let before = cluster.writes_at_rest()?;

        cluster.control_plane.cut_off(&cluster.lab)?;
        let kubectl = cluster.control_plane.kubectl();
        kubectl.apply(&web.endpoints(cluster.lab.pods().next()))?;
        cluster.is_missed()?;
        // Both pods still: nobody has heard of the change.
        cluster.answered_by(Family::V6, WEB, &all)?;
        ensure!(
            cluster.writes() == before,
            "{before:?} writes before, {:?} meanwhile",
            cluster.writes()
        );
        let said = [0, 1].map(|at| cluster.said(at, "cannot be reached"));
        ensure!(said == [1, 1], "{said:?} times");

        cluster.control_plane.rejoin(&cluster.lab)?;
        cluster.is_back()?;
        for family in FAMILIES {
            cluster.answered_by(family, WEB, &all[..1])?;
        }
        for requests in requests {
            let tally = requests.finish()?;
            ensure!(tally.failures.is_empty() && tally.total() > 0, "{tally:?}");
        }
        Ok(())
    })
}

/// How many Services are made at once.
const BURST: usize = 60;

/// [B24 G06] A leader that is cut off in the middle of its writes leads no more when another begins, and nothing it has sent
/// arrives later.
#[test]
fn b24_a_leader_that_is_cut_off_writes_no_more_when_another_leads() -> Result<()> {
    Cluster::play(|cluster| {
        let kubectl = cluster.control_plane.kubectl().clone();
        let rights = cluster.control_plane.give_controller_rights()?;
        let start = |namespace: &Namespace, identity: &str, port: u16| {
            let metrics = format!("[::]:{port}");
            let arguments = ["--no-webhook", "--metrics", &metrics];
            cluster
                .control_plane
                .start_controller_in(namespace, &rights, identity, &arguments)
        };
        let far = &cluster.lab.nodes[0].namespace;
        let leads = |namespace: &Namespace, port: u16| -> Result<bool> {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let metrics = String::from_utf8(namespace.run(|| client::get(address, "/metrics"))?)?;
            Ok(metrics.contains("weir_controller_leading 1\n"))
        };
        kubectl.apply(&pool("10.20.1.0/24"))?;
        let _first = start(far, "first", 9481)?;
        wait::until("the first to lead", || {
            ensure!(leads(far, 9481)?);
            Ok(())
        })?;
        let near = cluster.control_plane.namespace();
        let _second = start(near, "second", 9482)?;
        let services: String = (0..BURST)
            .map(|number| service(&format!("s{number}"), &[(LABEL, "pool")]))
            .collect();
        kubectl.apply(&services)?;
        wait::until("the first to have begun", || {
            ensure!(!shown(&kubectl)?.is_empty());
            Ok(())
        })?;

        cluster.control_plane.cut_off(&cluster.lab)?;
        let begun = shown(&kubectl)?;
        wait::until("the second to lead", || {
            let lease = kubectl.get(&format!("lease -n {WEIR_NAMESPACE} weir-controller"))?;
            ensure!(lease["spec"]["holderIdentity"] == "second", "{lease}");
            Ok(())
        })?;
        ensure!(!leads(far, 9481)?, "two lead");
        let given = wait::until("every Service to have an address", || {
            let now = shown_and_recorded(&kubectl)?;
            ensure!(now.len() == BURST, "{now:?}");
            Ok(now)
        })?;
        let moved = begun.iter().find(|(name, address)| given.get(*name) != Some(address));
        ensure!(moved.is_none(), "{moved:?} is elsewhere in {given:?}");

        // It hears of all that, and leaves it as it is.
        cluster.control_plane.rejoin(&cluster.lab)?;
        let last = service("last", &[(LABEL, "pool")]);
        kubectl.apply(&last)?;
        wait::until("the first to have read the last Service", || {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9481);
            let metrics = String::from_utf8(far.run(|| client::get(address, "/metrics"))?)?;
            let known = format!("weir_controller_services {}\n", BURST + 1);
            ensure!(metrics.contains(&known), "{metrics}");
            Ok(())
        })?;
        ensure!(!leads(far, 9481)? && leads(near, 9482)?, "the first leads again");
        let after = wait::until("the last Service to show its address", || {
            let now = shown_and_recorded(&kubectl)?;
            ensure!(now.len() == BURST + 1, "{now:?}");
            Ok(now)
        })?;
        ensure!(
            given.iter().all(|(name, address)| after.get(name) == Some(address)),
            "{given:?} has become {after:?}"
        );
        Ok(())
    })
}
