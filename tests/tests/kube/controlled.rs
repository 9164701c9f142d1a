//! A control plane with `weir controller` and the rights it is delivered with.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tests::{
    kube::{ControlPlane, Kubectl},
    lab::{client, process::Process, wait},
};

pub const LABEL: &str = "eip.openelb.kubesphere.io/v1alpha2";
/// The annotation that asks for an address.
pub const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
/// The annotation that makes an Eip the default.
pub const DEFAULT: &str = "eip.openelb.kubesphere.io/is-default-eip";

/// Services but for their conditions, by `namespace/name`.
pub type Versions = BTreeMap<String, Value>;

/// Whether none of the Services that were there `before` has been written to since.
pub fn left_alone(before: &Versions, now: &Versions) -> Result<()> {
    let written = before.iter().filter(|(name, then)| now.get(*name) != Some(then));
    let written: Vec<_> = written.map(|(name, then)| (then, now.get(name))).collect();
    ensure!(written.is_empty(), "written to since, then and now: {written:?}");
    Ok(())
}

/// A Service without what is told in its conditions some time after it became so: neither these, nor that they were written.
/// Any other write shows, also one that is taken back a second later: the API server notes the writer, and the second.
fn but_for_conditions(mut service: Value) -> Value {
    let metadata = &mut service["metadata"];
    metadata["resourceVersion"].take();
    if let Some(writers) = metadata["managedFields"].as_array_mut() {
        writers.retain(|writer| writer["manager"] != "weir-controller" || writer["operation"] != "Apply");
    }
    if let Some(status) = service["status"].as_object_mut() {
        status.remove("conditions");
    }
    service
}

/// A control plane, and what controllers there need.
pub struct Cluster {
    pub control_plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// Of its own, with definitions and rights, and nobody who leads yet.
    pub fn new() -> Result<Self> {
        let control_plane = ControlPlane::start()?;
        control_plane.apply_definitions()?;
        Self::on(control_plane)
    }

    /// On a control plane that has definitions.
    pub fn on(control_plane: ControlPlane) -> Result<Self> {
        control_plane.kubectl().run("create namespace weir-system")?;
        Ok(Self {
            kubeconfig: control_plane.give_controller_rights()?,
            control_plane,
        })
    }

    pub fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    /// Starts a controller.
    pub fn start(&self, identity: &str) -> Result<Process> {
        self.start_with(identity, &[])
    }

    /// Starts a controller with more arguments.
    pub fn start_with(&self, identity: &str, arguments: &[&str]) -> Result<Process> {
        self.control_plane
            .start_controller(&self.kubeconfig, identity, arguments)
    }

    /// Makes the Eip `pool` and the Service `old`, which has 10.10.1.7 of it, as OpenELB 0.6 leaves them.
    pub fn is_left_by_openelb(&self) -> Result<()> {
        let kubectl = self.kubectl();
        kubectl.apply(&format!(
            "{}{}",
            pool("10.10.1.0/24"),
            service("old", &[(LABEL, "pool")])
        ))?;
        kubectl.run(&format!("label service old {LABEL}=pool"))?;
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
        Ok(())
    }

    /// Waits until the Service (`name`, or `namespace/name`) shows this address, or none.
    pub fn shows(&self, service: &str, address: Option<&str>) -> Result<Value> {
        let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
        wait::until("the status of a Service", || {
            let found = self.kubectl().get(&format!("service {name} -n {namespace}"))?;
            let shown = found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            ensure!(shown == address, "{service} shows {shown:?}, not {address:?}");
            Ok(found)
        })
    }

