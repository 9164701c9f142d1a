//! A program that runs in the background of a lab: its output goes to a file, and it ends with its handle.

use super::wait;
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and error are appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program not be started.
    pub fn start(mut command: Command, name: &str, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            child,
            name: name.into(),
            log: log.into(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait(patience)
    }

    /// Asks it to stop (SIGTERM).
    ///
    /// # Errors
    /// When it is already gone.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Errors
    /// When it is already gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        Ok(self.child.wait()?)
    }

    /// Stops it in the middle of whatever it does (SIGSTOP).
    ///
    /// # Errors
    /// When it is already gone.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it is already gone.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} still runs after {patience:?}; its last words:\n{}",
                    self.name,
                    self.last_words(20)
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Repeats `attempt` until it succeeds, as long as the program runs.
    ///
    /// # Errors
    /// When the program ends, or [`wait::patience`] is over; with what the program said last.
    pub fn wait_until<T>(&mut self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let outcome = wait::until(what, || match self.ended()? {
            Some(status) => Ok(Err(status)),
            None => attempt().map(Ok),
        });
        let said = || format!("{} said last:\n{}", self.name, self.last_words(30));
        match outcome.with_context(said)? {
            Ok(value) => Ok(value),
            Err(status) => bail!("it ended ({status}) while waiting for {what}; {}", said()),
        }
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last `lines` lines it has printed.
    pub fn last_words(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(self.child.id().cast_signed());
        kill(id, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
