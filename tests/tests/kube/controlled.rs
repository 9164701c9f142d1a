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

    /// Waits until the Service shows this address, or none.
    pub fn shows(&self, service: &str, address: Option<&str>) -> Result<Value> {
        wait::until("the status of a Service", || {
            let found = self.kubectl().get(&format!("service {service}"))?;
            let shown = found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            ensure!(shown == address, "{service} shows {shown:?}, not {address:?}");
            Ok(found)
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

    /// Waits for an event about a Service of namespace default, with these words.
    pub fn has_event(&self, service: &str, kind: &str, reason: &str, text: &str) -> Result<()> {
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
