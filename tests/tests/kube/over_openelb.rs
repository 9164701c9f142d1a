//! Weir installed over what OpenELB's installation leaves: definitions that kubectl has made, or helm out of a chart's folder `crds`,
//! and a release.

use crate::{
    deploy::{MANIFESTS, NAMESPACE},
    openelb::definitions,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tests::{
    kube::{CHART, ControlPlane, wait_for_definitions},
    lab::manifests,
};

const OPENELB: &str = "openelb-system";
const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");

/// A chart with what OpenELB's has: definitions in its folder `crds`, a DaemonSet and a Deployment.
fn write_chart(control_plane: &ControlPlane) -> Result<PathBuf> {
    let folder = control_plane.directory().join("openelb");
    for part in ["crds", "templates"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(
        folder.join("Chart.yaml"),
        "{apiVersion: v2, name: openelb, version: 0.6.1, appVersion: 0.6.0}",
    )?;
    let list: Value = serde_json::from_str(&definitions())?;
    for (at, definition) in list["items"].as_array().into_iter().flatten().enumerate() {
        fs::write(folder.join(format!("crds/{at}.yaml")), definition.to_string())?;
    }
    for (kind, component) in [("DaemonSet", "speaker"), ("Deployment", "controller")] {
        let name = format!("openelb-{component}");
        let labels = json!({"component": component});
        let container = json!({"name": name, "image": format!("mirror.example/{component}:v1")});
        let workload = json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        });
        fs::write(folder.join(format!("templates/{component}.yaml")), workload.to_string())?;
    }
    Ok(folder)
}

/// How OpenELB's definitions came to be there, which says who has their fields.
#[derive(Clone, Copy, Debug)]
enum Made {
    ByKubectl,
    ByHelm,
}

/// A control plane with OpenELB's definitions and an Eip.
fn with_openelb(made: Made) -> Result<ControlPlane> {
    let control_plane = ControlPlane::start()?;
    let kubectl = control_plane.kubectl();
    match made {
        Made::ByKubectl => kubectl.apply(&definitions()).map(drop)?,
        Made::ByHelm => {
            let chart = write_chart(&control_plane)?;
            let chart = chart.to_string_lossy();
            let arguments = [
                "install",
                "openelb",
                &chart,
                "--namespace",
                OPENELB,
                "--create-namespace",
            ];
            control_plane.helm()?.run(&arguments)?;
        }
    }
    wait_for_definitions(kubectl)?;
    kubectl.apply(&manifests::eip("pool", "10.10.1.0/24"))?;
    Ok(control_plane)
}

/// What `change` does has definitions become Weir's, and leaves the Eip as it is.
fn takes_over(control_plane: &ControlPlane, change: impl FnOnce() -> Result<String>) -> Result<()> {
    let kubectl = control_plane.kubectl();
    let eip = || kubectl.run("get eip pool -o json --show-managed-fields");
    let before = eip()?;
    change()?;
    for (plural, of_weir) in [
        ("eips", "resizable"),
        ("bgpconfs", "x-kubernetes-validations"),
        ("bgppeers", "x-kubernetes-validations"),
    ] {
        let definition = kubectl.get(&format!("customresourcedefinition {plural}.network.kubesphere.io"))?;
        let versions = &definition["spec"]["versions"];
        ensure!(versions.to_string().contains(of_weir), "{plural}: {versions}");
    }
    ensure!(eip()? == before, "{} was {before}", eip()?);
    Ok(())
}

/// [G01] By the documented commands. Without their flags the release is refused: nobody's definitions are not helm's, and kubectl has
/// the fields of those that it made.
#[test]
fn g01_openelbs_definitions_are_taken_over_whoever_made_them() -> Result<()> {
    for made in [Made::ByKubectl, Made::ByHelm] {
        let of = || format!("made {made:?}");
        let control_plane = with_openelb(made)?;
        let helm = control_plane.helm()?;
        let install = |flags: &[&str]| helm.release("install", NAMESPACE, &[&["--create-namespace"], flags].concat());
        let refused = |flags: &[&str]| {
            install(flags)
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default()
        };
        let message = refused(&[]);
        ensure!(message.contains("invalid ownership metadata"), "{made:?}: {message}");
        if matches!(made, Made::ByKubectl) {
            let message = refused(&["--take-ownership"]);
            ensure!(
                message.contains("conflict with \"kubectl-client-side-apply\""),
                "{message}"
            );
            // What of it is there by then is a release.
            helm.release("uninstall", NAMESPACE, &[])?;
        }
        takes_over(&control_plane, || install(&["--take-ownership", "--force-conflicts"])).with_context(of)?;
        helm.release("upgrade", NAMESPACE, &[]).with_context(of)?;

        let control_plane = with_openelb(made)?;
        let command = format!("apply --server-side --force-conflicts -f {DEFINITIONS} -f {MANIFESTS}");
        takes_over(&control_plane, || control_plane.kubectl().run(&command)).with_context(of)?;
    }
    Ok(())
}

/// [G01] An upgrade of OpenELB's own release is refused, with any flags, and leaves it as it is; Weir's own beside it is not.
#[test]
fn g01_the_release_of_openelb_is_not_upgraded_to_weir() -> Result<()> {
    let control_plane = with_openelb(Made::ByHelm)?;
    let (kubectl, helm) = (control_plane.kubectl(), control_plane.helm()?);
    let flags = ["--namespace", OPENELB, "--take-ownership", "--force-conflicts"];
    let refused = helm.run(&[&["upgrade", "openelb", CHART], &flags[..]].concat());
    let message = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(message.contains("the release openelb is OpenELB's"), "{message}");
    for workload in ["daemonset openelb-speaker", "deployment openelb-controller"] {
        kubectl.get(&format!("{workload} -n {OPENELB}"))?;
    }
    helm.release("install", OPENELB, &["--take-ownership", "--force-conflicts"])?;
    helm.release("upgrade", OPENELB, &[]).map(drop)
}
