//! Agents that are told more than they can take in one by one, and that are hung up on again and again.

use crate::cluster::Cluster;
use anyhow::{Result, ensure};
use std::thread;
use tests::lab::{FAMILIES, Family, Pod, address::vip, manifests::Service, traffic::Requests};

/// Last part of the addresses of the Service `web`, and of the first of the others.
const WEB: u8 = 2;
const FIRST: u8 = WEB + 1;
/// Who changes the others, and how many each, and how often.
const WRITERS: u8 = 4;
const SHARE: u8 = 10;
const ROUNDS: usize = 10;
/// How often the API server is killed.
const KILLS: usize = 4;
/// Services, EndpointSlices, Nodes and Eips.
const KINDS: usize = 4;
/// What one agent may ask for each time: for each kind a list, or a watch that finds its version gone, or a refusal while the
/// API server begins, each a longer wait after the one before.
const REQUESTS: usize = KINDS * 8;

/// Writes of the last change: the new rows, what they take the place of, and what is kept for flows of a pod until it is seen
/// that there are none.
const LAST_CHANGE: usize = 3;

fn other(number: u8) -> Service {
    Service::new(&format!("other-{number}"))
}

/// How many lists and watches agents have asked for.
fn asked(cluster: &Cluster) -> Result<usize> {
    let asked = cluster.control_plane.asked()?;
    let reads = asked
        .iter()
        .filter(|asked| ["list", "watch"].contains(&asked.verb.as_str()));
    Ok(reads.filter(|asked| asked.account == "weir-agent").count())
}

/// [G08] All of the last words are true in the end, nothing is written for what has only been touched, nobody else's requests
/// fail, and nobody asks without end.
#[test]
fn g08_a_storm_of_changes_and_an_api_server_that_hangs_up_are_weathered() -> Result<()> {
    Cluster::play(|cluster| {
        cluster.serve("web", WEB)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let services: String = (0..WRITERS * SHARE)
            .map(|number| other(number).with(cluster.lab.pods()))
            .collect();
        kubectl.apply(&services)?;
        for number in 0..WRITERS * SHARE {
            let addresses = FAMILIES.map(|family| vip(family, FIRST + number));
            cluster.give(&format!("other-{number}"), &addresses)?;
        }
        cluster.start_agents()?;
        let all: Vec<String> = cluster.pods().into_iter().map(str::to_owned).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let last = FIRST + WRITERS * SHARE - 1;
        cluster.answered_by(Family::V4, last, &all)?;
        let requests = Requests::start(&cluster.lab.client, Cluster::http(Family::V4, WEB));

        let pods: Vec<&Pod> = cluster.lab.pods().collect();
        let endpoints = |writer: u8, pods: &[&Pod]| -> String {
            let share = writer * SHARE..(writer + 1) * SHARE;
            share
                .map(|number| other(number).endpoints(pods.iter().copied()))
                .collect()
        };
        thread::scope(|scope| {
            let write = |writer: u8| {
                let (endpoints, kubectl, pods) = (&endpoints, &kubectl, &pods);
                move || -> Result<()> {
                    for _ in 0..ROUNDS {
                        kubectl.apply(&endpoints(writer, pods))?;
                        kubectl.apply(&endpoints(writer, &pods[..1]))?;
                    }
                    Ok(())
                }
            };
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        for number in FIRST..=last {
            cluster.answered_by(Family::V4, number, &[pods[0].name.as_str()])?;
        }
        cluster.answered_by(Family::V6, last, &[pods[0].name.as_str()])?;

        let before = cluster.writes_at_rest()?;
        let asked_before = asked(cluster)?;
        for round in 0..KILLS {
            kubectl.run(&format!("annotate endpointslices --all --overwrite touched={round}"))?;
            cluster.control_plane.stop_api_server()?;
            cluster.is_missed()?;
            cluster.control_plane.start_api_server()?;
            cluster.is_back()?;
        }
        let requests_made = asked(cluster)? - asked_before;
        let most = KILLS * REQUESTS * cluster.agents.len();
        ensure!(
            (KILLS..=most).contains(&requests_made),
            "{requests_made} requests, {most} at most"
        );

        // What comes last is seen, so all that came before it has been taken in.
        kubectl.apply(&other(0).endpoints(pods.iter().copied()))?;
        cluster.answered_by(Family::V4, FIRST, &all)?;
        let now = cluster.writes();
        let few = |(before, now): (&usize, &usize)| (1..=LAST_CHANGE).contains(&(now - before));
        ensure!(
            before.iter().zip(&now).all(few),
            "{before:?} writes before, {now:?} after"
        );
        let tally = requests.finish()?;
        ensure!(tally.failures.is_empty() && tally.total() > 0, "{tally:?}");
        Ok(())
    })
}
