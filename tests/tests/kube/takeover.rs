//! Coming from OpenELB and leaving for good: `weir migrate check` and `weir cleanup` on a real API server.

use crate::{
    controlled::{Cluster, LABEL, pool, service},
    openelb,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::process::{Command, Output};
use tests::{
    kube::{ControlPlane, Kubectl},
    lab::{agent, wait},
};

/// What OpenELB 0.6 and its chart leave running.
const OPENELB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: openelb-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: openelb-controller, namespace: openelb-system}
spec:
  selector: {matchLabels: {app: openelb, component: controller}}
  template:
    metadata: {labels: {app: openelb, component: controller}}
    spec: {containers: [{name: controller, image: 'kubesphere/openelb-controller:v0.6.0'}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: openelb-speaker, namespace: openelb-system}
spec:
  selector: {matchLabels: {app: openelb, component: speaker}}
  template:
    metadata: {labels: {app: openelb, component: speaker}}
    spec: {containers: [{name: speaker, image: 'kubesphere/openelb-speaker:v0.6.0'}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: openelb-admission}
webhooks:
  - name: validate.eip.network.kubesphere.io
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    clientConfig: {service: {namespace: openelb-system, name: openelb-controller, path: /validate}}
    rules: [{apiGroups: [network.kubesphere.io], apiVersions: [v1alpha2], operations: [CREATE, UPDATE], resources: [eips]}]
";

fn weir(cluster: &Cluster, arguments: &[&str]) -> Command {
    let program = agent::binary();
    let mut command = cluster.control_plane.namespace().command(&program.to_string_lossy());
    command
        .args(arguments)
        .env("KUBECONFIG", cluster.kubectl().kubeconfig());
    command
}

/// Findings by what they are about, and whether the check passed.
fn check(cluster: &Cluster) -> Result<(Vec<Value>, bool)> {
    let Output { status, stdout, stderr } = weir(cluster, &["migrate", "check", "-o", "json"]).output()?;
    let findings = serde_json::from_slice(&stdout).with_context(|| String::from_utf8_lossy(&stderr).into_owned())?;
    Ok((findings, status.success()))
}

fn about(findings: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .map(|finding| {
            let object = &finding["object"];
            format!(
                "{} {} {}",
                word(&finding["level"]),
                word(&object["kind"]),
                word(&object["name"])
            )
        })
        .collect()
}

/// The commands between backquotes in what is to be done.
fn remedies(findings: &[Value]) -> Vec<String> {
    let text = |finding: &Value| finding["remedy"].as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .filter(|finding| finding["level"] == "problem")
        .flat_map(|finding| {
            let remedy = text(finding);
            let commands = remedy.split('`').skip(1).step_by(2);
            commands
                .filter_map(|line| line.strip_prefix("kubectl ").map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// [B22 G09] What is to be seen to is named with the command that does it; done so, the Services that OpenELB has left are taken
/// over with nothing written to them.
#[test]
fn g09_what_the_check_says_is_all_that_a_takeover_needs() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    cluster.is_left_by_openelb()?;
    kubectl.apply(OPENELB)?;
    let before = kubectl.get("service old")?;

    let (findings, well) = check(&cluster)?;
    ensure!(!well, "{findings:?}");
    ensure!(
        about(&findings)
            == [
                "problem DaemonSet openelb-speaker",
                "problem Deployment openelb-controller",
                "problem ValidatingWebhookConfiguration openelb-admission",
            ],
        "{findings:?}"
    );
    for line in remedies(&findings) {
        kubectl.run(&line)?;
    }
    let (findings, well) = check(&cluster)?;
    ensure!(
        well && about(&findings) == ["note Deployment openelb-controller"],
        "{findings:?}"
    );

    // Pods will see clients; who may come in to them is said by these, and not by one for what goes out.
    for (name, types) in [
        ("by-default", json!(null)),
        ("in", json!(["Ingress"])),
        ("out", json!(["Egress"])),
    ] {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
            "spec": {"podSelector": {}, "policyTypes": types},
        });
        kubectl.apply(&policy.to_string())?;
    }
    let (findings, well) = check(&cluster)?;
    ensure!(
        well && about(&findings) == ["note Deployment openelb-controller", "note Service old"],
        "{findings:?}"
    );
    let says = findings[1]["says"].as_str().unwrap_or_default();
    ensure!(says.ends_with("come in: by-default, in"), "{says}");
    kubectl.run("delete networkpolicies --all")?;

    // Something that Weir does otherwise, and something that is wrong, do not go unseen.
    kubectl.apply(&service(
        "proxied",
        &[("node-proxy.openelb.kubesphere.io/type", "daemonset")],
    ))?;
    kubectl.patch_status("eip pool", &json!({"used": {"10.10.1.99": "default/gone"}}))?;
    let (findings, well) = check(&cluster)?;
    ensure!(well, "{findings:?}");
    ensure!(
        about(&findings)
            == [
                "warning Eip pool",
                "warning Service proxied",
                "note Deployment openelb-controller",
            ],
        "{findings:?}"
    );
    let table = agent::finished(&mut weir(&cluster, &["migrate", "check"]))?;
    ensure!(
        table.contains("status.used[10.10.1.99]") && table.contains("-> "),
        "{table}"
    );

    let mut controller = cluster.start("only")?;
    cluster.records(&json!({"10.10.1.7": "default/old"}))?;
    let after = kubectl.get("service old")?;
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "{before}\n{after}"
    );
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

/// [A02 B22] Definitions are replaced below the objects that are stored, and a controller begins: nothing of any object changes but
/// what somebody asks for then, and that Eips say that no agent serves them.
#[test]
fn a02_b22_what_openelbs_definitions_have_stored_is_taken_over_as_it_is() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    openelb::leave(control_plane.kubectl())?;
    let everything = |kubectl: &Kubectl| kubectl.get("eips,bgpconfs,bgppeers,services");
    let before = everything(control_plane.kubectl())?;
    let large = "patch bgpconf default --type=merge --dry-run=server -p {\"spec\":{\"as\":4200000001}}";
    ensure!(
        control_plane.kubectl().run(large).is_err(),
        "definitions are not OpenELB's"
    );
    control_plane.apply_definitions()?;
    wait::until("our definitions", || control_plane.kubectl().run(large))?;
    let now = everything(control_plane.kubectl())?;
    ensure!(now == before, "{before}\nbecame\n{now}");

    let cluster = Cluster::on(control_plane)?;
    let kubectl = cluster.kubectl();
    let _controller = cluster.start("only")?;
    cluster.has_caught_up(1)?;
    // Of the Eips all but that is the same, of everything else the version, too.
    let of_openelb = |mut list: Value| -> Vec<Value> {
        let mut items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        items.retain(|item| {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            !name.starts_with("last-")
        });
        for eip in items.iter_mut().filter(|item| item["kind"] == "Eip") {
            eip["metadata"]["resourceVersion"].take();
            let status = eip["status"].as_object_mut().into_iter();
            status.for_each(|status| status.retain(|field, _| !["ready", "conditions"].contains(&field.as_str())));
        }
        items
    };
    let before = of_openelb(before);
    let told = wait::until("what the controller says of Eips without agents", || {
        let now = everything(kubectl)?;
        let mut items = now["items"].as_array().into_iter().flatten();
        let full = items.find(|item| item["kind"] == "Eip" && item["metadata"]["name"] == "full");
        let reason = full.map(|full| &full["status"]["conditions"][0]["reason"]);
        ensure!(reason == Some(&json!("NoNode")), "{full:?}");
        Ok(now)
    })?;
    let now = of_openelb(told);
    for (before, now) in before.iter().zip(&now) {
        ensure!(before == now, "{before}\nbecame\n{now}");
    }
    ensure!(before.len() == now.len(), "{now:?}");

    // What it has taken over it looks after: it gives out what is free, and takes back.
    kubectl.apply(&service("new", &[(LABEL, "pool")]))?;
    cluster.show([("new", "10.10.1.0")])?;
    kubectl.run("delete service old mail --timeout=60s")?;
    cluster.records(&json!({"10.10.1.0": "default/new", "10.10.1.9": "default/web"}))?;
    let was = |name: &str| before.iter().find(|item| item["metadata"]["name"] == name);
    let pool = kubectl.get("eip pool")?;
    ensure!(was("pool").is_some_and(|was| was["spec"] == pool["spec"]), "{pool}");
    let web = kubectl.get("service web")?;
    ensure!(was("web") == Some(&web), "{web}");
    Ok(())
}

/// [B28] OpenELB's node proxy keeps no Service once OpenELB is gone; what is others' stays, and so does what a Service has that lives.
#[test]
fn b28_a_service_that_waits_for_openelbs_node_proxy_can_be_deleted() -> Result<()> {
    const OURS: [&str; 3] = [
        "node-proxy.openelb.kubesphere.io/finalizer",
        "node-proxy.porter.kubesphere.io/finalizer",
        "lbs.porter.kubesphere.io/finalizer",
    ];
    const OTHERS: &str = "example.com/kept";
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let with = |name: &str, finalizers: &[&str]| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "finalizers": finalizers},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}})
    };
    let living = with("living", &[OURS[0], OTHERS]);
    for service in [with("gone", &OURS), with("kept", &[OTHERS, OURS[1], OURS[2]]), living] {
        kubectl.apply(&service.to_string())?;
    }
    let named = ["gone", "kept", "living"].map(|name| format!("warning Service {name}"));
    let (findings, well) = check(&cluster)?;
    ensure!(well && about(&findings) == named, "{findings:?}");
    kubectl.run("delete --wait=false service gone kept")?;
    let (findings, well) = check(&cluster)?;
    ensure!(well && about(&findings) == named, "{findings:?}");

    let mut controller = cluster.start("only")?;
    let finalizers =
        |name: &str| -> Result<Value> { Ok(kubectl.get(&format!("service {name}"))?["metadata"]["finalizers"].take()) };
    wait::until("Services to be let go", || {
        ensure!(kubectl.get("service gone").is_err());
        let kept = finalizers("kept")?;
        ensure!(kept == json!([OTHERS]), "{kept}");
        Ok(())
    })?;
    cluster.has_event("kept", "Warning", "NodeProxyUnsupported", "node-proxy-kept-default")?;
    ensure!(finalizers("living")? == json!([OURS[0], OTHERS]));
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());

    let done = agent::finished(&mut weir(&cluster, &["cleanup"]))?;
    ensure!(done.contains("remove finalizer from Service default/living"), "{done}");
    ensure!(finalizers("living")? == json!([OTHERS]));
    Ok(())
}

