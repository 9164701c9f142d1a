//! Taking Weir off the nodes, as the chart does with `agent.detach`.

use crate::{
    cluster::Cluster,
    deploy::{self, NAMESPACE},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tests::{
    kube::{Container, Image, Kubectl, Running},
    lab::{Node, foreign, wait},
};

/// What a scheduler and the nodes' kubelets do with agents' pods; who has the DaemonSet make them is the real one.
struct Kubelets<'a> {
    cluster: &'a Cluster,
    image: &'a Image,
    /// By the names of their pods.
    running: BTreeMap<String, Running>,
}

impl Kubelets<'_> {
    fn kubectl(&self) -> &Kubectl {
        self.cluster.control_plane.kubectl()
    }

    fn pods(&self) -> Result<Vec<Value>> {
        // Tokens of agents are bound to pods of the tests' own.
        let selector = "app.kubernetes.io/component=agent";
        let list = self.kubectl().get(&format!("pods -n {NAMESPACE} -l {selector}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Once for each pod: to its node, on it, or away.
    fn step(&mut self) -> Result<()> {
        for pod in self.pods()? {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let mentioned = format!("pod {name} -n {NAMESPACE}");
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.running.remove(name);
                self.kubectl()
                    .run(&format!("delete {mentioned} --force --grace-period=0 --wait=false"))?;
            } else if pod["status"]["phase"] != "Running" {
                let node = self.node_of(&pod)?;
                self.bind(name, &node.name)?;
                let running = self.start(&pod, node)?;
                self.running.insert(name.to_owned(), running);
                let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
                self.kubectl().patch_status(&mentioned, &status)?;
            }
        }
        Ok(())
    }

    /// The one that the DaemonSet wants it on.
    fn node_of(&self, pod: &Value) -> Result<&Node> {
        let affinity = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let name = &affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"][0];
        let mut nodes = self.cluster.lab.nodes.iter();
        nodes
            .find(|node| *name == node.name)
            .with_context(|| format!("no node {name}"))
    }

    fn bind(&self, pod: &str, node: &str) -> Result<()> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/binding");
        self.kubectl()
            .run_with(&format!("create --raw {path}"), &binding.to_string())
            .map(drop)
    }

    /// Runs what comes first to its end, and starts what is to go on.
    fn start(&self, pod: &Value, node: &Node) -> Result<Running> {
        let workload = json!({"spec": {"template": {"spec": pod["spec"]}}});
        let around = deploy::on_node(self.image, &self.cluster.lab, node)?;
        if let Ok(first) = Container::of(&workload, "initContainers") {
            first.finish("weir-first", &around)?;
        }
        let container = Container::of(&workload, "containers")?;
        if pod["spec"]["containers"][0]["readinessProbe"].is_object() {
            return deploy::start_agent(&container, self.image, self.cluster, node);
        }
        // Ready as soon as it runs.
        container.start("weir-agent", &around)
    }

    /// Returns when `kubectl rollout status` does.
    fn roll_out(&mut self) -> Result<()> {
        let status = format!("rollout status daemonset weir-agent -n {NAMESPACE} --watch=false");
        wait::until("the pods of all nodes", || {
            self.step()?;
            let said = self.kubectl().run(&status)?;
            ensure!(said.contains("successfully rolled out"), "{said}");
            Ok(())
        })
    }
}

/// [G04] By the documented steps, on every node, though few agents may be away at a time otherwise; the pods that are ready then go on,
/// may do nothing, and end when they are told to.
#[test]
fn g04_agents_that_are_to_detach_leave_nothing_on_their_nodes() -> Result<()> {
    Cluster::play(|cluster| {
        let image = Image::unpack(deploy::NATIVE, &cluster.lab.directory().join("image"))?;
        // As kubelets label their nodes; pods for Windows would find no node of the lab.
        let kubectl = cluster.control_plane.kubectl();
        kubectl.run("label nodes --all kubernetes.io/os=linux")?;
        let windows = json!({"name": "windows", "labels": {"kubernetes.io/os": "windows"}});
        kubectl.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": windows}).to_string())?;
        let _daemon_sets = cluster.control_plane.start_daemon_sets()?;
        let helm = cluster.control_plane.helm()?;
        helm.release("install", NAMESPACE, &["--set=crds.install=false"])?;
        let mut kubelets = Kubelets {
            cluster,
            image: &image,
            running: BTreeMap::new(),
        };
        kubelets.roll_out()?;
        for node in &cluster.lab.nodes {
            let pins = cluster.lab.pin_directory(node).join("weir");
            let attached = foreign::count(&node.namespace, "eth0")?;
            ensure!(pins.exists() && attached == [1, 1], "{attached:?}");
        }

        let detach = ["--reuse-values", "--set", "agent.detach=true"];
        helm.release("upgrade", NAMESPACE, &detach)?;
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}});
        let wanted = kubelets
            .kubectl()
            .get(&format!("daemonset weir-agent -n {NAMESPACE}"))?;
        ensure!(wanted["spec"]["updateStrategy"] == strategy, "{}", wanted["spec"]);
        kubelets.roll_out()?;
        for node in &cluster.lab.nodes {
            let pins = cluster.lab.pin_directory(node).join("weir");
            ensure!(!pins.exists(), "{} is still there", pins.display());
            // The kernel takes a program off its device a moment after the last reference is gone.
            wait::until("the programs to be gone", || {
                let left = foreign::count(&node.namespace, "eth0")?;
                ensure!(left == [0, 0], "{left:?} are left on {}", node.name);
                Ok(())
            })?;
        }
        for pod in kubelets.pods()? {
            let container = &pod["spec"]["containers"][0];
            ensure!(
                container["securityContext"]["capabilities"] == json!({"drop": ["ALL"]}),
                "{container}"
            );
            ensure!(container["volumeMounts"].is_null(), "{container}");
        }
        for mut pausing in kubelets.running.into_values() {
            let status = pausing.stop()?;
            ensure!(status.success(), "{status}: {}", pausing.log());
        }
        Ok(())
    })
}
