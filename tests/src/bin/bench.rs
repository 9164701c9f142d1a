//! Measures nanoseconds per packet; `cargo xtask bench` builds what it needs and starts it.

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use std::{fs, path::Path, process::ExitCode};
use tests::bench::{
    cases,
    machine::Machine,
    measure::{Bench, Effort},
    report::{Report, Row},
};

/// Nanoseconds per packet of the loaded programs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to measure.
    #[arg(value_enum, default_value = "packet")]
    suite: Suite,
    /// Fewer and shorter rounds: within seconds, good to a few nanoseconds.
    #[arg(long)]
    quick: bool,
    /// Print nothing but JSON.
    #[arg(long)]
    json: bool,
    /// Only cases whose name contains this; then no file is written.
    #[arg(long, default_value = "")]
    case: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// The XDP and tc programs, one packet at a time.
    Packet,
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
    let Suite::Packet = args.suite;
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let effort = if args.quick { QUICK } else { FULL };
    let report = packet(&root.join("target/ebpf"), effort, &args.case)?;
    let json = serde_json::to_string_pretty(&report)?;
    println!("{}", if args.json { json.clone() } else { report.table() });
    if !args.quick && args.case.is_empty() {
        let folder = root.join("docs/numbers");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(folder.join("packet.json"), json + "\n")?;
        fs::write(folder.join("packet.md"), report.markdown())?;
    }
    Ok(())
}

fn packet(objects: &Path, effort: Effort, only: &str) -> Result<Report> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench loads eBPF programs and needs root"
    );
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
        machine: Machine::this(effort),
        rows: rows.into_iter().map(|(_, row)| row).collect(),
    })
}