/// [B29] Not while a controller leads; afterwards nothing waits for one.
#[test]
fn b29_after_a_cleanup_nothing_waits_for_a_controller() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&format!(
        "{}{}",
        pool("10.10.1.0/24"),
        service("web", &[(LABEL, "pool")])
    ))?;
    kubectl.apply(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpConf\nmetadata: {name: default, finalizers: \
         [finalizer.lb.kubesphere.io/v1alpha1]}\nspec: {as: 65000}\n",
    )?;
    // By which the controller knows that its webhooks can be found; nobody is behind it once the controller is gone.
    kubectl.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: weir-controller, namespace: weir-system}\nspec: {ports: [{port: 443}]}\n",
    )?;
    let mut controller = cluster.start("only")?;
    cluster.shows("web", Some("10.10.1.0"))?;
    let hooks = "validatingwebhookconfiguration weir";
    wait::until("the webhooks", || kubectl.get(hooks).map(drop))?;
    let definition = "customresourcedefinition bgpconfs.network.kubesphere.io";
    let converts = || -> Result<bool> { Ok(kubectl.get(definition)?["spec"]["conversion"]["strategy"] == "Webhook") };
    wait::until("the conversion", || {
        ensure!(converts()?);
        Ok(())
    })?;

    let refused = agent::finished(&mut weir(&cluster, &["cleanup"])).map_err(|error| format!("{error:#}"));
    ensure!(
        matches!(&refused, Err(why) if why.contains("only leads")),
        "{refused:?}"
    );
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    // What a controller and agents say while there are any, and what somebody else does.
    let condition = |kind: &str| {
        json!({"type": kind, "status": "False", "reason": "Word", "message": "words",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let kept = condition("example.com/Kept");
    kubectl.patch_status(
        "service web",
        &json!({"conditions": [condition("lb.weir.dev/Served"), kept]}),
    )?;
    kubectl.patch_status(
        "eip pool",
        &json!({"ready": true, "conditions": [condition("Ready")], "nodes": {"node-1": {"ready": true}}}),
    )?;

    let before = kubectl.get("service web")?;
    let planned = agent::finished(&mut weir(&cluster, &["cleanup", "--dry-run"]))?;
    for line in [
        "would delete ValidatingWebhookConfiguration weir",
        "would remove conversion from CustomResourceDefinition bgpconfs.network.kubesphere.io",
        "would remove label and finalizer from Service default/web",
        "would remove condition lb.weir.dev/Served from Service default/web",
        "would remove finalizer from Eip pool",
        "would remove ready, conditions, nodes from Eip pool",
        "would remove finalizer from BgpConf default",
    ] {
        ensure!(planned.contains(line), "no `{line}` in\n{planned}");
    }
    ensure!(kubectl.get("service web")? == before);

    let done = agent::finished(&mut weir(&cluster, &["cleanup"]))?;
    ensure!(planned.replace("would ", "") == done, "{planned}\n{done}");
    ensure!(kubectl.get(hooks).is_err() && !converts()?);
    let web = kubectl.get("service web")?;
    ensure!(
        web["metadata"].get("finalizers").is_none() && web["metadata"]["labels"].get(LABEL).is_none(),
        "{web}"
    );
    ensure!(
        web["status"]["loadBalancer"]["ingress"][0]["ip"] == "10.10.1.0",
        "the address stays: {web}"
    );
    ensure!(web["status"]["conditions"] == json!([kept]), "{web}");
    let status = &kubectl.get("eip pool")?["status"];
    let fields: Vec<&String> = status.as_object().context("no status")?.keys().collect();
    ensure!(
        !["ready", "conditions", "nodes"]
            .iter()
            .any(|told| fields.iter().any(|field| *field == told))
            && status["used"] == json!({"10.10.1.0": "default/web"}),
        "{status}"
    );
    kubectl.run("delete --timeout=30s service/web eip/pool bgpconf/default")?;
    let again = agent::finished(&mut weir(&cluster, &["cleanup"]))?;
    ensure!(again == "nothing to remove\n", "{again}");
    Ok(())
}
