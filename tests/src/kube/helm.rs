//! A real helm, and the chart.

use super::{ControlPlane, programs::program};
use crate::lab::namespace::output_of;
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Folder of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/weir");
/// Name of every release.
const RELEASE: &str = "weir";

/// Runs helm, as the admin of a control plane.
#[derive(Clone, Debug)]
pub struct Helm<'a> {
    control_plane: &'a ControlPlane,
    program: PathBuf,
}

impl ControlPlane {
    /// helm.
    ///
    /// # Errors
    /// When there is none.
    pub fn helm(&self) -> Result<Helm<'_>> {
        Ok(Helm {
            control_plane: self,
            program: program("helm")?,
        })
    }
}

impl Helm<'_> {
    /// `helm VERB ... CHART` for the release in `namespace`, with further arguments; gives what it prints.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn release(&self, verb: &str, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut words = vec![verb, RELEASE];
        if verb != "uninstall" {
            words.push(CHART);
        }
        words.extend(["--namespace", namespace]);
        words.extend(arguments);
        self.run(&words)
    }

    /// `helm` with these arguments; gives what it prints.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        output_of(self.command().args(arguments)).with_context(|| format!("helm {arguments:?}"))
    }

    /// What is rendered for `namespace`.
    ///
    /// # Errors
    /// When helm refuses the values, or renders what is no YAML.
    pub fn render(&self, namespace: &str, arguments: &[&str]) -> Result<Manifests> {
        Manifests::read(&self.release("template", namespace, arguments)?)
    }

    /// `helm lint`, to which warnings are errors.
    ///
    /// # Errors
    /// When it finds something.
    pub fn lint(&self, arguments: &[&str]) -> Result<()> {
        self.run(&[&["lint", "--strict", CHART], arguments].concat()).map(drop)
    }

    fn command(&self) -> Command {
        let home = self.control_plane.directory().join("helm");
        let mut command = self.control_plane.namespace().command(&self.program.to_string_lossy());
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, home.join(folder));
        }
        command.env("KUBECONFIG", self.control_plane.kubectl().kubeconfig());
        command
    }
}

/// Objects of a file of manifests.
#[derive(Clone, Debug)]
pub struct Manifests(Vec<Value>);

impl Manifests {
    /// Reads a file of YAML documents.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
        Ok(Self(
            documents.into_iter().filter(|document| !document.is_null()).collect(),
        ))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When there is none, or it is not of YAML documents.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&text).with_context(|| format!("in {}", path.display()))
    }

    /// All objects, in order.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// The only object of a kind with this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn object(&self, kind: &str, name: &str) -> Result<&Value> {
        self.objects()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .with_context(|| format!("no {kind} {name}"))
    }

    /// As a `List`, for kubectl.
    pub fn list(&self) -> String {
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": self.0}).to_string()
    }
}
