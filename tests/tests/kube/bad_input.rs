//! Wrong manifests, one mistake each, against a real API server with definitions, webhooks and the controller: each is refused, or
//! somebody is told what is wrong with it, and a good Service beside them keeps its address.
//!
//! `bad-input/base.yaml` is there before; of every other file there, each object is created, or, if it is there, changed. What is said
//! then, as a refusal, a warning, an event or a condition, is in the `.txt` file beside, in words: what people read is worth as much as
//! what programs do. That no field is missing is for [`complete`] to see. With `WEIR_BLESS=1` in the environment these files are
//! written instead of compared; read the difference before you keep it.

mod api;
mod complete;

use crate::{cluster, controlled};
use anyhow::{Context, Result, ensure};
use api::{Answer, Api, Object, objects};
use serde_json::json;
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};
use tests::lab::{Family, client, manifests, wait};

/// The controller and the API server, in one namespace.
const CONTROLLER: [&str; 2] = ["--webhook-url", "https://127.0.0.1:9443"];
/// Fewest manifests there have to be.
const FEWEST: usize = 60;
/// After so long all is said that is said at all: longer than a controller waits for nodes that say nothing.
const LATE: Duration = Duration::from_secs(20);

/// What is said about each object of a file; waits until that is as recorded, or for what is said late.
fn judge(api: &Api<'_>, file: &Path) -> Result<(String, usize)> {
    let objects = objects(file)?;
    let answers: Vec<Answer> = objects.iter().map(|object| api.apply(object)).collect::<Result<_>>()?;
    let taken = || objects.iter().zip(&answers).filter(|(_, answer)| answer.status < 300);
    // Of what the webhook warns of an Eip, the controller warns, too.
    let warned: Vec<&Object> = taken()
        .filter(|(object, answer)| answer.warnings.is_empty() || object.kind() == "Eip")
        .map(|(object, _)| object)
        .collect();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let events = api.wait_for_warnings(&warned, &format!("last-of-{stem}"))?;
    let said = || -> Result<String> {
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
            for event in events.get(&object.told_of()).into_iter().flatten() {
                text += &format!("  event: {event}\n");
            }
            text += &api.conditions(object)?;
        }
        Ok(text)
    };
    let text = if is_blessing() {
        thread::sleep(LATE);
        said()?
    } else {
        let mut last = String::new();
        let as_recorded = wait::until("what is recorded", || {
            last = said()?;
            ensure!(difference(&golden(file), &last).is_none());
            Ok(())
        });
        // How it differs is told for all files at once.
        drop(as_recorded);
        last
    };
    for (object, _) in taken() {
        api.delete(object)?;
    }
    Ok((text, objects.len()))
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
        let (text, judged) = judge(api, file).with_context(|| format!("{}", file.display()))?;
        self.count += judged;
        let golden = golden(file);
        if is_blessing() {
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

/// What is recorded about the manifests of a file.
fn golden(file: &Path) -> PathBuf {
    file.with_extension("txt")
}

fn is_blessing() -> bool {
    env::var_os("WEIR_BLESS").is_some_and(|value| value == "1")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bad-input")
}

/// What comes to the controller, but for what is there before.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files: Vec<PathBuf> = files.collect::<Result<_>>()?;
    let base = folder.join("base.yaml");
    files.retain(|file| file.extension().is_some_and(|it| it == "yaml") && *file != base);
    files.sort();
    Ok(files)
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

    let mut outcome = Outcome::default();
    for file in files(&folder)? {
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

/// Runs `act` in a cluster with agents and a controller, whose webhook refuses nothing.
fn with_agents(act: impl FnOnce(&mut cluster::Cluster) -> Result<()>) -> Result<()> {
    cluster::Cluster::play(|cluster| {
        let kubeconfig = cluster.control_plane.give_controller_rights()?;
        let _controller = cluster
            .control_plane
            .start_controller(&kubeconfig, "only", &["--no-webhook"])?;
        cluster.start_agents()?;
        act(cluster)
    })
}

#[test]
fn what_only_nodes_find_wrong_is_told_and_the_good_service_answers() -> Result<()> {
    with_agents(|cluster| {
        let kubectl = cluster.control_plane.kubectl();
        let good = manifests::Service::new("good").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&good.with(cluster.lab.pods()))?;
        let answers = || cluster.answered_by(Family::V4, 0, &cluster.pods());
        answers()?;
        let file = folder().join("nodes/policies.yaml");
        let endpoints = objects(&file)?
            .iter()
            .filter(|object| object.kind() == "Service" && object.name() != "endpoints-none")
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

/// All of it with agents that are to make something of it, and no webhook that would refuse any.
#[test]
fn a_service_is_served_whatever_agents_are_given() -> Result<()> {
    with_agents(|cluster| {
        let kubectl = cluster.control_plane.kubectl();
        let service = |name: &str| manifests::Service::new(name).from_eip("served", Family::V4);
        // The addresses of these are those of the corpus.
        kubectl.run("delete eip lan-ipv4 lan-ipv6")?;
        kubectl.apply(&manifests::eip("served", "10.10.1.64/26"))?;
        kubectl.apply(&service("before").with(cluster.lab.pods()))?;
        cluster.answered_by(Family::V4, 64, &cluster.pods())?;

        let folder = folder();
        let api = Api::of(&cluster.control_plane)?;
        let (stop, answers, lab) = (AtomicBool::new(false), AtomicUsize::new(0), &cluster.lab);
        // After each object that is taken the client has an answer.
        let give = |file: &Path| -> Result<usize> {
            let mut taken = 0;
            for object in objects(file)? {
                taken += usize::from(api.apply(&object)?.status < 300);
                let before = answers.load(Ordering::Relaxed);
                wait::until("an answer", || {
                    ensure!(answers.load(Ordering::Relaxed) > before, "none after {}", object.name());
                    Ok(())
                })?;
            }
            Ok(taken)
        };
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                lab.client.run(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let before = answers.load(Ordering::Relaxed);
                        client::ask(cluster::Cluster::http(Family::V4, 64))
                            .with_context(|| format!("after {before} answers"))?;
                        answers.store(before + 1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(10));
                    }
                    Ok(())
                })
            });
            let given = give(&folder.join("base.yaml")).and_then(|_| {
                let files = files(&folder)?.into_iter().chain([folder.join("nodes/policies.yaml")]);
                files.map(|file| give(&file)).sum::<Result<usize>>()
            });
            stop.store(true, Ordering::Relaxed);
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let given = given?;
            ensure!(given >= FEWEST, "{given} manifests are taken");
            Ok(())
        })?;
        // What comes after it all is served, too.
        kubectl.apply(&service("after").with(cluster.lab.pods()))?;
        cluster.answered_by(Family::V4, 65, &cluster.pods())?;
        cluster.answered_by(Family::V4, 64, &cluster.pods())?;
        for at in 0..cluster.agents.len() {
            ensure!(cluster.agents[at].is_running()? && cluster.said(at, "panicked") == 0);
        }
        Ok(())
    })
}
