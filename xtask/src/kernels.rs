//! `cargo xtask kernels`: the object and the test binaries on kernels other than this machine's, under qemu.
//!
//! Everything is built out here; a guest gets an initial RAM disk with the object, the test binaries and the tools they
//! call, and prints what libtest prints. Software emulation needs nothing of the machine, and nanoseconds measured in it
//! mean nothing. A kernel that cannot be had has failed.

mod archive;
mod artefacts;
mod fetch;
mod guest;
mod modules;
mod report;
mod root;
mod steps;

use crate::{
    build_ebpf,
    libtest::Ran,
    process::{cargo, check, require_root, say},
    setup::{self, Scope},
};
use anyhow::{Result, bail};
use artefacts::Artefacts;
use clap::Parser;
use report::Outcome;
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};
use steps::Step;

/// Series of the oldest kernel supported.
const OLDEST: &str = "6.1";

/// Series of kernels tested when none is named: the oldest supported, Debian stable's, the newest.
const SERIES: [&str; 3] = [OLDEST, "6.12", "7.3"];

/// Guests at a time: one uses one core.
const GUESTS: usize = 2;

/// Arguments of the verb.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Series of Debian's kernels, each in its newest version.
    #[arg(default_values_t = SERIES.map(str::to_owned))]
    series: Vec<String>,
    /// Only these steps; by default all, and agents over VLAN devices and bonds only on the oldest kernel.
    #[arg(long, value_enum)]
    only: Vec<Step>,
    /// Ask the mirrors again, even for a series that is here.
    #[arg(long)]
    refresh: bool,
    /// Seconds one guest may take: some 240 by itself, four times as many where seven others want its two CPUs.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
}

/// The verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("cargo xtask kernels")?;
    build_ebpf::build(&setup::run(Scope::Kernels)?)?;
    check(cargo().args(["build", "--quiet", "--package", "weir"]))?;
    let Ran { count, .. } = tests(args)?;
    println!("\n{} passed, {} failed", count.passed, count.failed);
    if count.failed > 0 || count.ignored > 0 || count.passed == 0 {
        bail!(
            "{} failed and {} did not run on other kernels",
            count.failed,
            count.ignored
        );
    }
    Ok(())
}

/// Runs every step on every kernel and prints the table; object and agent have to be built, the tools to be there.
pub(crate) fn tests(args: &Args) -> Result<Ran> {
    let steps_of = |series: &str| match args.only[..] {
        [] => Step::usual(series),
        ref only => only.to_vec(),
    };
    let all: BTreeSet<Step> = args.series.iter().flat_map(|series| steps_of(series)).collect();
    let all: Vec<Step> = all.into_iter().collect();
    let artefacts = Artefacts::build(&all)?;
    let outcomes = Mutex::new(Vec::new());
    let mut kernels = Vec::new();
    for series in &args.series {
        match fetch::kernel(series, args.refresh) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => {
                say(format!("kernel {series} cannot be had: {error:#}"));
                lock(&outcomes).push(Outcome::missing(series));
            }
        }
    }
    // Taken from the end, so the slowest, which is the oldest, is first.
    kernels.reverse();
    let waiting = Mutex::new(kernels);
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                loop {
                    let Some(kernel) = lock(&waiting).pop() else { break };
                    let steps = steps_of(&kernel.series);
                    let outcome = guest::run(&kernel, &artefacts, &steps, Duration::from_secs(args.limit));
                    let outcome = outcome.unwrap_or_else(|error| {
                        say(format!("kernel {}: {error:#}", kernel.version));
                        Outcome::broken(&kernel, &steps)
                    });
                    lock(&outcomes).push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| args.series.iter().position(|series| *series == outcome.series));
    print!("{}", report::table(&outcomes, &all));
    let mut sum = Ran::default();
    for outcome in outcomes {
        sum += outcome.ran();
    }
    Ok(sum)
}

/// A panic elsewhere has been printed, and what is behind the lock is whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
