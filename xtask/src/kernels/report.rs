//! What came of it: kernel by kernel, step by step.

use super::{
    fetch::Kernel,
    steps::{Ended, Progress, Step},
};
use crate::libtest::{Count, Ran};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// What came of one kernel.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) series: String,
    /// `None` when it could not be had.
    version: Option<String>,
    ended: BTreeMap<Step, Ended>,
    verified: BTreeMap<String, u64>,
    unfinished: Option<&'static str>,
    took: Duration,
}

impl Outcome {
    /// Of a kernel that was booted; a step that did not come to its end, or ran no test, has failed.
    pub(super) fn of(kernel: &Kernel, progress: Progress, steps: &[Step], took: Duration) -> Self {
        let ended = |step: &Step| match progress.ended.get(step.target()) {
            Some(ended) if ended.ran.count.passed + ended.ran.count.failed > 0 => ended.clone(),
            Some(_) => lost("ran no test"),
            None => lost("did not come to its end; why is said above"),
        };
        let not_ended = |step: &&Step| !progress.ended.contains_key(step.target());
        Self {
            series: kernel.series.clone(),
            version: Some(kernel.version.clone()),
            ended: steps.iter().map(|step| (*step, ended(step))).collect(),
            unfinished: steps.iter().find(not_ended).map(|step| step.target()),
            verified: progress.verified,
            took,
        }
    }

    /// Of a kernel that could not be booted.
    pub(super) fn broken(kernel: &Kernel, steps: &[Step]) -> Self {
        Self::of(kernel, Progress::default(), steps, Duration::ZERO)
    }

    /// Of a series that no mirror has: one failure.
    pub(super) fn missing(series: &str) -> Self {
        Self {
            series: series.to_owned(),
            version: None,
            ended: BTreeMap::new(),
            verified: BTreeMap::new(),
            unfinished: None,
            took: Duration::ZERO,
        }
    }

    /// All its steps together; failures have kernel and step in their names.
    pub(super) fn ran(self) -> Ran {
        if self.version.is_none() {
            return Ran::not(&self.series, "cannot be had; why is said above");
        }
        let mut sum = Ran::default();
        for (step, Ended { mut ran, .. }) in self.ended {
            for failure in &mut ran.failures {
                failure.name = format!("{} {} {}", self.series, step.target(), failure.name);
            }
            sum += ran;
        }
        sum
    }

    /// The first step that has not ended.
    pub(super) fn unfinished(&self) -> Option<&'static str> {
        self.unfinished
    }
}

/// A step that could not run.
fn lost(why: &str) -> Ended {
    Ended {
        ran: Ran::not("all", why),
        seconds: 0.0,
    }
}

/// One line for each kernel.
pub(super) fn table(outcomes: &[Outcome], steps: &[Step]) -> String {
    let mut text = format!("\n{:26}", "kernel");
    for step in steps {
        // Writing to a string does not fail.
        let _ = write!(text, "{:26}", step.target());
    }
    text += "all    instructions verified\n";
    for outcome in outcomes {
        text += &row(outcome, steps);
    }
    text
}

fn row(outcome: &Outcome, steps: &[Step]) -> String {
    let Some(version) = &outcome.version else {
        return format!("{:26}CANNOT BE HAD\n", outcome.series);
    };
    let mut text = format!("{version:26}");
    for step in steps {
        let cell = match outcome.ended.get(step) {
            Some(Ended { ran, seconds }) => {
                let Count { passed, failed, .. } = ran.count;
                format!("{passed} passed {failed} failed {seconds:.0} s")
            }
            None => "not asked for".to_owned(),
        };
        let _ = write!(text, "{cell:26}");
    }
    let verified = outcome
        .verified
        .iter()
        .map(|(program, count)| format!("{program} {count}"));
    let verified = verified.collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "{:3} s  {verified}", outcome.took.as_secs());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            series: "6.1".into(),
            version: "6.1.0-56-cloud-amd64".into(),
            folder: "/nowhere".into(),
        }
    }

    #[test]
    fn a_step_that_did_not_end_and_one_without_tests_have_failed() {
        let mut progress = Progress::default();
        for line in ["@weir begin verifier", "@weir end 0 1.00", "@weir begin packets"] {
            progress.read(line);
        }
        let outcome = Outcome::of(&kernel(), progress, &Step::all(), Duration::from_secs(7));
        assert_eq!(outcome.unfinished(), Some("packets"));
        let Ran { count, failures } = outcome.ran();
        let names: Vec<_> = failures.iter().map(|failure| &failure.name[..]).collect();
        assert_eq!((count.passed, count.failed), (0, names.len() as u64));
        assert_eq!(names, ["6.1 verifier all", "6.1 packets all", "6.1 devices all"]);
    }

    #[test]
    fn a_kernel_that_cannot_be_had_is_a_failure_and_named() {
        let outcome = Outcome::missing("9.9");
        assert!(
            table(std::slice::from_ref(&outcome), &Step::all()).contains("9.9                       CANNOT BE HAD")
        );
        let Ran { count, failures } = outcome.ran();
        assert_eq!((count.failed, &failures[0].name[..]), (1, "9.9"));
    }

    #[test]
    fn a_step_that_was_not_asked_for_is_no_failure_and_shown() {
        let mut progress = Progress::default();
        for line in [
            "@weir begin verifier",
            "test result: ok. 4 passed; 0 failed; 0 ignored",
            "@weir end 0 1.00",
        ] {
            progress.read(line);
        }
        let outcome = Outcome::of(&kernel(), progress, &[Step::Verifier], Duration::from_secs(7));
        assert!(table(std::slice::from_ref(&outcome), &Step::all()).contains("not asked for"));
        let Ran { count, failures } = outcome.ran();
        assert_eq!((count.passed, count.failed, failures.len()), (4, 0, 0));
    }
}
