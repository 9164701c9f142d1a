//! Running other programs. What is said about it goes to stderr: stdout belongs to results.

use anyhow::{Context, Result, bail};
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One line about what is going on.
pub(crate) fn say(line: impl AsRef<str>) {
    eprintln!("xtask: {}", line.as_ref());
}

/// The cargo that runs us, in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::workspace::root());
    command
}

/// `command` without what an outer cargo or rustup put into the environment for its own build.
pub(crate) fn without_outer_build(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_a_build) {
            command.env_remove(name);
        }
    }
    command
}

/// Keeps what is about the person's machine (homes, proxies, registries, colours) and drops what is about one build.
fn belongs_to_a_build(name: &str) -> bool {
    const KEPT: [&str; 9] = [
        "CARGO_HOME",
        "CARGO_HTTP",
        "CARGO_NET",
        "CARGO_REGISTR",
        "CARGO_SOURCE",
        "CARGO_TERM",
        "RUSTUP_HOME",
        "RUSTUP_DIST",
        "RUST_BACKTRACE",
    ];
    let about_rust = name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH";
    about_rust && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// Runs to the end; an error names the command and how it ended.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", spell(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", spell(command));
    }
    Ok(())
}

/// What the command prints on stdout, or `None` when it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first program of that name in `PATH` or the administrator's folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// `PATH` with `folder` in front.
pub(crate) fn path_with(folder: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(
        std::iter::once(folder.to_path_buf()).chain(env::split_paths(&path)),
    )?)
}

/// Whether this process has root's user id.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1))
        == Some("0")
}

/// Fails with a sentence unless we are root.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "{what} needs root: it loads eBPF programs and makes network namespaces. Run it as root, or with `sudo -E`."
        );
    }
    Ok(())
}

fn spell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_builds_environment_is_dropped() {
        for dropped in [
            "RUSTC",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "RUSTUP_TOOLCHAIN",
            "CARGO",
        ] {
            assert!(belongs_to_a_build(dropped), "{dropped}");
        }
        for kept in [
            "CARGO_HOME",
            "CARGO_HTTP_CAINFO",
            "CARGO_REGISTRIES_X_INDEX",
            "PATH",
            "HOME",
            "HTTPS_PROXY",
        ] {
            assert!(!belongs_to_a_build(kept), "{kept}");
        }
    }
}
