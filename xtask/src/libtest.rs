//! Runs a test command, shows its output as it comes, and reads what libtest reports.

mod failures;

pub(crate) use failures::{Failure, again};

use anyhow::{Context, Result};
use failures::Failures;
use std::{
    io::{BufRead, BufReader, Write},
    ops::AddAssign,
    process::{Command, Stdio},
};

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Count {
    /// The count of a command that ended so. When it fails without any failed test (it does not compile, or a test binary
    /// died), that counts as one.
    fn of_a_command_that(mut self, succeeded: bool) -> Self {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// What came of tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) count: Count,
    /// Those that failed, and commands that failed without any failed test.
    pub(crate) failures: Vec<Failure>,
}

impl AddAssign for Ran {
    fn add_assign(&mut self, mut other: Self) {
        self.count += other.count;
        self.failures.append(&mut other.failures);
    }
}

impl Ran {
    /// Of something that failed before any test ran.
    pub(crate) fn not(name: &str, why: &str) -> Self {
        Self {
            count: Count::default().of_a_command_that(false),
            failures: vec![Failure::new(name, why)],
        }
    }
}

/// Reads what a test command prints.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    count: Count,
    failures: Failures,
}

impl Reader {
    /// Reads the next line, without its end.
    pub(crate) fn read(&mut self, line: &str) {
        self.count += summary(line).unwrap_or_default();
        self.failures.read(line);
    }

    /// What came of a command, called `name`, that ended so; `how` is said if it failed and no test did.
    pub(crate) fn end(self, succeeded: bool, name: &str, how: &str) -> Ran {
        let mut failures = self.failures.end();
        if !succeeded && self.count.failed == 0 {
            failures.push(Failure::new(name, how));
        }
        Ran {
            count: self.count.of_a_command_that(succeeded),
            failures,
        }
    }
}

/// Runs `command` and shows its stdout on ours.
pub(crate) fn run(command: &mut Command) -> Result<Ran> {
    run_showing(command, &mut std::io::stdout())
}

fn run_showing(command: &mut Command, show: &mut impl Write) -> Result<Ran> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut reader = Reader::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read the output of cargo test")?;
        let text = String::from_utf8_lossy(&line);
        // A reader may have gone away; the tests go on.
        let _ = writeln!(show, "{text}");
        reader.read(&text);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    let how = format!("ended with {status}; why is said above");
    Ok(reader.end(status.success(), &format!("{command:?}"), &how))
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s`.
fn summary(line: &str) -> Option<Count> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        let mut parts = numbers.split("; ").filter_map(|part| part.split_once(' '));
        parts
            .find(|(_, name)| *name == what)
            .and_then(|(number, _)| number.parse().ok())
    };
    Some(Count {
        passed: number("passed")?,
        failed: number("failed")?,
        ignored: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_summary_is_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(
            summary(line),
            Some(Count {
                passed: 5,
                failed: 2,
                ignored: 1
            })
        );
        assert_eq!(summary("test packets::arp ... ok"), None);
    }

    #[test]
    fn a_command_that_dies_counts_as_a_failure() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'; exit 101",
        ]);
        let Ran { count, failures } = run_showing(&mut command, &mut Vec::new()).unwrap();
        let (passed, failed, ignored) = (3, 1, 0);
        assert_eq!(
            count,
            Count {
                passed,
                failed,
                ignored
            }
        );
        let [Failure { name, printed }] = &failures[..] else {
            panic!("{failures:?}")
        };
        assert!(name.contains("exit 101"), "{name}");
        assert_eq!(printed, &["ended with exit status: 101; why is said above"]);
    }

    #[test]
    fn a_command_is_no_failure_beside_its_tests() {
        let mut reader = Reader::default();
        reader.read("test wrong ... FAILED");
        reader.read("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        let ran = reader.end(false, "command", "");
        assert_eq!(ran.count.failed, 1);
        assert_eq!(ran.failures, [Failure::new("wrong", "")]);
    }
}
