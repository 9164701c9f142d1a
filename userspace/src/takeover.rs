//! `weir migrate check` and `weir cleanup`: what a cluster is like before Weir takes over, and what it is to be like when Weir goes.
//!
//! Reads the API once and acts as [`weir_core::takeover`] says, with the rights of whoever runs it.

mod cleanup;
mod read;

pub use cleanup::{Leaving, cleanup};

use crate::{source::kube, status::Format};
use anyhow::Context;
use comfy_table::{Table, presets::NOTHING};
use std::{
    io::{self, Write},
    time::Duration,
};
use tokio::time::timeout;
use weir_core::{
    controller::World,
    takeover::{Finding, Level, judge},
};

/// How long everything that is checked may take to be read.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints what would be otherwise if Weir took over, what matters most first.
///
/// # Errors
///
/// When there is a problem among it (everything is printed then), when the API cannot be read, or the output fails.
pub async fn check(output: Format) -> anyhow::Result<()> {
    let (client, server) = kube::insisting_client().await?;
    let unanswered = || format!("cannot read the Kubernetes API at {server}");
    let reading = async {
        let surroundings = read::surroundings(&client).await.with_context(unanswered)?;
        anyhow::Ok((surroundings, read::objects(&client, &server).await?))
    };
    let (surroundings, (cluster, records)) = answered(PATIENCE, reading).await?;
    let world = World::new(cluster.clone(), records.services, records.eips, true);
    let findings = judge(&cluster, world, &surroundings);
    let mut out = io::stdout().lock();
    match output {
        Format::Table => print(&findings, &mut out)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?,
    }
    let problems = findings
        .iter()
        .filter(|finding| finding.level == Level::Problem)
        .count();
    anyhow::ensure!(
        problems == 0,
        "{problems} of these are to be seen to before Weir takes over"
    );
    Ok(())
}

fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "Nothing would change.");
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    for Finding {
        level,
        object,
        field,
        says,
        remedy,
    } in findings
    {
        let level = match level {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        table.add_row([level, &object.to_string(), field, says]);
        table.add_row(["", "", "", &format!("-> {remedy}")]);
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// What the API server answers, or that it has not within this time.
async fn answered<T>(limit: Duration, request: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    timeout(limit, request)
        .await
        .with_context(|| format!("the API server has not answered within {} s", limit.as_secs()))?
}

/// Runs `work` on a runtime of its own.
///
/// # Errors
///
/// Its own, or that there is no runtime.
pub fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}
