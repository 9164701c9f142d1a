//! What is carried into the guests: the object, the agent, the test binaries.

use super::steps::Step;
use crate::{
    process::{cargo, check, say},
    workspace,
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Files by the name they have in `/job`.
#[derive(Debug)]
pub(super) struct Artefacts {
    pub(super) files: Vec<(String, PathBuf)>,
}

impl Artefacts {
    /// Builds the test binaries of `steps`; object and agent have to be there.
    pub(super) fn build(steps: &[Step]) -> Result<Self> {
        let folder = workspace::target().join("kernels/job");
        fs::create_dir_all(&folder)?;
        let mut programs = vec![("weir".to_owned(), workspace::binary("weir"))];
        programs.extend(test_binaries(steps)?);
        let mut files = vec![("weir.o".to_owned(), workspace::ebpf_target().join("weir.o"))];
        for (name, program) in programs {
            // The names of functions are most of a file, and a guest keeps files in memory.
            let stripped = folder.join(&name);
            check(Command::new("strip").arg("-o").arg(&stripped).arg(&program))?;
            files.push((name, stripped));
        }
        Ok(Self { files })
    }
}

/// Test targets and where cargo put them, as it says itself.
fn test_binaries(steps: &[Step]) -> Result<Vec<(String, PathBuf)>> {
    say("building the test binaries");
    let mut command = cargo();
    command.args(["test", "--quiet", "--no-run", "--package", "tests"]);
    command.arg("--message-format=json-render-diagnostics");
    for step in steps {
        command.args(["--test", step.target()]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo test")?;
    if !output.status.success() {
        bail!("the test binaries do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let built: Vec<_> = text.lines().filter_map(executable).collect();
    steps
        .iter()
        .map(|step| {
            let found = built.iter().find(|(name, _)| name == step.target());
            found
                .cloned()
                .with_context(|| format!("cargo built no test {}", step.target()))
        })
        .collect()
}

/// Reads one of cargo's messages: target and file, when it is about an executable.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let file = message["executable"].as_str()?;
    Some((message["target"]["name"].as_str()?.to_owned(), file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_message_names_target_and_file() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"packets"},"executable":"/t/deps/packets-1a"}"#;
        assert_eq!(
            executable(message),
            Some(("packets".to_owned(), "/t/deps/packets-1a".into()))
        );
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable(r#"{"target":{"name":"x"},"executable":null}"#), None);
    }
}
