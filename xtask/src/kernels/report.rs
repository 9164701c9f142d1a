//! What came of it: kernel by kernel, step by step.

use super::{
    fetch::Kernel,
    steps::{Ended, Progress, Step},
};
use crate::libtest::Count;
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// What a step counts that could not run.
const LOST: Ended = Ended {
    count: Count {
        passed: 0,
        failed: 1,
        ignored: 0,
    },
    seconds: 0.0,
};

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
            Some(ended) if ended.count.passed + ended.count.failed > 0 => *ended,
            _ => LOST,
        };
        let lost = |step: &&Step| !progress.ended.contains_key(step.target());
        Self {
            series: kernel.series.clone(),
            version: Some(kernel.version.clone()),
            ended: steps.iter().map(|step| (*step, ended(step))).collect(),
            unfinished: steps.iter().find(lost).map(|step| step.target()),
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

    /// All its steps together.
    pub(super) fn count(&self) -> Count {
        if self.version.is_none() {
            return LOST.count;
        }
        let mut sum = Count::default();
        for ended in self.ended.values() {
            sum += ended.count;
        }
        sum
    }

    /// The first step that has not ended.
    pub(super) fn unfinished(&self) -> Option<&'static str> {
        self.unfinished
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
            Some(Ended { count, seconds }) => {
                format!("{} passed {} failed {seconds:.0} s", count.passed, count.failed)
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
        let all = Step::all().len() as u64;
        assert_eq!((outcome.count().passed, outcome.count().failed), (0, all));
        assert_eq!(outcome.unfinished(), Some("packets"));
    }

    #[test]
    fn a_kernel_that_cannot_be_had_is_a_failure_and_named() {
        let outcomes = [Outcome::missing("9.9")];
        assert_eq!(outcomes[0].count().failed, 1);
        assert!(table(&outcomes, &Step::all()).contains("9.9                       CANNOT BE HAD"));
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
        assert_eq!((outcome.count().passed, outcome.count().failed), (4, 0));
        assert!(table(&[outcome], &Step::all()).contains("not asked for"));
    }
}
