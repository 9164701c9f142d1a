//! One network namespace by name: commands and code run inside it.
//!
//! Only the network namespace is entered. (`ip netns exec` would also mount a fresh `/sys`, where pinned maps are not.)

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

/// A network namespace that `ip netns` knows.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The handle of a namespace that exists, or will.
    pub(crate) fn named(name: String) -> Self {
        Self { name }
    }

    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command line (split at spaces) inside and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or exits with a failure; its error output is in the message.
    pub fn output(&self, line: &str) -> Result<String> {
        let (program, arguments) = split(line)?;
        let mut command = self.command(program);
        output_of(command.args(arguments)).with_context(|| format!("in {}: {line}", self.name))
    }

    /// Runs `ip` commands inside, one a line, in one process.
    ///
    /// # Errors
    /// When one fails.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        ip_batch(&["-n", &self.name], lines).with_context(|| format!("in {}", self.name))
    }

    /// Runs `work` on a thread inside the namespace and waits for its answer.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or with the error of `work`.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When the namespace is gone or the caller may not enter it.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("no namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter namespace {}", self.name))
    }
}

/// Runs `ip OPTIONS -batch -` with `lines`.
pub(crate) fn ip_batch(options: &[&str], lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(options).args(["-batch", "-"]);
    feed(&mut command, lines)
        .with_context(|| format!("of these commands:\n{lines}"))
        .map(drop)
}

/// Runs a command to its end with `input` as its standard input, and returns what it printed.
///
/// # Errors
/// As [`Namespace::output`].
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let output = thread::scope(|scope| {
        // On a thread of its own, or both sides may wait for the other to read. A program that does not read to the end says
        // why by itself.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    })?;
    said(output)
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    said(command.output().with_context(|| format!("cannot run {command:?}"))?)
}

fn said(output: Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn split(line: &str) -> Result<(&str, impl Iterator<Item = &str>)> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command line")?;
    Ok((program, words))
}
