//! What is run in a guest, and how its output is read.
//!
//! The guest's `init.sh` frames each step's output by lines that start with [`MARK`].

use super::OLDEST;
use crate::libtest::{Ran, Reader};
use clap::ValueEnum;
use std::collections::BTreeMap;

/// Starts a line of `init.sh` about a step; libtest prints none like it.
const MARK: &str = "@weir ";

/// One test binary, run once in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Step {
    /// The kernel takes the object; instructions walked.
    Verifier,
    /// Golden packets through `BPF_PROG_TEST_RUN`.
    Packets,
    /// Agents and clients over veth, VLAN devices, bonds and lossy links.
    Devices,
}

impl Step {
    /// All, the quickest first.
    pub(super) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// What is run on a kernel of `series` when nothing is asked for. Agents take minutes, so they are for one kernel: the
    /// oldest, which differs most from the one the other tests have.
    pub(super) fn usual(series: &str) -> Vec<Self> {
        let mut steps = Self::all();
        steps.retain(|step| *step != Self::Devices || series == OLDEST);
        steps
    }

    /// Its test target, also its name.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Verifier => "verifier",
            Self::Packets => "packets",
            Self::Devices => "devices",
        }
    }

    fn arguments(self) -> &'static str {
        match self {
            Self::Verifier => "--show-output --test-threads=1",
            Self::Packets => "kernel --test-threads=1",
            Self::Devices => "--test-threads=1",
        }
    }

    /// The line of `/steps` that `init.sh` reads: name, program, arguments.
    pub(super) fn line(self) -> String {
        let target = self.target();
        format!("{target} /job/{target} {}\n", self.arguments())
    }
}

/// How a step ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ended {
    pub(super) ran: Ran,
    /// Of the guest's time.
    pub(super) seconds: f64,
}

/// What a guest has said so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    running: Option<(String, Reader)>,
    /// Steps that have ended, by name.
    pub(super) ended: BTreeMap<String, Ended>,
    /// Instructions the verifier walked, by program.
    pub(super) verified: BTreeMap<String, u64>,
}

impl Progress {
    /// Reads one line; whether it is for people.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if let Some(mark) = line.strip_prefix(MARK) {
            self.mark(mark);
            return false;
        }
        if let Some((_, reader)) = &mut self.running {
            reader.read(line);
        }
        if let Some((program, count)) = verified(line) {
            self.verified.insert(program, count);
        }
        true
    }

    /// `begin NAME`, or `end STATUS SECONDS`.
    fn mark(&mut self, mark: &str) {
        let words: Vec<&str> = mark.split_whitespace().collect();
        match words[..] {
            ["begin", name] => self.running = Some((name.to_owned(), Reader::default())),
            ["end", status, seconds] => {
                if let Some((name, reader)) = self.running.take() {
                    let how = format!("ended with exit status {status}; why is said above");
                    let ran = reader.end(status == "0", "all", &how);
                    let seconds = seconds.parse().unwrap_or_default();
                    self.ended.insert(name, Ended { ran, seconds });
                }
            }
            _ => {}
        }
    }
}

/// Reads `weir_ingress: 79579 instructions verified, ...`, the line of the verifier tests.
fn verified(line: &str) -> Option<(String, u64)> {
    let (program, rest) = line.split_once(": ")?;
    let (count, _) = rest.split_once(" instructions verified,")?;
    Some((program.to_owned(), count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> Progress {
        let mut progress = Progress::default();
        for line in lines {
            progress.read(line);
        }
        progress
    }

    #[test]
    fn a_step_is_counted_between_its_marks() {
        let progress = after(&[
            "@weir begin verifier",
            "weir_ingress: 321004 instructions verified, 49480 bytes after translation, budget 500000",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 5.00s",
            "@weir end 0 5.25",
            "@weir begin packets",
        ]);
        let Ended { ran, seconds } = &progress.ended["verifier"];
        assert_eq!((ran.count.passed, ran.count.failed, *seconds), (4, 0, 5.25));
        assert_eq!(progress.verified["weir_ingress"], 321_004);
        assert!(!progress.ended.contains_key("packets"));
    }

    #[test]
    fn agents_run_on_the_oldest_kernel_unless_asked_for() {
        assert!(Step::usual(OLDEST).contains(&Step::Devices));
        assert_eq!(Step::usual("7.3"), [Step::Verifier, Step::Packets]);
    }

    #[test]
    fn a_step_that_dies_without_a_word_has_failed() {
        let progress = after(&["@weir begin devices", "Segmentation fault", "@weir end 139 0.50"]);
        assert_eq!(progress.ended["devices"].ran.count.failed, 1);
    }
}
