//! The control plane itself does what the other tests rely on.

use anyhow::{Context, Result, ensure};
use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};
use tests::{
    kube::{self, ControlPlane},
    lab::{process::Process, remains, wait},
};

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: {value}}}\n")
}

fn value_of(control_plane: &ControlPlane, name: &str) -> Result<String> {
    let object = control_plane.kubectl().get(&format!("configmap {name}"))?;
    Ok(object["data"]["key"].as_str().context("no value")?.to_owned())
}

#[test]
fn comes_up_and_leaves_nothing() -> Result<()> {
    let mut control_plane = ControlPlane::start()?;
    ensure!(control_plane.is_running()?);
    let version: serde_json::Value = serde_json::from_str(&control_plane.kubectl().run("get --raw /version")?)?;
    let git = version["gitVersion"].as_str().context("no version")?;
    ensure!(git.starts_with("v1."), "{git}");

    let (namespace, directory) = (control_plane.namespace().path(), control_plane.directory().to_owned());
    let inside = |namespace: &Path| {
        let output = Command::new("ip")
            .args(["netns", "pids"])
            .arg(namespace.file_name().unwrap_or_default())
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).lines().count())
    };
    ensure!(inside(&namespace)? == 3, "{} programs run", inside(&namespace)?);
    drop(control_plane);
    ensure!(!namespace.exists() && !directory.exists());
    let lab = directory.parent().context("no folder of the lab")?;
    ensure!(!lab.exists(), "{} is left", lab.display());
    Ok(())
}

#[test]
fn what_fails_half_way_leaves_nothing() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let (namespace, directory) = (control_plane.namespace().path(), control_plane.directory().to_owned());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _owned = control_plane;
        panic!("as a test that fails");
    }));
    ensure!(panicked.is_err());
    ensure!(!namespace.exists() && !directory.exists());
    Ok(())
}

#[test]
fn what_is_applied_is_read_back() -> Result<()> {
    let control_plane = kube::shared()?;
    let kubectl = control_plane.kubectl();
    kubectl.apply(&config_map("round-trip", "one"))?;
    ensure!(value_of(control_plane, "round-trip")? == "one");
    kubectl.apply(&config_map("round-trip", "two"))?;
    ensure!(value_of(control_plane, "round-trip")? == "two");
    kubectl.run("delete configmap round-trip")?;
    ensure!(kubectl.get("configmap round-trip").is_err());
    let refused = kubectl
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {type: Wrong, ports: [{port: 1}]}\n");
    let message = format!("{:#}", refused.unwrap_err());
    ensure!(message.contains("spec.type"), "{message}");
    Ok(())
}

#[test]
fn changes_are_watched() -> Result<()> {
    let control_plane = kube::shared()?;
    let kubectl = control_plane.kubectl();
    kubectl.run("create namespace watched")?;
    kubectl.run("create configmap first -n watched")?;
    let mut command = kubectl.command();
    command.args([
        "get",
        "configmaps",
        "-n",
        "watched",
        "--watch",
        "--output-watch-events",
        "-o",
        "jsonpath={.type} {.object.metadata.name}{'\\n'}",
    ]);
    let mut watch = Process::start(
        command,
        "kubectl get --watch",
        &control_plane.directory().join("watch.log"),
    )?;
    // From then on the watch is known to have begun.
    watch.wait_until("the first event", || {
        ensure!(watch_says(control_plane, "ADDED first")?, "nothing yet");
        Ok(())
    })?;
    kubectl.run("create configmap seen -n watched --from-literal=key=one")?;
    kubectl.run("delete configmap seen -n watched")?;
    watch.wait_until("the events", || {
        ensure!(
            watch_says(control_plane, "ADDED seen")? && watch_says(control_plane, "DELETED seen")?,
            "not yet"
        );
        Ok(())
    })?;
    watch.kill()?;
    // The namespace controller is at work, too.
    kubectl.run("delete namespace watched")?;
    Ok(())
}

fn watch_says(control_plane: &ControlPlane, line: &str) -> Result<bool> {
    Ok(fs::read_to_string(control_plane.directory().join("watch.log"))?
        .lines()
        .any(|it| it == line))
}

#[test]
fn a_service_account_has_its_rights_and_no_more() -> Result<()> {
    let control_plane = kube::shared()?;
    let kubectl = control_plane.kubectl();
    kubectl.run("create serviceaccount reader -n default")?;
    kubectl.run("create clusterrole reader --verb=get,list --resource=services")?;
    kubectl.run("create clusterrolebinding reader --clusterrole=reader --serviceaccount=default:reader")?;
    let reader = control_plane.kubectl_as("default", "reader")?;
    // Rights are cached for moments.
    wait::until("the right to list Services", || reader.get("services -A"))?;
    for (line, forbidden) in [
        ("get secrets -A", "secrets is forbidden"),
        ("delete service kubernetes", "cannot delete resource \"services\""),
    ] {
        let message = format!("{:#}", reader.run(line).unwrap_err());
        ensure!(message.contains("system:serviceaccount:default:reader"), "{message}");
        ensure!(message.contains(forbidden), "{message}");
    }
    Ok(())
}

#[test]
fn an_outage_of_the_api_server_loses_nothing() -> Result<()> {
    let mut control_plane = ControlPlane::start()?;
    control_plane.kubectl().apply(&config_map("kept", "one"))?;
    control_plane.stop_api_server()?;
    ensure!(!control_plane.is_running()?);
    ensure!(control_plane.kubectl().get("configmap kept").is_err());
    control_plane.start_api_server()?;
    ensure!(value_of(&control_plane, "kept")? == "one");
    control_plane.kubectl().apply(&config_map("kept", "two"))?;
    ensure!(value_of(&control_plane, "kept")? == "two");
    // The controllers have been through it, too: they make what every namespace gets.
    control_plane.kubectl().run("create namespace later")?;
    wait::until("the controllers to go on", || {
        control_plane.kubectl().get("serviceaccount default -n later")
    })?;
    ensure!(control_plane.is_running()?);
    Ok(())
}

/// One after the other, and both at once, in one process.
#[test]
fn there_may_be_several() -> Result<()> {
    let (mut one, mut other) = (ControlPlane::start()?, ControlPlane::start()?);
    one.kubectl().apply(&config_map("mine", "one"))?;
    ensure!(other.kubectl().get("configmap mine").is_err());
    drop(one);
    one = ControlPlane::start()?;
    ensure!(one.kubectl().get("configmap mine").is_err());
    ensure!(one.is_running()? && other.is_running()?);
    Ok(())
}

/// A run that was killed has left its control plane behind; the next one takes it away.
#[test]
fn what_was_killed_is_swept() -> Result<()> {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_kube"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(killed.stdout.take().context("no output")?).lines();
    let up = said.any(|line| line.is_ok_and(|line| line.contains("An interrupt ends it")));
    let prefix = format!("weir-lab-{}-", killed.id());
    let left = || -> Result<usize> {
        let all = fs::read_dir("/run/netns")?
            .chain(fs::read_dir(env::temp_dir())?)
            .flatten();
        Ok(all
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .count())
    };
    // Before it is dead: from then on every lab that begins sweeps it, also those of tests beside this one.
    ensure!(up && left()? == 2, "it came up: {up}, and has {}", left()?);
    killed.kill()?;
    killed.wait()?;
    remains::sweep();
    ensure!(left()? == 0);
    Ok(())
}
