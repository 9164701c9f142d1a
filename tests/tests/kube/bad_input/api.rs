//! Manifests, and the API server that they are given to.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};
use tests::{
    kube::ControlPlane,
    lab::{client, process::Process, wait},
};

/// Where `kubectl proxy` listens.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8001);
/// Who speaks for the controller.
const SPEAKER: &str = "OpenELBController";

/// An object of a manifest.
pub(super) struct Object {
    pub(super) json: Value,
    /// Where objects of its kind are.
    pub(super) collection: &'static str,
}

impl Object {
    pub(super) fn read(text: &str) -> Result<Self> {
        let json: Value = serde_saphyr::from_str(text).with_context(|| text.to_owned())?;
        let word = |key: &str| json[key].as_str().unwrap_or_default();
        let collection = match (word("apiVersion"), word("kind")) {
            ("v1", "Service") => "/api/v1/namespaces/default/services",
            ("v1", "Node") => "/api/v1/nodes",
            ("discovery.k8s.io/v1", "EndpointSlice") => "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            ("network.kubesphere.io/v1alpha1", "Eip") => "/apis/network.kubesphere.io/v1alpha1/eips",
            ("network.kubesphere.io/v1alpha2", "Eip") => "/apis/network.kubesphere.io/v1alpha2/eips",
            ("network.kubesphere.io/v1alpha1", "BgpConf") => "/apis/network.kubesphere.io/v1alpha1/bgpconfs",
            ("network.kubesphere.io/v1alpha2", "BgpConf") => "/apis/network.kubesphere.io/v1alpha2/bgpconfs",
            ("network.kubesphere.io/v1alpha1", "BgpPeer") => "/apis/network.kubesphere.io/v1alpha1/bgppeers",
            ("network.kubesphere.io/v1alpha2", "BgpPeer") => "/apis/network.kubesphere.io/v1alpha2/bgppeers",
            (version, kind) => bail!("{kind} of {version} is not known here"),
        };
        Ok(Self { json, collection })
    }

    pub(super) fn name(&self) -> &str {
        self.json["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(super) fn kind(&self) -> &str {
        self.json["kind"].as_str().unwrap_or_default()
    }

    /// Kind and name of the object of which is told what is wrong with this one: of a slice its Service.
    pub(super) fn told_of(&self) -> (String, String) {
        let service = &self.json["metadata"]["labels"]["kubernetes.io/service-name"];
        match service.as_str().filter(|_| self.kind() == "EndpointSlice") {
            Some(service) => ("Service".to_owned(), service.to_owned()),
            None => (self.kind().to_owned(), self.name().to_owned()),
        }
    }
}

/// All objects of a file.
pub(super) fn objects(file: &Path) -> Result<Vec<Object>> {
    let text = fs::read_to_string(file)?;
    text.split("\n---\n").map(Object::read).collect()
}

/// The text of a quoted string (RFC 9110, section 5.6.4).
fn unquoted(text: &str) -> String {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    text.unwrap_or_default().replace("\\\"", "\"").replace("\\\\", "\\")
}

/// The API server, by `kubectl proxy`, which is told nothing that it would mend.
pub(super) struct Api<'a> {
    control_plane: &'a ControlPlane,
    _proxy: Process,
}

/// What the API server answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) warnings: Vec<String>,
    pub(super) body: Value,
}

