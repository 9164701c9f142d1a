//! Go, for the control plane of the tests.

use super::packages;
use crate::process::{find, output, say};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A Go that builds what asks for a newer one: from 1.21 on it fetches that by itself.
const OLDEST: (u32, u32) = (1, 21);
/// Debian's package.
const PACKAGE: &str = "golang-go";
/// Where people unpack Go's own release.
const USUAL: &str = "/usr/local/go/bin/go";

/// Go.
#[derive(Debug)]
pub(crate) struct Go {
    pub(crate) program: PathBuf,
    /// `go1.26.8`.
    pub(crate) version: String,
}

/// Go as it is on this machine, or from Debian where that has a Go new enough.
pub(crate) fn find_or_install() -> Result<Go> {
    if let Some(go) = installed() {
        return Ok(go);
    }
    let candidate = output(Command::new("apt-cache").args(["policy", PACKAGE])).unwrap_or_default();
    if packages::can_install() && candidate_version(&candidate).is_some_and(|version| version >= OLDEST) {
        packages::install(&[PACKAGE])?;
        if let Some(go) = installed() {
            say(format!("installed {}", go.version));
            return Ok(go);
        }
    }
    bail!(
        "Go is missing, or older than {}.{}: it builds the Kubernetes control plane of the tests. Install a current Go in PATH or \
         /usr/local/go, or name a folder with etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl by KUBEBUILDER_ASSETS",
        OLDEST.0,
        OLDEST.1
    )
}

fn installed() -> Option<Go> {
    let usual = Some(PathBuf::from(USUAL)).filter(|path| path.is_file());
    find("go").into_iter().chain(usual).find_map(|program| usable(&program))
}

fn usable(program: &Path) -> Option<Go> {
    let version = output(Command::new(program).args(["env", "GOVERSION"]))?
        .trim()
        .to_owned();
    (numbers(version.strip_prefix("go")?)? >= OLDEST).then(|| Go {
        program: program.into(),
        version,
    })
}

/// The version apt would install, of `  Candidate: 2:1.19~1`.
fn candidate_version(policy: &str) -> Option<(u32, u32)> {
    let line = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    numbers(line.split_once(':').map_or(line, |(_epoch, version)| version))
}

/// Major and minor, of `1.26.8` or `1.19~1`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_go_and_apt_print_them() {
        assert_eq!(numbers("1.26.8"), Some((1, 26)));
        assert_eq!(numbers("1.27rc1"), Some((1, 27)));
        assert_eq!(numbers("devel"), None);
        let policy = "golang-go:\n  Installed: (none)\n  Candidate: 2:1.19~1\n  Version table:\n";
        assert_eq!(candidate_version(policy), Some((1, 19)));
        assert_eq!(candidate_version("golang-go:\n  Candidate: (none)\n"), None);
    }
}
