//! Measures; `cargo xtask bench` builds what it needs and starts it.

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::{fs, path::Path, process::ExitCode};
use tests::bench::{
    cases, kube,
    machine::Machine,
    measure::{Bench, Effort},
    report::{Report, Row},
    survival, takeover, throughput, update,
};

/// What the packet path costs, and what it holds.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to measure.
    #[arg(value_enum, default_value = "packet")]
    suite: Suite,
    /// Less of everything, and no file is written.
    #[arg(long)]
    quick: bool,
    /// Print nothing but JSON.
    #[arg(long)]
    json: bool,
    /// Only cases or events whose name contains this; then no file is written either.
    #[arg(long, default_value = "")]
    case: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// The XDP and tc programs, one packet at a time.
    Packet,
    /// Connections that break while nodes, agents and backends come and go.
    Survival,
    /// Packets per second through a node, beside the kernel's ways of serving.
    Lab,
    /// How long a changed manifest takes to reach the maps.
    Update,
    /// The same with a Kubernetes API, and what agent and controller cost there.
    Kube,
    /// What clients notice while Weir takes over from OpenELB and kube-proxy.
    Takeover,
}

const FULL: Effort = Effort {
    rounds: 15,
    packets: 1_000_000,
};
const QUICK: Effort = Effort {
    rounds: 5,
    packets: 200_000,
};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benches load eBPF programs and need root"
    );
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let results = match args.suite {
        Suite::Packet => {
            let effort = if args.quick { QUICK } else { FULL };
            let report = packet(&root.join("target/ebpf"), effort, &args.case)?;
            Results::new("packet", &report, report.table(), report.markdown())
        }
        Suite::Survival => {
            let effort = if args.quick { survival::QUICK } else { survival::FULL };
            let report = survival::run(effort, &args.case)?;
            Results::new("survival", &report, report.table(), report.markdown())
        }
        Suite::Lab => {
            let effort = if args.quick {
                throughput::QUICK
            } else {
                throughput::FULL
            };
            let report = throughput::run(effort, &args.case, &root.join("target/ebpf"))?;
            Results::new("lab", &report, report.table(), report.markdown())
        }
        Suite::Update => {
            let report = update::run(if args.quick { update::QUICK } else { update::FULL })?;
            Results::new("update", &report, report.table(), report.markdown())
        }
        Suite::Kube => {
            let report = kube::run(if args.quick { kube::QUICK } else { kube::FULL })?;
            Results::new("kube", &report, report.table(), report.markdown())
        }
        Suite::Takeover => {
            let report = takeover::run(&args.case)?;
            Results::new("takeover", &report, report.table(), report.markdown())
        }
    }?;
    println!("{}", if args.json { &results.json } else { &results.table });
    if !args.quick && args.case.is_empty() {
        results.write(&root.join("docs/numbers"))?;
    }
    Ok(())
}

/// A suite's results in every form.
struct Results {
    suite: &'static str,
    json: String,
    table: String,
    markdown: String,
}

impl Results {
    fn new(suite: &'static str, report: &impl Serialize, table: String, markdown: String) -> Result<Self> {
        Ok(Self {
            suite,
            json: serde_json::to_string_pretty(report)?,
            table,
            markdown,
        })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(self.suite);
        fs::write(file.with_extension("json"), self.json.clone() + "\n")?;
        fs::write(file.with_extension("md"), &self.markdown)?;
        Ok(())
    }
}

fn packet(objects: &Path, effort: Effort, only: &str) -> Result<Report> {
    let mut bench = Bench::load(objects)?;
    let mut rows = Vec::new();
    let mut cases: Vec<_> = cases::all()
        .into_iter()
        .enumerate()
        .filter(|(_, case)| case.name.contains(only))
        .collect();
    ensure!(!cases.is_empty(), "no case has a name that contains `{only}`");
    // New flows go last, because they push everything else out of the cache.
    cases.sort_by_key(|(_, case)| case.name == "new-flow");
    for (place, case) in cases {
        let samples = bench
            .run(&case, effort)
            .with_context(|| format!("case {} {}", case.name, case.family.name()))?;
        rows.push((place, Row::new(&case, &samples)));
    }
    rows.sort_by_key(|(place, _)| *place);
    Ok(Report {
        machine: Machine::this(),
        rounds: effort.rounds,
        packets: effort.packets,
        rows: rows.into_iter().map(|(_, row)| row).collect(),
    })
}