impl<'a> Api<'a> {
    pub(super) fn of(control_plane: &'a ControlPlane) -> Result<Self> {
        let mut command = control_plane.kubectl().command();
        command.args(["proxy", "--port", &PROXY.port().to_string()]);
        let log = control_plane.directory().join("proxy.log");
        let mut proxy = Process::start(command, "kubectl proxy", &log)?;
        let namespace = control_plane.namespace();
        proxy.wait_until("the proxy", || namespace.run(|| client::connect(PROXY).map(drop)))?;
        Ok(Self {
            control_plane,
            _proxy: proxy,
        })
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Answer> {
        let body = body.to_string();
        // Version 1.0, so that the answer ends with the connection.
        let request = format!(
            "{method} {path}?fieldValidation=Strict HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let text = self.control_plane.namespace().run(|| {
            let mut connection = client::connect(PROXY)?;
            connection.write_all(request.as_bytes())?;
            let mut text = String::new();
            connection.read_to_string(&mut text)?;
            Ok(text)
        })?;
        let (head, body) = text
            .split_once("\r\n\r\n")
            .context("an answer without an end of its head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let warnings = head.lines().filter_map(|line| line.strip_prefix("Warning: 299 - "));
        Ok(Answer {
            status: status.with_context(|| head.to_owned())?,
            warnings: warnings.map(unquoted).collect(),
            body: serde_json::from_str(body).with_context(|| body.to_owned())?,
        })
    }

    /// Creates an object, or changes the one that is there.
    pub(super) fn apply(&self, object: &Object) -> Result<Answer> {
        let created = self.ask("POST", object.collection, "application/json", &object.json)?;
        if created.status != 409 || created.body["reason"] != "AlreadyExists" {
            return Ok(created);
        }
        let path = format!("{}/{}", object.collection, object.name());
        self.ask("PATCH", &path, "application/merge-patch+json", &object.json)
    }

    /// The controller's warnings about objects, by kind and name, each once.
    pub(super) fn warnings(&self) -> Result<BTreeMap<(String, String), BTreeSet<String>>> {
        let events = self
            .ask("GET", "/api/v1/events", "application/json", &Value::Null)?
            .body;
        let mut warnings: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for event in events["items"].as_array().into_iter().flatten() {
            // The API server, too, has something to say at times.
            if event["type"] == "Warning" && event["reportingComponent"] == SPEAKER {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let about = &event["involvedObject"];
                warnings
                    .entry((text(&about["kind"]), text(&about["name"])))
                    .or_default()
                    .insert(format!("{}: {}", text(&event["reason"]), text(&event["message"])));
            }
        }
        Ok(warnings)
    }

    /// Waits until everything that there is to say about these objects has been said.
    pub(super) fn wait_for_warnings(
        &self,
        about: &[&Object],
        last: &str,
    ) -> Result<BTreeMap<(String, String), BTreeSet<String>>> {
        let silent = |warnings: &BTreeMap<(String, String), BTreeSet<String>>| -> Vec<String> {
            let all = about.iter().map(|object| object.told_of());
            all.filter(|key| !warnings.contains_key(key))
                .map(|(kind, name)| format!("{kind} {name}"))
                .collect()
        };
        wait::until("a word on each object that was taken", || {
            let silent = silent(&self.warnings()?);
            ensure!(silent.is_empty(), "nothing is said about {}", silent.join(", "));
            Ok(())
        })?;
        // Whatever there is to say is said in order, so what is said about this comes after all of it.
        let last = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": last, "annotations": {"lb.kubesphere.io/v1alpha1": "openelb",
                "eip.openelb.kubesphere.io/v1alpha2": "nowhere"}},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        let last = Object::read(&last.to_string())?;
        let answer = self.apply(&last)?;
        ensure!(answer.status == 201, "{}", answer.body);
        let warnings = wait::until("the last word", || {
            let warnings = self.warnings()?;
            ensure!(warnings.contains_key(&last.told_of()), "it is not said");
            Ok(warnings)
        })?;
        self.delete(&last)?;
        Ok(warnings)
    }

    pub(super) fn delete(&self, object: &Object) -> Result<()> {
        let path = format!("{}/{}", object.collection, object.name());
        let answer = self.ask("DELETE", &path, "application/json", &Value::Null)?;
        ensure!(answer.status == 200, "{path}: {}", answer.body);
        wait::until("an object to be gone", || {
            let found = self.ask("GET", &path, "application/json", &Value::Null)?;
            ensure!(found.status == 404, "{path} is there");
            Ok(())
        })
    }

    /// What an object's status says of it, and of what is wrong with it; times are left out.
    pub(super) fn conditions(&self, object: &Object) -> Result<String> {
        let path = format!("{}/{}", object.collection, object.name());
        let now = self.ask("GET", &path, "application/json", &Value::Null)?.body;
        let conditions = now["status"]["conditions"].as_array().into_iter().flatten();
        let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        let lines = conditions.map(|it| {
            let [kind, status, reason, message] = ["type", "status", "reason", "message"].map(|key| text(it, key));
            format!("  condition: {kind} {status}: {reason}: {message}\n")
        });
        Ok(lines.collect())
    }
}
