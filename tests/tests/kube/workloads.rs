//! What stands around the pods of the manifests: policies, budgets, priorities and probes, as the API server has them.

use crate::deploy::MANIFESTS;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::SocketAddr};
use tests::kube::{ControlPlane, Kubectl, Manifests};

/// Whether a selector that asks for something finds pods with these labels.
pub fn selects(wanted: &Value, labels: &Value) -> bool {
    let wanted = wanted.as_object().filter(|wanted| !wanted.is_empty());
    wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}

/// The number of the port that the first container of `workload` calls so.
pub fn port_called(workload: &Value, name: &Value) -> Result<u16> {
    let ports = &workload["spec"]["template"]["spec"]["containers"][0]["ports"];
    let mut all = ports.as_array().into_iter().flatten();
    let port = all.find(|port| port["name"] == *name);
    let port = port.with_context(|| format!("no {name} in {ports}"))?;
    Ok(u16::try_from(port["containerPort"].as_u64().context("no number")?)?)
}

/// The ports at which a NetworkPolicy lets pods of `workload` be reached, from anywhere.
pub fn admitted(policy: &Value, workload: &Value) -> Result<BTreeSet<u16>> {
    ensure!(policy["spec"]["policyTypes"] == json!(["Ingress"]), "{policy}");
    let rules = policy["spec"]["ingress"].as_array().context("no rules")?;
    let [rule] = &rules[..] else {
        anyhow::bail!("{rules:?}");
    };
    ensure!(rule["from"].is_null(), "{rule}");
    let ports = rule["ports"].as_array().into_iter().flatten();
    ports.map(|port| port_called(workload, &port["port"])).collect()
}

fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// Where it is told to serve `what`, if it is.
fn served_at(workload: &Value, what: &str) -> Result<Option<SocketAddr>> {
    let arguments = &workload["spec"]["template"]["spec"]["containers"][0]["args"];
    let mut texts = arguments.as_array().into_iter().flatten().filter_map(Value::as_str);
    let start = format!("--{what}=");
    let address = texts.find_map(|text| text.strip_prefix(&start));
    Ok(address.map(str::parse).transpose()?)
}

/// What is in the API server of one release.
struct Release<'a> {
    kubectl: &'a Kubectl,
    namespace: String,
    agent: Value,
    controller: Value,
}

impl<'a> Release<'a> {
    fn apply(kubectl: &'a Kubectl, namespace: &str, manifests: &Manifests) -> Result<Self> {
        let namespace_object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        kubectl.run_with("apply --server-side", &namespace_object.to_string())?;
        kubectl.run_with("apply --server-side --force-conflicts", &manifests.list())?;
        let get = |what: &str| kubectl.get(&format!("{what} -n {namespace}"));
        Ok(Self {
            kubectl,
            namespace: namespace.to_owned(),
            agent: get("daemonset weir-agent")?,
            controller: get("deployment weir-controller")?,
        })
    }

    fn get(&self, what: &str) -> Result<Value> {
        self.kubectl.get(&format!("{what} -n {}", self.namespace))
    }

    /// Whether a selector finds the controller's pods, and not the agents'.
    fn is_of_controllers(&self, selector: &Value) -> bool {
        selects(selector, labels(&self.controller)) && !selects(selector, labels(&self.agent))
    }

    /// Who reaches it, and who evicts it.
    fn controller_is_protected(&self) -> Result<()> {
        let policy = self.get("networkpolicy weir-controller")?;
        ensure!(
            self.is_of_controllers(&policy["spec"]["podSelector"]["matchLabels"]),
            "{policy}"
        );
        let mut served = BTreeSet::new();
        for what in ["metrics", "webhook"] {
            let address = served_at(&self.controller, what)?.with_context(|| format!("no {what}"))?;
            ensure!(address.ip().is_unspecified(), "{what} is at {address}");
            ensure!(port_called(&self.controller, &json!(what))? == address.port(), "{what}");
            served.insert(address.port());
        }
        let admitted = admitted(&policy, &self.controller)?;
        ensure!(admitted == served, "{admitted:?} are let in, {served:?} served");

        let service = self.get("service weir-controller")?;
        ensure!(self.is_of_controllers(&service["spec"]["selector"]), "{service}");
        let port = &service["spec"]["ports"][0];
        ensure!(port["port"] == 443 && port["targetPort"] == "webhook", "{service}");

        let budget = self.get("poddisruptionbudget weir-controller")?;
        let spec = &budget["spec"];
        ensure!(self.is_of_controllers(&spec["selector"]["matchLabels"]), "{budget}");
        ensure!(
            spec["maxUnavailable"] == 1 && spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow",
            "{budget}"
        );
        let replicas = self.controller["spec"]["replicas"].as_u64();
        ensure!(replicas > Some(1), "nobody is left when one goes: {replicas:?}");
        Ok(())
    }

