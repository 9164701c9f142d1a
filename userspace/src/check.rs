//! `weir check`: says of a host, before anything is loaded or attached, what would not work on it and what to do.
//!
//! [`facts`] reads the machine and changes nothing; [`findings`] is the pure judgement about what was read.

mod ethtool;
mod facts;
mod findings;
mod proxy;
mod tc;

use crate::{
    apply::bpf::{attach::ModePolicy, pins},
    source::default_route,
    status::Format,
};
use clap::Args;
use comfy_table::{Table, presets::NOTHING};
use findings::{Finding, Level};
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// What to check, and how to print it.
#[derive(Debug, Args)]
pub struct Check {
    /// Interface that is to take packets, or `auto` for that of the default route; may be given several times.
    #[arg(long = "interface", value_name = "IF", required = true)]
    interfaces: Vec<String>,
    /// How XDP is to be run, as the agent will be told.
    #[arg(long, value_enum, default_value_t)]
    xdp_mode: ModePolicy,
    /// Folder that pinned maps and links are to be in.
    #[arg(long, value_name = "DIR", default_value = pins::DEFAULT)]
    pin_dir: PathBuf,
    /// Folder that the agent's own files are to be in.
    #[arg(long, value_name = "DIR", default_value = crate::cli::STATE_DIR)]
    state_dir: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Check {
    /// Checks, and prints a line for each thing that was looked at.
    ///
    /// # Errors
    ///
    /// When something would not work (all findings are printed then), when the kernel cannot be asked, or the output fails.
    pub fn run(self) -> anyhow::Result<()> {
        let interfaces = default_route::resolve(self.interfaces)?;
        let facts = facts::read(&interfaces, &self.pin_dir, &self.state_dir)?;
        let findings = findings::judge(&facts, self.xdp_mode);
        let mut out = io::stdout().lock();
        match self.output {
            Format::Table => print(&findings, &mut out)?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?,
        }
        let problems = findings
            .iter()
            .filter(|finding| finding.level == Level::Problem)
            .count();
        anyhow::ensure!(
            problems == 0,
            "{problems} of these would keep weir from serving on this host"
        );
        Ok(())
    }
}

fn print(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING);
    for Finding {
        level,
        subject,
        says,
        remedy,
    } in findings
    {
        table.add_row([level.name(), subject, says]);
        if let Some(remedy) = remedy {
            table.add_row(["", "", &format!("-> {remedy}")]);
        }
    }
    writeln!(out, "{}", table.trim_fmt())
}
