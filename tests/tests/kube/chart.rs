//! The chart and the plain manifests, by a real helm and a real API server.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{fs, process::Command};
use tests::{
    kube::{ControlPlane, Kubectl, Manifests},
    lab::{agent, manifests, wait},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const NAMESPACE: &str = "weir-system";
/// Kind and name of what has pods.
const WORKLOADS: [(&str, &str); 2] = [("DaemonSet", "weir-agent"), ("Deployment", "weir-controller")];

/// What a cluster with Prometheus' operator has; of its ServiceMonitors the tests need no more than that they are taken.
pub const SERVICE_MONITORS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: ServiceMonitor, plural: servicemonitors, singular: servicemonitor}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

fn values(name: &str) -> String {
    format!("--values={ROOT}/tests/values/{name}.yaml")
}

/// [G01 G02 G03] By default, with as little as there can be, with every value another, and with values for OpenELB's chart.
#[test]
fn g01_what_the_chart_renders_is_taken_by_the_api_server() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let kubectl = control_plane.kubectl();
    let helm = control_plane.helm()?;
    kubectl.apply(SERVICE_MONITORS)?;
    for name in ["default", "minimal", "everything", "openelb"] {
        let values: Vec<String> = (name != "default").then(|| values(name)).into_iter().collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        helm.lint(&values)?;
        let namespace = format!("of-{name}");
        // One that `createNamespace` makes is among what is rendered; kubectl takes the two for one.
        kubectl.run_with(
            "apply --server-side",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string(),
        )?;
        let with_operator = [&values[..], &["--api-versions=monitoring.coreos.com/v1/ServiceMonitor"]].concat();
        let rendered = helm.render(&namespace, &with_operator)?;
        kubectl.run_with(
            "apply --server-side --force-conflicts --validate=strict",
            &rendered.list(),
        )?;
        pods_are_admitted(kubectl, &rendered, &namespace)?;
        arguments_are_known(&rendered)?;
        what_is_checked_is_what_will_run(&rendered)?;
    }
    Ok(())
}

/// What the containers are started with is what the program knows.
fn arguments_are_known(rendered: &Manifests) -> Result<()> {
    for (kind, name) in WORKLOADS {
        let pod = &rendered.object(kind, name)?["spec"]["template"]["spec"];
        for list in ["initContainers", "containers"] {
            for container in pod[list].as_array().into_iter().flatten() {
                let arguments = container["args"].as_array().into_iter().flatten();
                let arguments: Vec<&str> = arguments.filter_map(Value::as_str).collect();
                // It reads all of them, and then says what there is.
                let mut command = Command::new(agent::binary());
                agent::finished(command.args(&arguments).arg("--help"))?;
            }
        }
    }
    Ok(())
}

/// The look at the node is for the interfaces and the mode that the agent beside it is given.
fn what_is_checked_is_what_will_run(rendered: &Manifests) -> Result<()> {
    let pod = &rendered.object("DaemonSet", "weir-agent")?["spec"]["template"]["spec"];
    let told = |container: &Value| -> Vec<Value> {
        let arguments = container["args"].as_array().into_iter().flatten();
        let of_both = |argument: &&Value| {
            let argument = argument.as_str().unwrap_or_default();
            argument.starts_with("--interface=") || argument.starts_with("--xdp-mode=")
        };
        arguments.filter(of_both).cloned().collect()
    };
    let agent = told(&pod["containers"][0]);
    let before = pod["initContainers"].as_array().into_iter().flatten();
    for check in before.filter(|container| container["name"] == "check") {
        ensure!(agent.len() >= 2 && told(check) == agent, "{check}");
    }
    Ok(())
}

/// Pod security: agents where everything is allowed, the controller where next to nothing is.
fn pods_are_admitted(kubectl: &Kubectl, rendered: &Manifests, namespace: &str) -> Result<()> {
    let dry_run = "create --dry-run=server";
    let pod = |kind: &str, name: &str| -> Result<String> {
        let template = &rendered.object(kind, name)?["spec"]["template"];
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
            "metadata": {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]},
        });
        Ok(pod.to_string())
    };
    let (agent, controller) = (pod("DaemonSet", "weir-agent")?, pod("Deployment", "weir-controller")?);
    let enforce = |level: &str| {
        kubectl.run(&format!(
            "label namespace {namespace} --overwrite pod-security.kubernetes.io/enforce={level}"
        ))
    };
    // A label counts a moment after it is written.
    enforce("restricted")?;
    wait::until("the agent to be refused", || {
        let refused = kubectl.run_with(dry_run, &agent).map_err(|error| format!("{error:#}"));
        ensure!(
            matches!(&refused, Err(why) if why.contains("violates PodSecurity") && why.contains("hostNetwork")),
            "{refused:?}"
        );
        Ok(())
    })?;
    kubectl.run_with(dry_run, &controller)?;
    enforce("privileged")?;
    wait::until("the agent to be admitted", || {
        kubectl.run_with(dry_run, &agent).map(drop)
    })
}