    /// What the API server makes of the names of priorities.
    fn priorities(&self) -> Result<[Value; 2]> {
        let of = |workload: &Value| -> Result<Value> {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "spec": workload["spec"]["template"]["spec"],
                "metadata": {"name": "of-some-priority", "namespace": self.namespace},
            });
            let made = self
                .kubectl
                .run_with("create --dry-run=server -o json", &pod.to_string())?;
            let made: Value = serde_json::from_str(&made)?;
            Ok(made["spec"]["priority"].clone())
        };
        Ok([of(&self.agent)?, of(&self.controller)?])
    }

    /// Each asks for what it is to ask for, where that is served.
    fn probes_lead_to_what_is_served(&self) -> Result<()> {
        for workload in [&self.agent, &self.controller] {
            let served = served_at(workload, "metrics")?.context("no metrics")?;
            let container = &workload["spec"]["template"]["spec"]["containers"][0];
            for (probe, path) in [
                ("startupProbe", "/healthz"),
                ("livenessProbe", "/healthz"),
                ("readinessProbe", "/readyz"),
            ] {
                let asked = &container[probe]["httpGet"];
                ensure!(asked["path"] == path, "{probe}: {asked}");
                ensure!(
                    port_called(workload, &asked["port"])? == served.port(),
                    "{probe}: {asked}"
                );
                // Without a host, it is the pod's address: that of the node, for agents.
                ensure!(
                    served.ip().is_unspecified() || asked["host"] == json!(served.ip()),
                    "{probe}: {asked}, and it is served at {served}"
                );
            }
        }
        Ok(())
    }
}

/// [G04] By the plain manifests, by the chart, and by the chart with all values others.
#[test]
fn g04_pods_have_a_policy_a_budget_a_priority_and_probes() -> Result<()> {
    const NODE_CRITICAL: u64 = 2_000_001_000;
    const CLUSTER_CRITICAL: u64 = 2_000_000_000;
    let control_plane = ControlPlane::start()?;
    let (kubectl, helm) = (control_plane.kubectl(), control_plane.helm()?);
    let values = |name: &str| format!("--values={}/../tests/values/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let usual = [NODE_CRITICAL, CLUSTER_CRITICAL];
    let other = [CLUSTER_CRITICAL, NODE_CRITICAL];
    let everything = helm.render("of-everything", &[&values("everything")])?;
    for (namespace, manifests, priorities) in [
        ("weir-system", Manifests::read_file(MANIFESTS)?, usual),
        ("of-the-chart", helm.render("of-the-chart", &[])?, usual),
        ("of-everything", everything, other),
    ] {
        let release = Release::apply(kubectl, namespace, &manifests)?;
        let of = || format!("in {namespace}");
        release.controller_is_protected().with_context(of)?;
        release.probes_lead_to_what_is_served().with_context(of)?;
        let told = release.priorities()?;
        ensure!(told == priorities.map(Value::from), "{told:?} in {namespace}");
    }

    let minimal = helm.render("of-minimal", &[&values("minimal")])?;
    let release = Release::apply(kubectl, "of-minimal", &minimal)?;
    for kind in ["networkpolicy", "poddisruptionbudget", "service"] {
        ensure!(
            release.get(&format!("{kind} weir-controller")).is_err(),
            "a {kind} that nobody wants"
        );
    }
    ensure!(release.priorities()? == [0, 0].map(Value::from));
    Ok(())
}
