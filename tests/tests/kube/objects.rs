//! Making objects of our kinds, and what the API server says about them.

use anyhow::{Error, Result, bail, ensure};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::OnceLock};
use tests::kube::{self, ControlPlane, Kubectl};

/// The control plane all tests share, with our definitions.
pub fn control_plane() -> Result<&'static ControlPlane> {
    static APPLIED: OnceLock<Result<(), String>> = OnceLock::new();
    let control_plane = kube::shared()?;
    // Once, whoever is first: of two that create one definition at a time, one fails.
    let applied = APPLIED.get_or_init(|| control_plane.apply_definitions().map_err(|error| format!("{error:#}")));
    applied.clone().map_err(Error::msg)?;
    Ok(control_plane)
}

/// A manifest of version v1alpha2 with this `spec`, in YAML's flow style.
pub fn manifest(kind: &str, name: &str, spec: &str) -> String {
    of_version("v1alpha2", kind, name, spec)
}

/// The same of a version.
pub fn of_version(version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: network.kubesphere.io/{version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

/// Whether the API server would take each of these (`spec`, words of the refusal; none if it is to be taken).
pub fn check(kubectl: &Kubectl, version: &str, kind: &str, cases: &[(&str, &[&str])]) -> Result<()> {
    let name = |index: usize| format!("case-{index}");
    let manifests: String = cases
        .iter()
        .enumerate()
        .map(|(index, (spec, _))| of_version(version, kind, &name(index), spec))
        .collect();
    let refusals = match kubectl.run_with("create --dry-run=server", &manifests) {
        Ok(_) => BTreeMap::new(),
        Err(error) => refusals(&format!("{error:#}")),
    };
    for (index, (spec, words)) in cases.iter().enumerate() {
        match refusals.get(&name(index)) {
            None => ensure!(words.is_empty(), "{kind} {spec} was accepted"),
            Some(said) => {
                ensure!(!words.is_empty(), "{kind} {spec}: {said}");
                for word in *words {
                    ensure!(said.contains(word), "{kind} {spec}: `{word}` is not in: {said}");
                }
            }
        }
    }
    Ok(())
}

/// What kubectl says about each refused object, by name: `... "NAME" is invalid: ...`, until the next one.
fn refusals(text: &str) -> BTreeMap<String, String> {
    let mut parts = text.split("\" is invalid: ");
    let mut name = parts.next().and_then(last_quoted);
    let mut refusals = BTreeMap::new();
    for part in parts {
        refusals.extend(name.map(|name| (name, part.to_owned())));
        name = last_quoted(part);
    }
    refusals
}

/// What is behind the last quotation mark.
fn last_quoted(text: &str) -> Option<String> {
    text.rsplit_once('"').map(|(_, name)| name.to_owned())
}

/// An object's `spec`.
pub fn spec(kubectl: &Kubectl, what: &str) -> Result<Value> {
    Ok(kubectl.get(what)?["spec"].clone())
}

/// What the API server says when it refuses this patch of `spec`.
pub fn patch_refusal(kubectl: &Kubectl, what: &str, spec: &Value) -> Result<String> {
    match kubectl.patch(what, &json!({ "spec": spec })) {
        Ok(()) => bail!("{what} could be changed to {spec}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}
