//! Steps about where requests and replies go.

use super::{
    report,
    stage::{Stage, expect},
};
use crate::lab::{
    Family,
    address::{self, FAMILIES, vip},
    capture::Capture,
    client::{self, Answer},
    manifests::HTTP,
};
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;

pub(super) fn names(stage: &mut Stage) -> Result<()> {
    stage.client("cat /etc/hosts")?;
    for name in ["argocd", "ingress"] {
        for option in ["-4", "-6"] {
            let answer = stage.client(&format!("curl -s {option} http://{name}/"))?;
            expect(answer.starts_with("pod="), || format!("a pod's answer from {name}"))?;
        }
    }
    report::shown("Two names, four addresses, port 80 in front of port 8080 of the pods.");
    Ok(())
}

pub(super) fn spread(stage: &mut Stage) -> Result<()> {
    for option in ["-4", "-6"] {
        let line = format!(
            "curl -s {option} -H 'Connection: close' 'http://argocd/?[1-240]' | cut -d' ' -f1 | sort | uniq -c"
        );
        let counts = stage.client(&line)?;
        let pods = stage.lab.pods().count();
        expect(counts.lines().count() == pods, || {
            format!("answers from all {pods} pods")
        })?;
    }
    report::shown("240 connections each; every pod has its share, whichever node it is on.");
    Ok(())
}

pub(super) fn client_address(stage: &mut Stage) -> Result<()> {
    for (family, option) in FAMILIES.into_iter().zip(["-4", "-6"]) {
        let owner = stage.owner(vip(family, 3))?.name.clone();
        let line = format!("curl -s {option} -w 'my own port=%{{local_port}}' http://ingress/");
        let answers = (0..60).map(|_| stage.client_unseen(&line));
        // Only a pod elsewhere shows that the address survives the way between nodes.
        let elsewhere = |answer: &Result<String>| !answer.as_ref().is_ok_and(|answer| answer.contains(&owner));
        let answer = answers
            .into_iter()
            .find(elsewhere)
            .context("expected some of 60 answers from other nodes")??;
        report::command("client", &line, &answer);
        let client = address::client(family);
        expect(answer.contains(&format!("client={client} ")), || {
            format!("the pod to see {client}")
        })?;
        let mut ports = answer
            .split("port=")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next());
        expect(ports.next() == ports.next(), || {
            "the pod to see the client's own port".into()
        })?;
        report::shown(&format!(
            "{owner} took the request, a pod on another node answered it and saw the client itself."
        ));
    }
    Ok(())
}

pub(super) fn reply_path(stage: &mut Stage) -> Result<()> {
    let service = SocketAddr::new(vip(Family::V4, 3), HTTP);
    let owner = stage.owner(service.ip())?.name.clone();
    let client_host = address::client(Family::V4);
    let filter = format!("host {client_host} or udp port 6081");
    let captures = stage
        .lab
        .nodes
        .iter()
        .map(|node| Capture::at_node(&stage.lab, &node.name, &filter));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let answer = answer_from_afar(stage, service, &owner)?;

    // The connection of the last answer; those before it may have gone to pods of the owner itself.
    let client_end = format!("{client_host}.{}", answer.local.port());
    let reply = format!("{}.{HTTP} > {client_end}", service.ip());
    let pod = stage.lab.pods().find(|pod| pod.name == answer.pod);
    let backend_node = &pod
        .with_context(|| format!("expected a pod of the lab, not {}", answer.pod))?
        .node;
    let mut beside = stage.lab.nodes.iter().zip(&captures);
    if let Some((_, capture)) = beside.find(|(node, _)| node.name == *backend_node) {
        capture.wait_for(&reply)?;
    }
    let seen = captures.into_iter().map(Capture::finish).collect::<Result<Vec<_>>>()?;
    for (node, lines) in stage.lab.nodes.iter().zip(&seen) {
        let ours: Vec<&str> = lines
            .iter()
            .map(String::as_str)
            .filter(|line| line.contains(&client_end))
            .collect();
        let replies = ours
            .iter()
            .filter(|line| line.contains(&reply) && !line.contains("Geneve"))
            .count();
        if node.name == owner || node.name == *backend_node {
            report::command(
                &format!("cable of {}", node.name),
                &format!("tcpdump '{filter}'"),
                &short(&ours),
            );
        }
        let expected = node.name == *backend_node;
        expect((replies > 0) == expected, || {
            format!(
                "replies on the cable of {backend_node} and on no other; {} carried {replies}",
                node.name
            )
        })?;
    }
    report::shown(&format!(
        "{owner} passed the client's packets on inside Geneve; {backend_node} answered the client itself, as the VIP."
    ));
    Ok(())
}

/// An answer from a pod that is not on `node`.
fn answer_from_afar(stage: &Stage, service: SocketAddr, node: &str) -> Result<Answer> {
    stage.lab.client.run(|| {
        for _ in 0..60 {
            let answer = client::ask(service)?;
            if !answer.pod.starts_with(node) {
                return Ok(answer);
            }
        }
        bail!("expected some of 60 answers from pods that are not on {node}")
    })
}

/// tcpdump's lines without what is not needed to see where a packet goes.
fn short(lines: &[&str]) -> String {
    let cut = |line: &&str| {
        let end = line.char_indices().nth(150).map_or(line.len(), |(end, _)| end);
        format!("{}\n", &line[..end])
    };
    lines.iter().take(4).map(cut).collect()
}
