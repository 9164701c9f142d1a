//! `weir controller`, with the rights it is delivered with: who gets which address, what is written, and who leads.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;
use tests::{
    kube::{ControlPlane, Kubectl},
    lab::{agent, process::Process, wait},
};

/// The rights of the controller, as delivered.
const RIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rbac-controller.yaml");
const LABEL: &str = "eip.openelb.kubesphere.io/v1alpha2";

/// A control plane, and controllers that would lead.
struct Cluster {
    control_plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Cluster {
    fn new() -> Result<Self> {
        let control_plane = ControlPlane::start()?;
        control_plane.apply_definitions()?;
        let kubectl = control_plane.kubectl();
        kubectl.run("create namespace weir-system")?;
        kubectl.run(&format!("apply -f {RIGHTS}"))?;
        let account = control_plane.kubectl_as("weir-system", "weir-controller")?;
        let kubeconfig = account.kubeconfig().to_owned();
        Ok(Self {
            control_plane,
            kubeconfig,
        })
    }

    fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    fn start(&self, identity: &str) -> Result<Process> {
        let program = agent::binary();
        let mut command = self.control_plane.namespace().command(&program.to_string_lossy());
        command.args(["controller", "--identity", identity]);
        command.env("KUBECONFIG", &self.kubeconfig);
        let log = self
            .control_plane
            .directory()
            .join(format!("controller-{identity}.log"));
        Process::start(command, "controller", &log)
    }

    /// Waits until the Service shows this address, or none.
    fn shows(&self, service: &str, address: Option<&str>) -> Result<Value> {
        wait::until("the status of a Service", || {
            let found = self.kubectl().get(&format!("service {service}"))?;
            let shown = found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            ensure!(shown == address, "{service} shows {shown:?}, not {address:?}");
            Ok(found)
        })
    }

    /// Waits until these Services, and no others, are recorded in the Eip.
    fn records(&self, used: &Value) -> Result<Value> {
        wait::until("the status of the Eip", || {
            let found = self.kubectl().get("eip pool")?;
            ensure!(found["status"]["used"] == *used, "{}", found["status"]);
            Ok(found)
        })
    }

    fn has_event(&self, service: &str, kind: &str, reason: &str, text: &str) -> Result<()> {
        wait::until("an event", || {
            let events = self.kubectl().get("events")?;
            let mut all = events["items"].as_array().into_iter().flatten();
            let found = all.any(|event| {
                event["involvedObject"]["name"] == service
                    && event["type"] == kind
                    && event["reason"] == reason
                    && event["message"].as_str().is_some_and(|message| message.contains(text))
            });
            ensure!(found, "no {kind} {reason} about {service} in {events}");
            Ok(())
        })
    }
}

fn pool(address: &str) -> String {
    format!(
        "---\n{}\n",
        json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"},
            "spec": {"address": address, "protocol": "layer2", "interface": "eth0"},
        })
    )
}

fn service(name: &str, annotations: &[(&str, &str)]) -> String {
    let mut all = json!({"lb.kubesphere.io/v1alpha1": "openelb"});
    for (key, value) in annotations {
        all[key] = json!(value);
    }
    format!(
        "---\n{}\n",
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": all},
            "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        })
    )
}

