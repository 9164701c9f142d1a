//! Steps in which something changes under traffic.

use super::{
    report,
    stage::{Stage, expect},
};
use crate::lab::{
    Agent, Family, Pod,
    address::vip,
    agent,
    manifests::HTTP,
    process::Process,
    servers::{self, SLOW_RATE},
    traffic::{self, Download, Requests},
    wait::{self, PATIENCE},
};
use anyhow::{Context, Result, ensure};
use std::{net::SocketAddr, thread, time::Duration};

/// Long enough for what a step does meanwhile.
const DOWNLOAD_SECONDS: usize = 5;
const DOWNLOAD: usize = DOWNLOAD_SECONDS * SLOW_RATE;

pub(super) fn pods(stage: &mut Stage) -> Result<()> {
    let service = SocketAddr::new(vip(Family::V4, 3), HTTP);
    servers::make_file(&stage.lab, "image", DOWNLOAD)?;
    let traffic = Requests::start(&stage.lab.client, service);
    let downloads = (0..6).map(|_| Download::start(&stage.lab.client, service, "/slow/image"));
    let downloads = downloads.collect::<Result<Vec<_>>>()?;
    let all: Vec<&Pod> = stage.lab.pods().collect();
    let leaving = downloads
        .first()
        .map(|download| download.pod.clone())
        .unwrap_or_default();
    report::text(&format!(
        "six slow downloads run, one of them from {leaving}; requests go on all the time"
    ));

    let staying: Vec<&Pod> = all.iter().copied().filter(|pod| pod.name != leaving).collect();
    stage.publish(staying)?;
    report::command("every node", &format!("edit services.yaml: {leaving} is gone"), "");
    wait::until("no more answers from the pod that left", || {
        let answers = traffic::spread(&stage.lab.client, service, 60)?;
        ensure!(
            !answers.contains_key(&leaving) && answers.len() == all.len() - 1,
            "answers: {answers:?}"
        );
        report::text(&format!("60 requests: {answers:?}"));
        Ok(())
    })?;
    stage.publish(all.clone())?;
    report::command("every node", &format!("edit services.yaml: {leaving} is back"), "");
    wait::until("answers from the pod that came back", || {
        let answers = traffic::spread(&stage.lab.client, service, 60)?;
        ensure!(answers.len() == all.len(), "answers: {answers:?}");
        report::text(&format!("60 requests: {answers:?}"));
        Ok(())
    })?;

    let tally = traffic.finish()?;
    expect(tally.failures.is_empty(), || {
        format!("no request to fail, of {}: {:?}", tally.total(), tally.failures)
    })?;
    for download in downloads {
        let from = download.pod.clone();
        let bytes = download
            .finish()
            .with_context(|| format!("expected the download from {from} to go on"))?;
        expect(bytes == servers::content(DOWNLOAD), || {
            format!("the file from {from} unharmed")
        })?;
    }
    report::shown(&format!(
        "{} requests, none failed; all six downloads are whole, also the one from the pod that left.",
        tally.total()
    ));
    Ok(())
}

pub(super) fn agent(stage: &mut Stage) -> Result<()> {
    let service = SocketAddr::new(vip(Family::V4, 2), HTTP);
    let owner = stage.owner(service.ip())?.name.clone();
    let served = servers::make_file(&stage.lab, "image", DOWNLOAD)?;
    let target = stage.lab.directory().join("downloaded");
    let line = format!("curl -s -o {} http://argocd/slow/image", target.display());
    let mut command = stage.client_command();
    command.args(line.split(' '));
    let mut curl = Process::start(command, "curl", &stage.lab.directory().join("curl.log"))?;
    report::command("client", &format!("{line} &"), "");
    thread::sleep(Duration::from_secs(1));

    let agent = stage
        .agents
        .remove(&owner)
        .with_context(|| format!("expected an agent on {owner}"))?;
    let id = agent.id();
    agent.kill()?;
    report::command(&owner, &format!("kill -9 {id}   # weir"), "");
    let answers = traffic::spread(&stage.lab.client, service, 60)?;
    report::text(&format!("60 new requests while it is dead: {answers:?}"));
    let node = stage.lab.node(&owner)?;
    stage.agents.insert(owner.clone(), Agent::start(&stage.lab, node)?);
    report::command(&owner, "weir run ...   # again", "");
    expect(curl.ended()?.is_none(), || "the download to be still running".into())?;

    let status = curl.wait(PATIENCE)?;
    expect(status.success(), || format!("curl to succeed, not {status}"))?;
    let sums = agent::finished(std::process::Command::new("sha256sum").arg(&served).arg(&target))?;
    report::command("client", "sha256sum served downloaded", &sums);
    let mut sums = sums.lines().filter_map(|line| line.split(' ').next());
    expect(sums.next() == sums.next(), || "equal sums".into())?;
    report::shown(
        "The data path belongs to the kernel: it worked on without its agent, which then took it over again.",
    );
    Ok(())
}