/// [G01] Of values that mean nothing people are told: OpenELB's and why, and those that neither chart has. What has no meaning
/// under a name that there is, is refused.
#[test]
fn g01_values_that_mean_nothing_are_named_and_senseless_ones_refused() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let helm = control_plane.helm()?;
    let notes = helm.release("install", NAMESPACE, &["--create-namespace", &values("openelb")])?;
    for ignored in [
        "admission",
        "customImage",
        "fullnameOverride",
        "nameOverride",
        "global.tag",
        "controller.image",
        "controller.webhookPort",
        "speaker.affinity",
        "speaker.apiHosts",
        "speaker.image",
        "speaker.layer2",
        "speaker.memberlistSecret",
        "speaker.nodeSelector",
        "speaker.resources.limits",
        "speaker.tolerations",
        "speaker.vip",
    ] {
        ensure!(
            notes.contains(&format!("\n  {ignored}: ")),
            "nothing about {ignored} in\n{notes}"
        );
    }
    ensure!(notes.contains("has no ServiceMonitors"), "{notes}");
    let agent = control_plane
        .kubectl()
        .get(&format!("daemonset weir-agent -n {NAMESPACE}"))?;
    let spec = &agent["spec"]["template"]["spec"];
    let arguments = &spec["containers"][0]["args"];
    ensure!(spec["containers"][0]["image"] == "mirror.example/weir:0.1.0", "{spec}");
    let requests = json!({"requests": {"cpu": "100m", "memory": "100Mi"}});
    ensure!(spec["containers"][0]["resources"] == requests, "{spec}");
    ensure!(spec["priorityClassName"] == "system-node-critical", "{spec}");
    ensure!(spec["tolerations"] == json!([{"operator": "Exists"}]), "{spec}");
    ensure!(
        arguments
            .as_array()
            .is_some_and(|all| all.contains(&json!("--metrics=[::]:50053"))),
        "{arguments}"
    );
    let clean = helm.release("upgrade", NAMESPACE, &["--reset-values"])?;
    ensure!(!clean.contains("WARNING"), "{clean}");
    let unknown = [
        "agent.interfacs",
        "controler",
        "controller.webhook.failurPolicy",
        "crds.instal",
        "global.imageRegistri",
        "image.tagg",
        "speaker.layer3",
    ];
    // Which labels nodes have is not for the chart to know.
    let set = unknown.map(|name| format!("{name}.some=1")).join(",") + ",agent.nodeSelector.some=label";
    let warned = helm.release("upgrade", NAMESPACE, &["--reset-values", "--set", &set])?;
    let (_, named) = warned
        .split_once("there are no such values")
        .with_context(|| warned.clone())?;
    let named: Vec<&str> = named
        .lines()
        .skip(1)
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(named == unknown, "{warned}");

    for (wrong, named) in [
        ("agent.interfaces={}", "/agent/interfaces"),
        ("agent.xdpMode=fast", "/agent/xdpMode"),
        ("agent.tunnelPort=70000", "/agent/tunnelPort"),
        ("controller.replicas=-1", "/controller/replicas"),
        ("controller.lease=weir-agent-node-1", "/controller/lease"),
        ("global.imagePullSecrets[0].nam=mirror", "/global/imagePullSecrets/0"),
    ] {
        let refused = helm.render(NAMESPACE, &["--set", wrong]);
        let message = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(message.contains(named), "{wrong}: {message}");
    }
    Ok(())
}

/// [G01] Before 1.31 rules of definitions cannot ask whether something is an address, so all three would be refused.
#[test]
fn g01_the_chart_is_for_clusters_that_know_the_rules_of_the_definitions() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let helm = control_plane.helm()?;
    helm.render(NAMESPACE, &["--kube-version=1.31"])?;
    let refused = helm.render(NAMESPACE, &["--kube-version=1.30.14"]);
    let message = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(message.contains("kubeVersion: >=1.31.0-0"), "{message}");
    Ok(())
}

/// [G01] Over the definitions that OpenELB's chart has left, which belong to no release; brought up to date by an upgrade, and
/// kept when the release goes.
#[test]
fn g01_definitions_are_taken_over_updated_and_kept() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let (kubectl, helm) = (control_plane.kubectl(), control_plane.helm()?);
    control_plane.apply_definitions()?;
    kubectl.apply(&manifests::eip("pool", "10.10.1.0/24"))?;
    let refused = helm.release("install", NAMESPACE, &["--create-namespace"]);
    let message = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(message.contains("invalid ownership metadata"), "{message}");
    helm.release("install", NAMESPACE, &["--create-namespace", "--take-ownership"])?;

    // As an earlier version might have had it.
    let columns = "customresourcedefinition eips.network.kubesphere.io";
    let printed =
        || -> Result<Value> { Ok(kubectl.get(columns)?["spec"]["versions"][0]["additionalPrinterColumns"].clone()) };
    let wanted = printed()?;
    let mut command = kubectl.command();
    command.args([
        "patch",
        "customresourcedefinition",
        "eips.network.kubesphere.io",
        "--type=json",
        "-p",
    ]);
    command.arg(r#"[{"op": "replace", "path": "/spec/versions/0/additionalPrinterColumns", "value": []}]"#);
    agent::finished(&mut command)?;
    ensure!(printed()? != wanted);
    helm.release("upgrade", NAMESPACE, &["--force-conflicts"])?;
    ensure!(printed()? == wanted, "{} after the upgrade", printed()?);

    helm.release("uninstall", NAMESPACE, &[])?;
    ensure!(
        kubectl
            .get(&format!("deployment weir-controller -n {NAMESPACE}"))
            .is_err()
    );
    ensure!(kubectl.get("eip pool")?["spec"]["address"] == "10.10.1.0/24");
    Ok(())
}