/// [B04 B05 B09 B11 B16 B17 B18 B20 A14 A15 B25]
#[test]
fn b16_services_get_addresses_keep_them_and_give_them_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let in_pool = (LABEL, "pool");
    kubectl.apply(&format!(
        "{}{}{}{}{}",
        pool("10.10.1.0/24"),
        service("any", &[in_pool]),
        service("asks", &[in_pool, ("eip.openelb.kubesphere.io/v1alpha1", "10.10.1.99")]),
        service("nobody", &[]),
        "---\n{apiVersion: v1, kind: Service, metadata: {name: others}, spec: {type: LoadBalancer, ports: [{port: 80}]}}\n"
    ))?;
    let mut first = cluster.start("first")?;
    let any = cluster.shows("any", Some("10.10.1.0"))?;
    ensure!(any["metadata"]["labels"][LABEL] == "pool", "{any}");
    ensure!(
        any["metadata"]["finalizers"] == json!(["finalizer.lb.kubesphere.io/v1alpha1"]),
        "{any}"
    );
    cluster.shows("asks", Some("10.10.1.99"))?;
    let eip = cluster.records(&json!({"10.10.1.0": "default/any", "10.10.1.99": "default/asks"}))?;
    let status = &eip["status"];
    ensure!(
        status["poolSize"] == 256 && status["usage"] == 2 && status["occupied"] == false && status["v4"] == true,
        "{status}"
    );
    ensure!(
        status["firstIP"] == "10.10.1.0" && status["lastIP"] == "10.10.1.255",
        "{status}"
    );
    ensure!(
        eip["metadata"]["finalizers"] == json!(["finalizer.ipam.kubesphere.io/v1alpha1"]),
        "{eip}"
    );
    cluster.has_event("any", "Normal", "AssignIP", "10.10.1.0")?;
    cluster.has_event("nobody", "Warning", "AssignIPFailed", "annotation")?;
    let others = cluster.shows("others", None)?;
    ensure!(others["metadata"].get("finalizers").is_none(), "{others}");

    // Another that would lead does, at once, when the first one is told to end; nobody's address changes.
    let mut second = cluster.start("second")?;
    ensure!(first.stop(wait::patience())?.success(), "{}", first.log());
    kubectl.run(&format!("annotate service nobody {LABEL}=pool"))?;
    cluster.shows("nobody", Some("10.10.1.1"))?;
    cluster.shows("any", Some("10.10.1.0"))?;

    // Deleted, or not ours any more.
    kubectl.run("delete service asks --timeout=60s")?;
    kubectl.run("annotate service any lb.kubesphere.io/v1alpha1-")?;
    let any = cluster.shows("any", None)?;
    ensure!(any["metadata"]["labels"].get(LABEL).is_none(), "{any}");
    ensure!(any["metadata"].get("finalizers").is_none(), "{any}");
    cluster.records(&json!({"10.10.1.1": "default/nobody"}))?;
    ensure!(second.stop(wait::patience())?.success(), "{}", second.log());
    Ok(())
}

/// [B22 B24] Nothing changes for Services and Eips that OpenELB 0.6 has left, and nothing is written twice.
#[test]
fn b22_what_openelb_has_given_out_is_taken_over_as_it_is() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&format!(
        "{}{}{}",
        pool("10.10.1.0/24"),
        service("old", &[(LABEL, "pool")]),
        service("new", &[(LABEL, "pool")]),
    ))?;
    kubectl.run("label service old eip.openelb.kubesphere.io/v1alpha2=pool")?;
    kubectl.patch(
        "service old",
        &json!({"metadata": {"finalizers": ["finalizer.lb.kubesphere.io/v1alpha1"]}}),
    )?;
    kubectl.patch(
        "eip pool",
        &json!({"metadata": {"finalizers": ["finalizer.ipam.kubesphere.io/v1alpha1"]}}),
    )?;
    kubectl.patch_status(
        "service old",
        &json!({"loadBalancer": {"ingress": [{"ip": "10.10.1.7"}]}}),
    )?;
    kubectl.patch_status(
        "eip pool",
        &json!({
            "used": {"10.10.1.7": "default/old"}, "usage": 1, "poolSize": 256, "occupied": false,
            "firstIP": "10.10.1.0", "lastIP": "10.10.1.255", "v4": true, "ready": true,
        }),
    )?;
    let before = kubectl.get("service old")?;
    let mut controller = cluster.start("only")?;
    cluster.shows("new", Some("10.10.1.0"))?;
    cluster.records(&json!({"10.10.1.0": "default/new", "10.10.1.7": "default/old"}))?;
    let after = kubectl.get("service old")?;
    let eip = kubectl.get("eip pool")?;
    ensure!(eip["status"]["ready"] == true, "what it does not write stays: {eip}");
    ensure!(
        before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "{before}\n{after}"
    );
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}
