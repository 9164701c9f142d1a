//! Wrong manifests, one mistake each, against a real API server with definitions, webhooks and the controller: each is refused, or
//! somebody is told what is wrong with it, and a good Service beside them keeps its address.
//!
//! `bad-input/base.yaml` is there before; of every other file there, each object is created, or, if it is there, changed. What is said
//! then is in the `.txt` file beside, in words: what people read is worth as much as what programs do. With `WEIR_BLESS=1` in
//! the environment these files are written instead of compared; read the difference before you keep it.

use crate::{cluster, controlled};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use tests::{
    kube::ControlPlane,
    lab::{Family, client, manifests, process::Process, wait},
};

/// Where `kubectl proxy` listens.
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8001);
/// The controller and the API server, in one namespace.
const CONTROLLER: [&str; 2] = ["--webhook-url", "https://127.0.0.1:9443"];
/// Who speaks for the controller.
const SPEAKER: &str = "OpenELBController";
/// Fewest manifests there have to be.
const FEWEST: usize = 60;

/// An object of a manifest.
struct Object {
    json: Value,
    /// Where objects of its kind are.
    collection: &'static str,
}

impl Object {
    fn read(text: &str) -> Result<Self> {
        let json: Value = serde_saphyr::from_str(text).with_context(|| text.to_owned())?;
        let word = |key: &str| json[key].as_str().unwrap_or_default();
        let collection = match (word("apiVersion"), word("kind")) {
            ("v1", "Service") => "/api/v1/namespaces/default/services",
            ("v1", "Node") => "/api/v1/nodes",
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

    fn name(&self) -> &str {
        self.json["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.json["kind"].as_str().unwrap_or_default()
    }
}

/// All objects of a file.
fn objects(file: &Path) -> Result<Vec<Object>> {
    let text = fs::read_to_string(file)?;
    text.split("\n---\n").map(Object::read).collect()
}

/// The API server, by `kubectl proxy`, which is told nothing that it would mend.
struct Api<'a> {
    control_plane: &'a ControlPlane,
    _proxy: Process,
}

/// What the API server answered.
struct Answer {
    status: u16,
    warnings: Vec<String>,
    body: Value,
}

impl<'a> Api<'a> {
    fn of(control_plane: &'a ControlPlane) -> Result<Self> {
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
            warnings: warnings.map(|text| text.trim_matches('"').to_owned()).collect(),
            body: serde_json::from_str(body).with_context(|| body.to_owned())?,
        })
    }

    /// Creates an object, or changes the one that is there.
    fn apply(&self, object: &Object) -> Result<Answer> {
        let created = self.ask("POST", object.collection, "application/json", &object.json)?;
        if created.status != 409 || created.body["reason"] != "AlreadyExists" {
            return Ok(created);
        }
        let path = format!("{}/{}", object.collection, object.name());
        self.ask("PATCH", &path, "application/merge-patch+json", &object.json)
    }

    /// The controller's warnings about objects, by kind and name, each once.
    fn warnings(&self) -> Result<BTreeMap<(String, String), BTreeSet<String>>> {
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
    fn wait_for_warnings(&self, about: &[&Object], last: &str) -> Result<BTreeMap<(String, String), BTreeSet<String>>> {
        let of = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        let silent = |warnings: &BTreeMap<(String, String), BTreeSet<String>>| -> Vec<String> {
            let all = about.iter().map(|object| of(object.kind(), object.name()));
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
            ensure!(warnings.contains_key(&of("Service", last.name())), "it is not said");
            Ok(warnings)
        })?;
        self.delete(&last)?;
        Ok(warnings)
    }

    fn delete(&self, object: &Object) -> Result<()> {
        let path = format!("{}/{}", object.collection, object.name());
        let answer = self.ask("DELETE", &path, "application/json", &Value::Null)?;
        ensure!(answer.status == 200, "{path}: {}", answer.body);
        wait::until("an object to be gone", || {
            let found = self.ask("GET", &path, "application/json", &Value::Null)?;
            ensure!(found.status == 404, "{path} is there");
            Ok(())
        })
    }

    /// What is said about each object of a file.
    fn judge(&self, file: &Path) -> Result<(String, usize)> {
        let objects = objects(file)?;
        let answers: Vec<Answer> = objects.iter().map(|object| self.apply(object)).collect::<Result<_>>()?;
        let taken = || objects.iter().zip(&answers).filter(|(_, answer)| answer.status < 300);
        let unwarned: Vec<&Object> = taken()
            .filter(|(_, answer)| answer.warnings.is_empty())
            .map(|(object, _)| object)
            .collect();
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let events = self.wait_for_warnings(&unwarned, &format!("last-of-{stem}"))?;
        let mut text = String::new();
        for (object, answer) in objects.iter().zip(&answers) {
            text += &format!("{} {}\n", object.kind(), object.name());
            if answer.status >= 300 {
                let message = answer.body["message"].as_str().unwrap_or_default();
                text += &format!("  refused: {}\n", message.replace('\n', "\n    "));
                continue;
            }
            for warning in &answer.warnings {
                text += &format!("  warned: {warning}\n");
            }
            for event in events
                .get(&(object.kind().into(), object.name().into()))
                .into_iter()
                .flatten()
            {
                text += &format!("  event: {event}\n");
            }
        }
        for (object, _) in taken() {
            self.delete(object)?;
        }
        Ok((text, objects.len()))
    }
}

