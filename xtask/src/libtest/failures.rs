//! Which tests failed and what they printed, read from libtest's output: at the end of a long log both are said again.

use std::fmt::Write;

/// Of what a failed test printed, the last lines that are said again.
const LINES: usize = 40;
/// The least of them, when so many failed that they share [`LINES_OF_ALL`].
const LEAST_LINES: usize = 5;
const LINES_OF_ALL: usize = 400;
/// Of a line, the characters that are said again: some lines are whole objects.
const CHARACTERS: usize = 2000;

/// A test that failed, or what could not be run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) name: String,
    /// Lines that it printed.
    pub(crate) printed: Vec<String>,
}

impl Failure {
    /// Of `name`, which printed `text`.
    pub(crate) fn new(name: impl Into<String>, text: &str) -> Self {
        Self {
            name: name.into(),
            printed: text.lines().map(str::to_owned).collect(),
        }
    }

    /// What is said of it, in `lines` lines and one for the name.
    fn again(&self, kind: &str, lines: usize) -> String {
        let mut text = format!("\nFAILED {kind} {}\n", self.name);
        let printed: Vec<&String> = without_backtraces(&self.printed).collect();
        let end = printed.iter().rposition(|line| !line.is_empty());
        let end = end.map_or(0, |last| last + 1);
        for line in &printed[end.saturating_sub(lines)..end] {
            let line: String = line.chars().take(CHARACTERS).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "    {line}");
        }
        text
    }
}

/// All lines but those of backtraces, which are many and come after what went wrong.
fn without_backtraces(lines: &[String]) -> impl Iterator<Item = &String> {
    let mut in_backtrace = false;
    lines.iter().filter(move |line| {
        let begins = line.eq_ignore_ascii_case("stack backtrace:");
        in_backtrace = begins || in_backtrace && line.starts_with(' ');
        !in_backtrace
    })
}

/// All failures, by kind, for the end of a log.
pub(crate) fn again(failures: &[(String, Failure)]) -> String {
    let lines = (LINES_OF_ALL / failures.len().max(1)).clamp(LEAST_LINES, LINES);
    let each = failures.iter().map(|(kind, failure)| failure.again(kind, lines));
    each.collect()
}

/// Reads libtest's output, of one test binary after the other.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Of the binary that is read.
    failed: Vec<Failure>,
    /// The one of `failed` whose output is read.
    section: Option<usize>,
    of_earlier: Vec<Failure>,
}

impl Failures {
    /// Reads a line: `test NAME ... FAILED` comes first, `---- NAME stdout ----` and what was printed after all tests, then the
    /// line `failures:` and all names once more, and at last `test result: FAILED. ...`.
    pub(super) fn read(&mut self, line: &str) {
        let between = |start, end| line.strip_prefix(start).and_then(|line: &str| line.strip_suffix(end));
        if let Some(name) = between("---- ", " stdout ----") {
            self.section = self.failed.iter().position(|failure| failure.name == name);
        } else if line.starts_with("test result: ") {
            self.end_of_binary();
        } else if let Some(section) = self.section {
            self.failed[section].printed.push(line.to_owned());
        } else if let Some(name) = between("test ", " ... FAILED") {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.failed.push(Failure::new(name, ""));
        }
    }

    /// The names that follow belong to no test: they are behind the last such line, as a test may print one, too.
    fn end_of_binary(&mut self) {
        if let Some(section) = self.section.take() {
            let printed = &mut self.failed[section].printed;
            let names = printed.iter().rposition(|line| line == "failures:");
            printed.truncate(names.unwrap_or(printed.len()));
        }
        self.of_earlier.append(&mut self.failed);
    }

    /// All of them, also of a binary that died on the way.
    pub(super) fn end(mut self) -> Vec<Failure> {
        self.end_of_binary();
        self.of_earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_BINARIES: &str = "
running 4 tests
test first::passes ... ok
test first::fails ... FAILED
test first::goes_on - should panic ... FAILED
test first::speaks ... FAILED

successes:

---- first::passes stdout ----
nothing of this

successes:
    first::passes

failures:

---- first::speaks stdout ----
it said
failures:
and more

---- first::fails stdout ----

thread 'first::fails' panicked at tests/first.rs:7:5:
left is not right


failures:
    first::fails
    first::goes_on
    first::speaks

test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s

running 2 tests
test second::fails ... FAILED
";

    fn read(text: &str) -> Vec<(String, Failure)> {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.read(line));
        let of_a_kind = |failure| ("unit".to_owned(), failure);
        failures.end().into_iter().map(of_a_kind).collect()
    }

    #[test]
    fn failed_tests_are_said_again_with_what_they_printed() {
        let expected = "
FAILED unit first::fails
    \n    thread 'first::fails' panicked at tests/first.rs:7:5:
    left is not right

FAILED unit first::goes_on

FAILED unit first::speaks
    it said
    failures:
    and more

FAILED unit second::fails
";
        assert_eq!(again(&read(TWO_BINARIES)), expected);
    }

    #[test]
    fn nothing_is_said_when_nothing_failed() {
        let passed = "test a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(again(&read(passed)), "");
    }

    #[test]
    fn backtraces_are_not_said_again() {
        let text = "Error: no\n\nStack backtrace:\n   0: one\n             at ./one.rs:1:2\n  11: two\nnote: some\n";
        let said = again(&[("kube".to_owned(), Failure::new("fails", text))]);
        assert_eq!(said, "\nFAILED kube fails\n    Error: no\n    \n    note: some\n");
    }

    #[test]
    fn of_long_output_the_end_is_said_again() {
        let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let one = ("kube".to_owned(), Failure::new("talks", &lines));
        let said = again(std::slice::from_ref(&one));
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(said.len(), 2 + LINES);
        assert_eq!((said[2], said[1 + LINES]), ("    line 60", "    line 99"));

        let said = again(&vec![one; 100]);
        assert_eq!(said.lines().count(), 100 * (2 + LEAST_LINES));
        assert!(said.ends_with("    line 98\n    line 99\n"), "{said}");

        let wide = ("kube".to_owned(), Failure::new("shouts", &"é".repeat(2 * CHARACTERS)));
        assert_eq!(again(&[wide]).chars().filter(|&char| char == 'é').count(), CHARACTERS);
    }
}