/// [G03 G07] The rights of the chart are those that the other tests run with, in whatever namespace.
#[test]
fn g07_the_rights_are_those_of_the_tests() -> Result<()> {
    const KINDS: [&str; 7] = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    let control_plane = ControlPlane::start()?;
    for namespace in [NAMESPACE, "openelb-system"] {
        let rendered = control_plane.helm()?.render(namespace, &[])?;
        let mut expected = Vec::new();
        for file in ["rbac-agent", "rbac-controller"] {
            let text = fs::read_to_string(format!("{ROOT}/deploy/{file}.yaml"))?;
            let text = text.replace(&format!("namespace: {NAMESPACE}"), &format!("namespace: {namespace}"));
            let text = text.replace(&format!(":{NAMESPACE}:"), &format!(":{namespace}:"));
            expected.extend(Manifests::read(&text)?.objects().cloned());
        }
        let rights = rendered
            .objects()
            .filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind));
        let rights: Vec<Value> = rights
            .cloned()
            .map(|mut object| {
                object["metadata"]
                    .as_object_mut()
                    .map(|metadata| metadata.remove("labels"));
                object
            })
            .collect();
        ensure!(rights.len() == expected.len(), "{rights:?}");
        for object in &expected {
            ensure!(
                rights.contains(object),
                "the chart has no such {object}, but {rights:?}"
            );
        }
    }
    Ok(())
}

/// [G01] After an installation people are told which Services get addresses, and what to do before Weir goes.
#[test]
fn g01_notes_say_who_gets_an_address_and_what_comes_before_an_uninstall() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let helm = control_plane.helm()?;
    let other =
        "--set=crds.install=false,controller.lease=another,controller.class=example.com/weir,controller.adoptAll=true";
    for (namespace, values, said) in [
        (
            NAMESPACE,
            "--set=crds.install=true",
            [
                "spec.loadBalancerClass: openelb",
                "no class, with controller.adoptAll=true only",
                "annotation or class is nearly Weir's:",
                "weir cleanup",
            ],
        ),
        (
            "elsewhere",
            other,
            [
                "spec.loadBalancerClass: example.com/weir",
                "those that name no class",
                "annotation or class is nearly Weir's:",
                "weir cleanup --namespace elsewhere --lease another",
            ],
        ),
    ] {
        // Nothing of one is in the way of the other's.
        let arguments = ["--create-namespace", "--take-ownership", "--force-conflicts", values];
        let notes = helm.release("install", namespace, &arguments)?;
        for line in said {
            ensure!(notes.lines().any(|text| text.ends_with(line)), "no {line} in\n{notes}");
        }
        let steps = [
            format!("helm upgrade weir CHART -n {namespace} --reuse-values --set agent.detach=true"),
            format!("kubectl -n {namespace} rollout status daemonset weir-agent"),
            format!("kubectl -n {namespace} scale deployment weir-controller --replicas=0"),
            "weir cleanup".to_owned(),
        ];
        let at: Vec<_> = steps.iter().map(|step| notes.find(step)).collect();
        ensure!(at.iter().all(Option::is_some) && at.is_sorted(), "{at:?} in\n{notes}");
    }
    Ok(())
}

/// [G01] Secrets for the registry are objects, or names as OpenELB's chart takes them.
#[test]
fn g01_pods_have_the_secrets_of_the_registry_in_either_form() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let helm = control_plane.helm()?;
    for (values, secret) in [(values("openelb"), "mirror"), (values("everything"), "registry")] {
        let rendered = helm.render(NAMESPACE, &[&values])?;
        for (kind, name) in WORKLOADS {
            let secrets = &rendered.object(kind, name)?["spec"]["template"]["spec"]["imagePullSecrets"];
            ensure!(*secrets == json!([{"name": secret}]), "{name}: {secrets}");
        }
    }
    Ok(())
}

/// The manifests for whoever has no helm are what the chart renders.
#[test]
fn the_plain_manifests_are_the_charts() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let set = "--set=createNamespace=true,crds.install=false";
    let rendered = control_plane.helm()?.release("template", NAMESPACE, &[set])?;
    let plain = fs::read_to_string(format!("{ROOT}/deploy/weir.yaml"))?;
    // After a line that says where it comes from.
    let (_, plain) = plain.split_once('\n').unwrap_or_default();
    ensure!(
        plain == rendered,
        "deploy/weir.yaml is not what the chart renders: `cargo xtask deploy` writes it anew"
    );
    control_plane
        .kubectl()
        .run_with("apply --server-side --validate=strict", plain)?;
    Ok(())
}