    /// Waits until each of these Services of namespace default shows this address.
    pub fn show<'a>(&self, all: impl IntoIterator<Item = (&'a str, &'a str)> + Clone) -> Result<()> {
        wait::until("the statuses of Services", || {
            let now = shown(self.kubectl())?;
            for (name, address) in all.clone() {
                let shown = now.get(&format!("default/{name}")).map(String::as_str);
                ensure!(shown == Some(address), "{name} shows {shown:?}, not {address}");
            }
            Ok(())
        })
    }

    /// Waits until these Services, and no others, are recorded in the Eip.
    pub fn records(&self, used: &Value) -> Result<Value> {
        wait::until("the status of the Eip", || {
            let found = self.kubectl().get("eip pool")?;
            ensure!(found["status"]["used"] == *used, "{}", found["status"]);
            Ok(found)
        })
    }

    /// Waits until this Eip has these in its book, and says so with its figures.
    pub fn has_book(&self, eip: &str, used: &Value) -> Result<Value> {
        wait::until("the book of an Eip", || {
            let found = self.kubectl().get(&format!("eip {eip}"))?;
            let status = &found["status"];
            let entries = status["used"].as_object().cloned().unwrap_or_default();
            ensure!(json!(entries) == *used, "{eip}: {status}");
            let (usage, size) = (status["usage"].as_u64(), status["poolSize"].as_u64());
            ensure!(usage == Some(entries.len() as u64), "{eip}: {status}");
            ensure!(status["occupied"].as_bool() == Some(usage == size), "{eip}: {status}");
            Ok(found)
        })
    }

    /// Waits until the controller has acted on all that has been written to Services, Eips and Namespaces before: of each kind
    /// something comes after it, without which the last one to come gets no address. `number` is another each time.
    ///
    /// Gives all Services as they are then, with who wrote which field when ([`but_for_conditions`]).
    pub fn has_caught_up(&self, number: u8) -> Result<Versions> {
        let (name, address) = (format!("last-{number}"), format!("10.250.0.{number}"));
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"last": number.to_string()}},
        });
        let mut last: Value = serde_json::from_str(service("last", &[]).trim_start_matches("---\n"))?;
        last["metadata"]["namespace"] = json!(name);
        let spec = json!({"address": address, "namespaceSelector": {"last": number.to_string()}});
        let eip = eip(&name, &spec, &json!({}));
        self.kubectl().apply(&format!("{namespace}\n{eip}---\n{last}\n"))?;
        wait::until("the last one to be served", || {
            let services = self.kubectl().get("services -A --show-managed-fields")?;
            let all: Vec<&Value> = services["items"].as_array().into_iter().flatten().collect();
            let last = all.iter().find(|one| one["metadata"]["namespace"] == name);
            let shown = last.map(|last| &last["status"]["loadBalancer"]["ingress"][0]["ip"]);
            ensure!(shown == Some(&json!(address)), "{name}/last shows {shown:?}");
            let text = |one: &Value, field: &str| one["metadata"][field].as_str().unwrap_or_default().to_owned();
            let version = |one: &&Value| {
                let key = format!("{}/{}", text(one, "namespace"), text(one, "name"));
                (key, but_for_conditions((*one).clone()))
            };
            Ok(all.iter().map(version).collect())
        })
    }

    /// Waits for an event about a Service (`name`, or `namespace/name`), with these words.
    pub fn has_event(&self, service: &str, kind: &str, reason: &str, text: &str) -> Result<()> {
        let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
        wait::until("an event", || {
            let events = self.kubectl().get(&format!("events -n {namespace}"))?;
            let mut all = events["items"].as_array().into_iter().flatten();
            let found = all.any(|event| {
                event["involvedObject"]["name"] == name
                    && event["type"] == kind
                    && event["reason"] == reason
                    && event["message"].as_str().is_some_and(|message| message.contains(text))
            });
            ensure!(found, "no {kind} {reason} about {service} in {events}");
            Ok(())
        })
    }

    /// Whether there is no event about a Service of namespace default for this reason.
    pub fn has_no_event(&self, service: &str, reason: &str) -> Result<bool> {
        let events = self.kubectl().get("events")?;
        let mut all = events["items"].as_array().into_iter().flatten();
        Ok(all.all(|event| event["involvedObject"]["name"] != service || event["reason"] != reason))
    }

    /// What a controller says at this path of its port for metrics.
    pub fn asks(&self, port: u16, path: &str) -> Result<String> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let body = self.control_plane.namespace().run(|| client::get(address, path))?;
        Ok(String::from_utf8(body)?)
    }
}

/// The addresses of the Services of namespace default that show one, by `namespace/name`.
pub fn shown(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let services = kubectl.get("services")?;
    let all = services["items"].as_array().into_iter().flatten();
    let shown = all.filter_map(|service| {
        let address = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?;
        let name = service["metadata"]["name"].as_str()?;
        Some((format!("default/{name}"), address.to_owned()))
    });
    Ok(shown.collect())
}

/// What Services show, if each has an address of its own and the Eip `pool` has the same in its book.
pub fn shown_and_recorded(kubectl: &Kubectl) -> Result<BTreeMap<String, String>> {
    let shown = shown(kubectl)?;
    let eip = kubectl.get("eip pool")?;
    let used: BTreeMap<String, String> = serde_json::from_value(eip["status"]["used"].clone())?;
    let holders: BTreeMap<&String, &String> = shown.iter().map(|(name, address)| (address, name)).collect();
    ensure!(
        holders.len() == shown.len() && used.iter().eq(holders),
        "recorded {used:?}, shown {shown:?}"
    );
    Ok(shown)
}

/// An Eip with this `spec` and these annotations.
pub fn eip(name: &str, spec: &Value, annotations: &Value) -> String {
    format!(
        "---\n{}\n",
        json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": {"name": name, "annotations": annotations}, "spec": spec,
        })
    )
}

/// The Eip `pool`.
pub fn pool(address: &str) -> String {
    format!(
        "---\n{}\n",
        json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"},
            "spec": {"address": address, "protocol": "layer2", "interface": "eth0"},
        })
    )
}

/// A Service of ours with these annotations beside.
pub fn service(name: &str, annotations: &[(&str, &str)]) -> String {
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

/// A Service like [`service`], with other fields of `spec` over its own.
pub fn with_spec(name: &str, annotations: &[(&str, &str)], fields: &Value) -> Result<String> {
    let text = service(name, annotations);
    let mut object: Value = serde_json::from_str(text.trim_start_matches("---\n"))?;
    for (field, value) in fields.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    Ok(format!("---\n{object}\n"))
}
