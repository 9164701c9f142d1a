//! `cargo xtask test`: every kind of test there is, counted by kind. A kind that ran no test has failed, and so has a test
//! that was ignored: one that cannot run must not look like one that passed.
//!
//! At the end it is said again which tests failed, with the end of what each printed: some readers keep only the beginning and the
//! end of a log. The last two lines are for readers, too: `N passed, N failed` alone on a line, and the same by kind.

use crate::{
    build_ebpf, helm,
    image::{self, Profile},
    kernels, kube,
    libtest::{self, Count, Ran},
    process::{cargo, check, require_root, say},
    setup::{self, Scope},
    workspace,
};
use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use std::{fs, process::Command};

/// Arguments of the verb.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Kinds to run; all when none is named.
    #[arg(value_enum)]
    kinds: Vec<Kind>,
}

/// What a test needs and shows decides its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Functions and properties of every package.
    Unit,
    /// The golden packets through the packet path on the host.
    PacketsHost,
    /// The same packets through the loaded program.
    PacketsKernel,
    /// Golden packets cut at every length and with each byte flipped.
    Mutation,
    /// The kernel's verifier takes the object, within an instruction budget.
    Verifier,
    /// Golden plans.
    Plans,
    /// Agents, clients and servers in network namespaces.
    Netns,
    /// A real Kubernetes control plane: see [`kube`].
    Kube,
    /// Verifier, golden packets and agents on other kernels: see [`kernels`].
    Kernels,
}

