//! What the delivered rights let be done is done, all of it; and what agents have no rights to do is refused to them.

use crate::{
    cluster::{Cluster, RIGHTS},
    controlled::LABEL,
    objects::of_version,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tests::{
    kube::{ControlPlane, Kubectl, Manifests, WEIR_NAMESPACE},
    lab::{Family, manifests::Service, process::Process, wait},
};

/// Those of the controller, as delivered.
const OF_CONTROLLERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rbac-controller.yaml");
const LEASE: &str = "lease -n weir-system weir-controller";
const CONFIGURATION: &str = "validatingwebhookconfiguration weir";

/// Account, API group, resource with its subresource, verb.
type Right = [String; 4];

/// What rules let an account do.
fn expanded(account: &str, rules: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let of_verb = |verb| [account.to_owned(), group.clone(), resource.clone(), verb];
                rights.extend(texts(&rule["verbs"]).into_iter().map(of_verb));
            }
        }
    }
    rights
}

/// What the roles of a file grant; they are named as their accounts.
fn granted(file: &str) -> Result<BTreeSet<Right>> {
    let manifests = Manifests::read_file(file)?;
    let mut granted = BTreeSet::new();
    for role in manifests.objects().filter(|object| object["rules"].is_array()) {
        let account = role["metadata"]["name"].as_str().context("a role without a name")?;
        granted.extend(expanded(account, &role["rules"]));
    }
    ensure!(!granted.is_empty(), "{file} grants nothing");
    Ok(granted)
}

/// What the accounts have asked for and were not forbidden.
fn used(control_plane: &ControlPlane) -> Result<BTreeSet<Right>> {
    let mut used = BTreeSet::new();
    for asked in control_plane.asked()?.into_iter().filter(|asked| asked.code != 403) {
        let right = |verb: &str| [&asked.account, &asked.group, &asked.resource, verb].map(str::to_owned);
        used.insert(right(&asked.verb));
        // What was applied and made by it takes both.
        used.extend((asked.verb == "patch" && asked.code == 201).then(|| right("create")));
    }
    Ok(used)
}

fn start(cluster: &Cluster, identity: &str, port: u16, more: &[&str]) -> Result<Process> {
    let kubeconfig = cluster.control_plane.give_controller_rights()?;
    let url = format!("https://127.0.0.1:{port}");
    let (webhook, metrics) = (format!("[::]:{port}"), format!("[::]:{}", port + 100));
    let mut arguments = vec!["--metrics", &metrics];
    if more.is_empty() {
        arguments.extend(["--webhook", &webhook, "--webhook-url", &url]);
    }
    arguments.extend(more);
    cluster
        .control_plane
        .start_controller(&kubeconfig, identity, &arguments)
}

