//! What passes a device, as tcpdump sees it.
//!
//! A node's own `eth0` does not show packets that XDP sends back out, so captures are made at the switch: the router's
//! `node-N` devices are the other ends of the nodes' cables.

use super::{Lab, Namespace, process::Process, wait};
use anyhow::{Result, ensure};
use std::{fs, path::PathBuf};

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    namespace: Namespace,
}

impl Capture {
    /// Starts to record what matches `filter` (tcpdump's language) at the switch port `node`; returns when it is listening.
    ///
    /// # Errors
    /// When tcpdump does not start or does not like the filter.
    pub fn at_node(lab: &Lab, node: &str, filter: &str) -> Result<Self> {
        let file = lab.directory().join(format!("{node}.pcap"));
        let log = lab.directory().join(format!("{node}-tcpdump.log"));
        fs::write(&log, "")?;
        let mut command = lab.router.command("tcpdump");
        command
            .args(["--immediate-mode", "-U", "-Z", "root", "-s", "256", "-i", node, "-w"])
            .arg(&file)
            .arg(filter);
        let mut process = Process::start(command, "tcpdump", &log)?;
        process.wait_until("tcpdump", || {
            ensure!(
                fs::read_to_string(&log)?.contains("listening on"),
                "it does not listen yet"
            );
            Ok(())
        })?;
        Ok(Self {
            process,
            file,
            namespace: lab.router.clone(),
        })
    }

    /// Bytes recorded so far.
    ///
    /// # Errors
    /// When nothing can be read.
    pub fn recorded(&self) -> Result<u64> {
        Ok(fs::metadata(&self.file)?.len())
    }

    /// Returns when a packet is recorded of which the line has this in it: what tcpdump has not read yet when it is ended, it never
    /// does, and on a busy machine it reads late.
    ///
    /// # Errors
    /// When there is none.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        wait::until(text, || {
            let lines = self.lines()?;
            ensure!(lines.iter().any(|line| line.contains(text)), "{lines:?}");
            Ok(())
        })
    }

    /// Ends it and returns the packets recorded, one line each.
    ///
    /// # Errors
    /// When tcpdump fails.
    pub fn finish(mut self) -> Result<Vec<String>> {
        self.process.stop(wait::PATIENCE)?;
        self.lines()
    }

    /// The packets recorded so far, one line each.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lines(&self) -> Result<Vec<String>> {
        let read = format!("tcpdump -nn -t -r {}", self.file.display());
        let text = self.namespace.output(&read)?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}
