//! Runs a test command, shows its output as it comes, and counts what libtest reports.

use anyhow::{Context, Result};
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
    pub(crate) fn of_a_command_that(mut self, succeeded: bool) -> Self {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// Runs `command` and shows its stdout on ours.
pub(crate) fn run(command: &mut Command) -> Result<Count> {
    run_showing(command, &mut std::io::stdout())
}

fn run_showing(command: &mut Command, show: &mut impl Write) -> Result<Count> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut count = Count::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read the output of cargo test")?;
        let text = String::from_utf8_lossy(&line);
        // A reader may have gone away; the tests go on.
        let _ = writeln!(show, "{text}");
        count += summary(&text).unwrap_or_default();
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok(count.of_a_command_that(status.success()))
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s`.
pub(crate) fn summary(line: &str) -> Option<Count> {
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
        assert_eq!(
            run_showing(&mut command, &mut Vec::new()).unwrap(),
            Count {
                passed: 3,
                failed: 1,
                ignored: 0
            }
        );
    }
}
