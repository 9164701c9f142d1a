//! What a number was measured on; without it a number says nothing.

use serde::Serialize;
use std::{collections::BTreeMap, fs, process::Command};

/// The machine and the circumstances.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Release of the running kernel.
    pub kernel: String,
    /// Model name of the CPU.
    pub cpu: String,
    /// CPUs there are.
    pub cpus: usize,
    /// Mitigations that make calls and branches dearer, by vulnerability.
    pub mitigations: BTreeMap<String, String>,
    /// What compiled the programs.
    pub compiler: String,
    /// Day of the measurement (UTC).
    pub date: String,
}

impl Machine {
    /// Asks the kernel; the compiler's name comes from `cargo xtask bench`.
    #[must_use]
    pub fn this() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: model.map_or_else(|| "unknown".into(), |(_, name)| name.trim().into()),
            // Not those this thread may use: it is pinned to one.
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            mitigations: mitigations(),
            compiler: std::env::var("WEIR_EBPF_COMPILER").unwrap_or_else(|_| "unknown".into()),
            date: output("date", &["-u", "+%Y-%m-%d"]),
        }
    }

    /// All of it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            kernel,
            cpu,
            cpus,
            compiler,
            date,
            ..
        } = self;
        let mitigations: Vec<_> = self
            .mitigations
            .iter()
            .map(|(name, how)| format!("{name}: {how}"))
            .collect();
        format!(
            "Linux {kernel}, {cpu}, {cpus} CPUs, {}; {compiler}; {date}",
            mitigations.join(", ")
        )
    }
}

/// Those that concern indirect calls and returns, which is what BPF programs are full of.
fn mitigations() -> BTreeMap<String, String> {
    ["retbleed", "spec_rstack_overflow", "spectre_v2"]
        .into_iter()
        .map(|name| {
            (
                name.into(),
                read(&format!("/sys/devices/system/cpu/vulnerabilities/{name}")),
            )
        })
        .filter(|(_, how): &(String, String)| !how.is_empty() && how != "Not affected")
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().into()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().into())
        .unwrap_or_default()
}
