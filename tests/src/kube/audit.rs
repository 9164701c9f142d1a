//! What our own service accounts have asked the API server for, as it keeps account of it (audit log).

use super::ControlPlane;
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Where our service accounts are.
const NAMESPACE: &str = "weir-system";
/// Of everybody else nothing is kept; of a request neither its contents nor its beginning.
const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ['system:serviceaccounts:weir-system']}
- {level: None}
";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Name of the service account.
    pub account: String,
    /// As rights have it: `get`, `list`, `watch`, `patch`.
    pub verb: String,
    /// API group of the kind; empty: the core.
    pub group: String,
    /// Plural of the kind, with a subresource behind a slash.
    pub resource: String,
    /// What the API server answered.
    pub code: u64,
    /// Path and query.
    pub uri: String,
}

/// Writes the policy and gives the arguments for it.
pub(super) fn arguments(folder: &Path) -> Result<[String; 2]> {
    let policy = folder.join("audit-policy.yaml");
    fs::write(&policy, POLICY).with_context(|| format!("cannot write {}", policy.display()))?;
    Ok([
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log(folder).display()),
    ])
}

fn log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

impl ControlPlane {
    /// Every request of our service accounts so far, in the order of the answers; a watch counts when it begins.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn asked(&self) -> Result<Vec<Asked>> {
        let log = log(self.directory());
        let text = match fs::read_to_string(&log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", log.display()))?,
        };
        let mut known = BTreeSet::new();
        let mut asked = Vec::new();
        // The last line may not be whole yet.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Value = serde_json::from_str(line)?;
            if known.insert(event["auditID"].as_str().unwrap_or_default().to_owned()) {
                asked.push(read(&event));
            }
        }
        Ok(asked)
    }
}

fn read(event: &Value) -> Asked {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = &event["objectRef"];
    let subresource = of["subresource"].as_str().map(|name| format!("/{name}"));
    let user = text(&event["user"]["username"]);
    let account = user.strip_prefix(&format!("system:serviceaccount:{NAMESPACE}:"));
    Asked {
        account: account.unwrap_or(&user).to_owned(),
        verb: text(&event["verb"]),
        group: text(&of["apiGroup"]),
        resource: text(&of["resource"]) + &subresource.unwrap_or_default(),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        uri: text(&event["requestURI"]),
    }
}