/// The first line that differs.
fn difference(file: &Path, now: &str) -> Option<String> {
    let recorded = fs::read_to_string(file).unwrap_or_default();
    let longest = recorded.lines().count().max(now.lines().count());
    let line = |text: &str, at: usize| text.lines().nth(at).unwrap_or("(end)").to_owned();
    let at = (0..longest).find(|at| line(&recorded, *at) != line(now, *at))?;
    Some(format!(
        "{}, line {}\n  recorded: {}\n  now:      {}",
        file.display(),
        at + 1,
        line(&recorded, at),
        line(now, at)
    ))
}

/// How many manifests were tried, and what is not as recorded.
#[derive(Default)]
struct Outcome {
    count: usize,
    differences: Vec<String>,
}

impl Outcome {
    /// Tries those of a file.
    fn judge(&mut self, api: &Api<'_>, file: &Path) -> Result<()> {
        let (text, judged) = api.judge(file).with_context(|| format!("{}", file.display()))?;
        self.count += judged;
        let golden = file.with_extension("txt");
        if env::var_os("WEIR_BLESS").is_some_and(|value| value == "1") {
            fs::write(&golden, text)?;
        } else {
            self.differences.extend(difference(&golden, &text));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.differences.is_empty(),
            "{}\nIf that is what you mean to change: WEIR_BLESS=1 cargo test -p tests --test kube bad_input, and read the difference.",
            self.differences.join("\n")
        );
        Ok(())
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bad-input")
}

#[test]
fn each_wrong_manifest_is_refused_or_explained_and_the_good_ones_are_served() -> Result<()> {
    let folder = folder();
    let cluster = controlled::Cluster::new()?;
    let api = Api::of(&cluster.control_plane)?;
    let base = folder.join("base.yaml");
    for object in objects(&base)? {
        let answer = api.apply(&object)?;
        ensure!(answer.status == 201, "{}: {}", object.name(), answer.body);
    }
    let address = json!({"addresses": [{"type": "InternalIP", "address": "10.250.0.1"}]});
    cluster.kubectl().patch_status("node node-a", &address)?;
    let mut controller = cluster.start_with("only", &CONTROLLER)?;
    for (service, address) in [("good", "10.10.1.7"), ("fills", "10.10.3.1"), ("holds", "10.10.4.200")] {
        cluster.shows(service, Some(address))?;
    }
    let asked = Object::read(
        "{apiVersion: network.kubesphere.io/v1alpha2, kind: Eip, metadata: {name: asked}, spec: {address: 10.10.1.0}}",
    )?;
    wait::until("the API server to ask the webhook", || {
        let answer = api.apply(&asked)?;
        if answer.status < 300 {
            api.delete(&asked)?;
        }
        ensure!(answer.status == 403, "{}", answer.body);
        Ok(())
    })?;
    let good = cluster.kubectl().get("service good")?;

    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|it| it == "yaml") && *file != base);
    files.sort();
    let mut outcome = Outcome::default();
    for file in files {
        outcome.judge(&api, &file)?;
        // Not written even once.
        let now = cluster.kubectl().get("service good")?;
        ensure!(now == good, "{now}");
    }
    ensure!(outcome.count >= FEWEST, "there are but {} manifests", outcome.count);
    outcome.check()?;
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

#[test]
fn what_only_nodes_find_wrong_is_told_and_the_good_service_answers() -> Result<()> {
    cluster::Cluster::play(|cluster| {
        let kubeconfig = cluster.control_plane.give_controller_rights()?;
        let _controller = cluster
            .control_plane
            .start_controller(&kubeconfig, "only", &["--no-webhook"])?;
        cluster.start_agents()?;
        let kubectl = cluster.control_plane.kubectl();
        let good = manifests::Service::new("good").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&good.with(cluster.lab.pods()))?;
        let answers = || cluster.answered_by(Family::V4, 0, &cluster.pods());
        answers()?;
        let file = folder().join("nodes/policies.yaml");
        let endpoints = objects(&file)?
            .iter()
            .filter(|object| object.name() != "endpoints-none")
            .map(|object| {
                let service = manifests::Service::new(object.name()).from_eip("lan-ipv4", Family::V4);
                service.endpoints(cluster.lab.pods())
            })
            .collect::<String>();
        kubectl.apply(&endpoints)?;
        let api = Api::of(&cluster.control_plane)?;
        let mut outcome = Outcome::default();
        outcome.judge(&api, &file)?;
        answers()?;
        outcome.check()
    })
}