impl Kind {
    /// The file under `tests/tests` that holds the kind, and no other; [`Kind::Unit`] has many, [`Kind::Kernels`] runs those of
    /// others, too.
    fn target(self) -> Option<&'static str> {
        match self {
            Self::Unit => None,
            Self::PacketsHost | Self::PacketsKernel => Some("packets"),
            Self::Mutation => Some("mutation"),
            Self::Verifier => Some("verifier"),
            Self::Plans => Some("plans"),
            Self::Netns => Some("netns"),
            Self::Kube => Some("kube"),
            Self::Kernels => Some("devices"),
        }
    }

    /// What libtest is told. A packet test is of the host unless its name says kernel, so none is lost between the two.
    fn libtest_arguments(self) -> &'static [&'static str] {
        match self {
            Self::PacketsHost => &["--skip", "kernel"],
            Self::PacketsKernel => &["kernel"],
            // The verifier's instruction counts are worth reading.
            Self::Verifier => &["--show-output"],
            // They wait more than they compute, and each has namespaces, pins and files of its own.
            Self::Netns | Self::Kube => &["--test-threads=2"],
            _ => &[],
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    require_root("cargo xtask test")?;
    let kinds = if args.kinds.is_empty() {
        Kind::value_variants()
    } else {
        &args.kinds
    };
    let scope = if kinds.contains(&Kind::Kernels) {
        Scope::Kernels
    } else {
        Scope::Everything
    };
    build_ebpf::build(&setup::run(scope)?)?;
    binaries()?;

    let mut results = Vec::new();
    for &kind in kinds {
        say(format!("tests of kind {}", kind.name()));
        results.push((kind, tests_of(kind)?));
    }
    report(&results)
}

/// Runs the tests of a kind.
fn tests_of(kind: Kind) -> Result<Ran> {
    if kind == Kind::Kernels {
        return kernels::tests(&kernels::Args::parse_from(["kernels"]));
    }
    if kind == Kind::Kube
        && let Err(error) = kube::build().and_then(|_| helm::build()).and_then(|_| image())
    {
        let why = format!("no Kubernetes control plane, no helm or no image: {error:#}");
        say(&why);
        return Ok(Ran::not("all", &why));
    }
    let mut ran = Ran::default();
    for mut command in commands(kind)? {
        ran += libtest::run(&mut command)?;
    }
    Ok(ran)
}

/// The image's programs, and the one that other tests start, which cargo keeps in the same place as one of them.
fn image() -> Result<()> {
    setup::images()?;
    image::build_all(Profile::Dev)?;
    binaries()
}

/// The lab starts the agent's binary, which no test target depends on.
fn binaries() -> Result<()> {
    check(cargo().args(["build", "--workspace", "--exclude", "weir-ebpf", "--bins"]))
}

/// The test commands of a kind, which is not [`Kind::Kernels`]. What is no target of another kind is unit, so that a new test file is never forgotten.
fn commands(kind: Kind) -> Result<Vec<Command>> {
    let test = || {
        let mut command = cargo();
        command.args(["test", "--no-fail-fast"]);
        command
    };
    if let Some(target) = kind.target() {
        let mut command = test();
        command
            .args(["--package", "tests", "--test", target, "--"])
            .args(kind.libtest_arguments());
        return Ok(vec![command]);
    }
    let mut packages = test();
    packages.args(["--workspace", "--exclude", "weir-ebpf", "--exclude", "tests"]);
    let mut lab = test();
    lab.args(["--package", "tests", "--lib", "--bins"]);
    for target in test_targets()? {
        if !Kind::value_variants().iter().any(|kind| kind.target() == Some(&target)) {
            lab.args(["--test", &target]);
        }
    }
    Ok(vec![packages, lab])
}

fn test_targets() -> Result<Vec<String>> {
    let folder = workspace::root().join("tests/tests");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}

/// Prints a table, the failures, then the two lines for readers; fails when anything is not as it should be.
fn report(results: &[(Kind, Ran)]) -> Result<()> {
    let mut total = Count::default();
    let mut wrong = Vec::new();
    let mut failures = Vec::new();
    println!();
    for (kind, ran) in results {
        let Count {
            passed,
            failed,
            ignored,
        } = ran.count;
        println!(
            "{:15} {passed:5} passed {failed:3} failed {ignored:3} ignored",
            kind.name()
        );
        total += ran.count;
        failures.extend(ran.failures.iter().map(|failure| (kind.name(), failure.clone())));
        if failed > 0 {
            wrong.push(format!("{failed} of kind {} failed", kind.name()));
        }
        if passed + failed == 0 {
            wrong.push(format!("kind {} ran no test", kind.name()));
        }
        if ignored > 0 {
            wrong.push(format!("{ignored} of kind {} did not run", kind.name()));
        }
    }
    print!("{}", libtest::again(&failures));
    println!();
    println!("{} passed, {} failed", total.passed, total.failed);
    println!("{}", by_kind(results, total));
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

fn by_kind(results: &[(Kind, Ran)], total: Count) -> String {
    let kinds: Vec<_> = results
        .iter()
        .map(|(kind, Ran { count, .. })| format!("{} {}", kind.name(), count.passed + count.failed))
        .collect();
    format!(
        "test result: {} passed, {} failed ({})",
        total.passed,
        total.failed,
        kinds.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(passed: u64, failed: u64, ignored: u64) -> Ran {
        Ran {
            count: Count {
                passed,
                failed,
                ignored,
            },
            ..Ran::default()
        }
    }

    #[test]
    fn the_last_line_tells_every_kind() {
        let results = [(Kind::Unit, ran(3, 1, 0)), (Kind::PacketsHost, ran(2, 0, 0))];
        assert_eq!(
            by_kind(&results, ran(5, 1, 0).count),
            "test result: 5 passed, 1 failed (unit 4, packets-host 2)"
        );
    }

    #[test]
    fn a_kind_without_tests_fails() {
        assert!(report(&[(Kind::Unit, ran(1, 0, 0))]).is_ok());
        assert!(report(&[(Kind::Unit, ran(1, 0, 0)), (Kind::Netns, Ran::default())]).is_err());
        assert!(report(&[(Kind::Unit, ran(1, 0, 1))]).is_err());
        assert!(report(&[(Kind::Unit, ran(1, 1, 0))]).is_err());
    }

    #[test]
    fn every_kind_but_unit_has_a_target() {
        for kind in Kind::value_variants() {
            assert_eq!(kind.target().is_none(), *kind == Kind::Unit);
        }
    }
}