fn stop(mut controller: Process) -> Result<()> {
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

fn has_reason(kubectl: &Kubectl, service: &str, reason: &str) -> Result<()> {
    wait::until("the condition of a Service", || {
        let status = kubectl.get(&format!("service {service}"))?["status"].clone();
        ensure!(status["conditions"][0]["reason"] == reason, "{status}");
        Ok(())
    })
}

#[test]
fn g07_every_right_is_used_and_agents_have_no_other() -> Result<()> {
    Cluster::play(|cluster| {
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.apply(&of_version("v1alpha1", "BgpConf", "early", "{as: 65000, port: 17900}"))?;
        let peer = "{config: {peerAs: 65001, neighborAddress: 10.0.0.1}}";
        kubectl.apply(&of_version("v1alpha1", "BgpPeer", "early", peer))?;
        let first = start(cluster, "first", 9443, &[])?;
        cluster.start_agents()?;
        let web = Service::new("web").from_eip("lan-ipv4", Family::V4);
        kubectl.apply(&web.with(cluster.lab.pods()))?;
        cluster.answered_by(Family::V4, 0, &cluster.pods())?;

        // What is wrong is said in status and events.
        for eip in ["nowhere", "lan-ipv4", "nowhere", "lan-ipv4"] {
            kubectl.run(&format!("annotate --overwrite service web {LABEL}={eip}"))?;
            let reason = if eip == "nowhere" { "AddressKept" } else { "Served" };
            has_reason(&kubectl, "web", reason)?;
        }
        wait::until("the newer names of fields", || {
            for (kind, field) in [("bgpconf", "listenPort"), ("bgppeer", "conf")] {
                let spec = kubectl.get(&format!("{kind} early"))?["spec"].clone();
                ensure!(spec.get(field).is_some(), "{spec}");
            }
            Ok(())
        })?;
        // What somebody else has written is written again.
        kubectl.patch(CONFIGURATION, &json!({"webhooks": []}))?;
        wait::until("the webhooks", || {
            let found = kubectl.get(CONFIGURATION)?;
            ensure!(found["webhooks"][0].is_object(), "{found}");
            Ok(())
        })?;
        kubectl.run(&format!("annotate {LEASE} touched=once"))?;
        kubectl.run(
            "annotate --overwrite secret -n weir-system weir-controller-webhook lb.weir.dev/renew=2020-01-01T00:00:00Z",
        )?;
        let second = start(cluster, "second", 9444, &[])?;
        wait::until("the second's certificate", || {
            ensure!(
                second.log().contains("renewing the webhooks' certificate"),
                "{}",
                second.log()
            );
            Ok(())
        })?;
        stop(first)?;
        stop(second)?;
        let third = start(cluster, "third", 9445, &["--no-webhook"])?;
        wait::until("the end of the webhooks", || {
            ensure!(kubectl.get(CONFIGURATION).is_err());
            Ok(())
        })?;

        let mut granted = granted(RIGHTS)?;
        granted.extend(self::granted(OF_CONTROLLERS)?);
        wait::until("every right to be used", || {
            let used = used(&cluster.control_plane)?;
            let unused: Vec<_> = granted.difference(&used).collect();
            ensure!(unused.is_empty(), "never used: {unused:?}");
            Ok(())
        })?;
        refused(cluster).context("what agents may not do")?;
        stop(third)
    })
}

/// Whatever an agent asks for beyond its rights, the API server says whose right it would be.
fn refused(cluster: &Cluster) -> Result<()> {
    let node = &cluster.lab.nodes[0].name;
    let agent = cluster.control_plane.as_agent_of(node)?;
    let kubectl = cluster.control_plane.kubectl();
    let before = kubectl.get("service web")?;
    let service = |name: &str, more: Value| {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]},
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        object
    };
    let services = "/api/v1/namespaces/default/services";
    let apply = "apply --server-side --force-conflicts --validate=false";
    let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    let eip = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "lan-ipv4"}, "spec": {"address": "10.0.0.1"},
    });
    for (line, object, what) in [
        (
            format!("create --raw {services}"),
            service("new", json!({})),
            "create resource \"services\"",
        ),
        (
            format!("replace --raw {services}/web"),
            before.clone(),
            "update resource \"services\"",
        ),
        (
            apply.to_owned(),
            service("web", json!({})),
            "patch resource \"services\"",
        ),
        (
            format!("{apply} --subresource=status"),
            service("web", ingress),
            "patch resource \"services/status\"",
        ),
        (apply.to_owned(), eip, "patch resource \"eips\""),
    ] {
        match agent.run_with(&line, &format!("{object}\n")) {
            Ok(said) => bail!("{line}: taken: {said}"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(
                    said.contains("weir-agent") && said.contains(&format!("cannot {what}")),
                    "{line}: {said}"
                );
            }
        }
    }
    let gone = agent.run(&format!("delete --raw {services}/web")).err();
    let gone = gone.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(gone.contains("cannot delete resource \"services\""), "{gone}");
    ensure!(kubectl.get("service web")? == before, "it has been written to");

    // There is nothing that it may do beyond what the file says, and what every account may.
    let anybody = cluster.control_plane.kubectl_as(WEIR_NAMESPACE, "default")?;
    let (may, all_may) = (rights_now(&agent)?, rights_now(&anybody)?);
    let own: BTreeSet<&Right> = may.difference(&all_may).collect();
    ensure!(granted(RIGHTS)?.iter().eq(own.iter().copied()), "it may {own:?}");
    Ok(())
}

/// What the API server says that an account may do in Weir's namespace, as if it were an agent's.
fn rights_now(account: &Kubectl) -> Result<BTreeSet<Right>> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": WEIR_NAMESPACE},
    });
    let reviews = "create --raw /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer: Value = serde_json::from_str(&account.run_with(reviews, &format!("{review}\n"))?)?;
    Ok(expanded("weir-agent", &answer["status"]["resourceRules"]))
}
