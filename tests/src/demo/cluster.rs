//! The same story in Kubernetes: a real API server and real kubectl, OpenELB's manifests applied as they are, Services made
//! while everything runs, the leading controller killed, the API server gone.

use super::{report, stage::expect};
use crate::{
    kube::{ControlPlane, WEIR_NAMESPACE, program},
    lab::{
        Agent, Family, Lab, Shape, address::vip, agent, client, process::Process, servers, servers::Web,
        traffic::Requests, wait,
    },
};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

const GUIDE: &str = "tests/samples/layer2.yaml";
/// The first address of the guide's Eip.
const GUIDE_ADDRESS: &str = "192.168.0.91";

/// Everything, in the order it is to end in.
pub(super) struct Cluster {
    agents: Vec<Agent>,
    controllers: Vec<(&'static str, Process)>,
    /// How many have been started so far.
    started: u16,
    kubeconfig: PathBuf,
    control_plane: ControlPlane,
    _webs: Vec<Web>,
    pub(super) lab: Lab,
}

impl Cluster {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new(Shape::default())?;
        let _webs = servers::start_web_everywhere(&lab)?;
        let control_plane = ControlPlane::start_in(&lab)?;
        Ok(Self {
            agents: Vec::new(),
            controllers: Vec::new(),
            started: 0,
            kubeconfig: PathBuf::new(),
            control_plane,
            _webs,
            lab,
        })
    }

    /// Runs kubectl and shows it.
    fn kubectl(&self, line: &str) -> Result<String> {
        let output = self.control_plane.kubectl().run(line)?;
        report::command("admin", &format!("kubectl {line}"), &output);
        Ok(output)
    }

    /// Applies a manifest that is shown too.
    fn apply(&self, manifest: &str) -> Result<()> {
        report::text(manifest);
        let output = self.control_plane.kubectl().apply(manifest)?;
        report::command("admin", "kubectl apply -f -", &output);
        Ok(())
    }

    /// Shows that a manifest is refused with this text, once the API server knows whom to ask.
    fn refused(&self, manifest: &str, text: &str) -> Result<()> {
        report::text(manifest);
        let kubectl = self.control_plane.kubectl();
        wait::until("the API server to ask the controller", || {
            let asked = kubectl.run_with("apply --dry-run=server", manifest);
            ensure!(asked.is_err(), "{asked:?}");
            Ok(())
        })?;
        let Err(refusal) = kubectl.apply(manifest) else {
            bail!("it is not refused");
        };
        let refusal = format!("{refusal:#}");
        expect(refusal.contains(text), || format!("{text}, not {refusal}"))?;
        report::command("admin", "kubectl apply -f -", &refusal);
        Ok(())
    }

    /// Waits for something that kubectl says, then shows how it says it.
    fn awaited(&self, line: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        wait::until(line, || {
            let output = self.control_plane.kubectl().run(line)?;
            ensure!(holds(&output), "it says {output}");
            Ok(())
        })?;
        self.kubectl(line)
    }

    fn start_controller(&mut self, identity: &'static str) -> Result<()> {
        // All are in one namespace, where in a cluster each has a pod; the API server asks the leader.
        let port = 9443 + self.started;
        self.started += 1;
        let (listen, url) = (format!("127.0.0.1:{port}"), format!("https://127.0.0.1:{port}"));
        let arguments = ["--webhook", &listen, "--webhook-url", &url, "--metrics", "off"];
        let controller = self
            .control_plane
            .start_controller(&self.kubeconfig, identity, &arguments)?;
        self.controllers.push((identity, controller));
        Ok(())
    }

    fn leader(&self) -> Result<String> {
        let holder = format!("get lease weir-controller -n {WEIR_NAMESPACE} -o jsonpath={{.spec.holderIdentity}}");
        self.control_plane.kubectl().run(&holder)
    }

    pub(super) fn print_playground(&self) -> Result<()> {
        let (client, namespace) = (self.lab.client.name(), self.control_plane.namespace().path());
        let (kubectl, kubeconfig) = (program("kubectl")?, self.control_plane.kubectl().kubeconfig());
        println!("\nThe cluster stays. In another terminal, as root:");
        println!(
            "  nsenter --net={} {} --kubeconfig {} get eips,services,events",
            namespace.display(),
            kubectl.display(),
            kubeconfig.display()
        );
        println!("  ip netns exec {client} curl -s http://10.10.1.2/");
        println!("Enter ends it.");
        Ok(())
    }

    /// Makes the client's requests to an address outside the lab's own come to the nodes.
    fn route(&self, address: &str) -> Result<()> {
        self.lab.router.ip_batch(&format!("route add {address}/32 dev lan\n"))
    }
}

pub(super) fn network(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl("version")?;
    let nodes = cluster.kubectl("get nodes -o wide")?;
    expect(nodes.lines().count() == 1 + cluster.lab.nodes.len(), || {
        "three nodes".into()
    })?;
    report::shown("etcd, kube-apiserver and its controllers run in a namespace on the nodes' network.");
    Ok(())
}

pub(super) fn install(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl("apply -f crds/yaml")?;
    cluster.kubectl(&format!("create namespace {WEIR_NAMESPACE}"))?;
    for file in ["rbac-controller", "rbac-agent"] {
        cluster.kubectl(&format!("apply -f deploy/{file}.yaml"))?;
    }
    cluster.kubeconfig = cluster.control_plane.as_controller()?.kubeconfig().to_owned();
    cluster.start_controller("controller-a")?;
    cluster.start_controller("controller-b")?;
    for node in &cluster.lab.nodes {
        let agent = cluster.control_plane.as_agent_of(&node.name)?;
        cluster
            .agents
            .push(Agent::launch_in_cluster(&cluster.lab, node, agent.kubeconfig())?);
    }
    for agent in &mut cluster.agents {
        agent.wait_until_ready(&cluster.lab)?;
    }
    let line = format!("get lease weir-controller -n {WEIR_NAMESPACE}");
    cluster.awaited(&line, |output| output.contains("controller-"))?;
    report::shown(
        "Two controllers, of which the Lease says who leads, and an agent on each node; each with its own token.",
    );
    Ok(())
}

pub(super) fn guide(cluster: &mut Cluster) -> Result<()> {
    let pods: String = cluster.lab.pods().map(pod).collect();
    cluster.control_plane.kubectl().apply(&pods)?;
    for pod in cluster.lab.pods() {
        let addresses = [Family::V4, Family::V6].map(|family| json!({"ip": pod.address(family)}));
        let status = json!({
            "phase": "Running", "podIP": pod.address(Family::V4), "podIPs": addresses,
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "web", "ready": true, "started": true, "restartCount": 0, "image": "web", "imageID": "",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        });
        cluster
            .control_plane
            .kubectl()
            .patch_status(&format!("pod {}", pod.name), &status)?;
    }
    cluster.kubectl("get pods -o wide")?;
    cluster.kubectl(&format!("apply -f {GUIDE}"))?;
    cluster.awaited("get service layer2-svc", |output| output.contains(GUIDE_ADDRESS))?;
    cluster.kubectl("get eip layer2-eip -o jsonpath={.status.used}{.status.usage}/{.status.poolSize}")?;
    cluster.awaited("get events --field-selector involvedObject.name=layer2-svc", |output| {
        output.contains("AssignIP")
    })?;
    cluster.route(GUIDE_ADDRESS)?;
    let all: BTreeSet<String> = cluster.lab.pods().map(|pod| pod.name.clone()).collect();
    let to = SocketAddr::new(GUIDE_ADDRESS.parse()?, 80);
    wait::until("every pod", || {
        let seen: Result<BTreeSet<String>> = cluster
            .lab
            .client
            .run(|| (0..60).map(|_| Ok(client::ask(to)?.pod)).collect());
        let seen = seen?;
        ensure!(seen == all, "answers of {seen:?}");
        Ok(())
    })?;
    let line = format!("curl -s http://{GUIDE_ADDRESS}/");
    let answer = agent::finished(cluster.lab.client.command("sh").args(["-c", &line]))?;
    report::command("client", &line, &answer);
    report::shown("OpenELB's own guide to Layer 2 mode, with every pod reached; Kubernetes made the EndpointSlices.");
    Ok(())
}

/// A pod of the lab as Kubernetes has one that a kubelet runs.
fn pod(pod: &crate::lab::Pod) -> String {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "labels": {"app": "layer2-openelb"}},
        "spec": {"nodeName": pod.node, "containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080}]}]},
    });
    format!("---\n{object}\n")
}

pub(super) fn live(cluster: &mut Cluster) -> Result<()> {
    let network = crate::lab::address::vip_network(Family::V4);
    let default = "\n  annotations: {eip.openelb.kubesphere.io/is-default-eip: \"true\"}";
    cluster.apply(&eip("office", network, default))?;
    cluster.apply(&service("argocd"))?;
    cluster.awaited("get service argocd", |output| output.contains("10.10.1.0"))?;
    reached(cluster, vip(Family::V4, 0))?;
    report::shown("A pool that is the default, and a Service that says nothing but that it is OpenELB's.");
    Ok(())
}

pub(super) fn mistakes(cluster: &mut Cluster) -> Result<()> {
    let network = crate::lab::address::vip_network(Family::V4);
    cluster.refused(&eip("again", network, ""), "office")?;
    let wrong = "v1alpha1: openelb, eip.openelb.kubesphere.io/v1alpha2: ofice}";
    cluster.apply(&service("broken").replace("v1alpha1: openelb}", wrong))?;
    let condition = "get service broken -o jsonpath={.status.conditions[0].reason}:{.status.conditions[0].message}";
    cluster.awaited(condition, |output| output.contains("there is no Eip ofice"))?;
    cluster.awaited("get events --field-selector involvedObject.name=broken", |output| {
        output.contains("AssignIPFailed")
    })?;
    reached(cluster, vip(Family::V4, 0))?;
    report::shown(
        "What no object can be is refused; what is wrong is on the object, with its field and what to do; the others go on.",
    );
    Ok(())
}

pub(super) fn nodes(cluster: &mut Cluster) -> Result<()> {
    let line = "get eip office -o jsonpath={.status.ready}{\"\\n\"}{.status.nodes}";
    let said = cluster.awaited(line, |output| {
        output.starts_with("true") && output.matches("\"ready\":true").count() == 3 && output.contains("10.10.1.0")
    })?;
    expect(said.matches("announces").count() == 1, || {
        "one node that answers for the address".into()
    })?;
    report::shown("Each node says how the Eip stands there, and one of them that it draws the traffic of the address.");
    Ok(())
}

pub(super) fn leader_killed(cluster: &mut Cluster) -> Result<()> {
    let requests = Requests::start(&cluster.lab.client, SocketAddr::new(vip(Family::V4, 0), 80));
    let leader = cluster.leader()?;
    let at = cluster.controllers.iter().position(|(identity, _)| *identity == leader);
    let (identity, mut controller) = cluster.controllers.remove(at.unwrap_or_default());
    controller.kill()?;
    report::command("control plane", &format!("kill -9 {identity}"), "");
    cluster.apply(&service("late"))?;
    cluster.awaited("get service late", |output| output.contains("10.10.1.1"))?;
    cluster.kubectl(&format!("get lease weir-controller -n {WEIR_NAMESPACE}"))?;
    let now = cluster.leader()?;
    expect(now != leader, || format!("another leader than {leader}"))?;
    reached(cluster, vip(Family::V4, 1))?;
    cluster.start_controller("controller-c")?;
    let tally = requests.finish()?;
    expect(tally.failures.is_empty() && tally.total() > 0, || {
        format!("no failures, not {:?}", tally.failures)
    })?;
    report::shown(&format!(
        "{now} led when the Lease of {leader} had run out, and served what waited; of {} requests meanwhile none failed.",
        tally.total()
    ));
    Ok(())
}

pub(super) fn server_gone(cluster: &mut Cluster) -> Result<()> {
    let requests = Requests::start(&cluster.lab.client, SocketAddr::new(vip(Family::V4, 0), 80));
    cluster.control_plane.stop_api_server()?;
    report::command("control plane", "kill -9 kube-apiserver", "");
    reached(cluster, vip(Family::V4, 1))?;
    cluster.control_plane.start_api_server()?;
    cluster.apply(&service("after"))?;
    cluster.awaited("get service after", |output| output.contains("10.10.1.2"))?;
    reached(cluster, vip(Family::V4, 2))?;
    let tally = requests.finish()?;
    expect(tally.failures.is_empty() && tally.total() > 0, || {
        format!("no failures, not {:?}", tally.failures)
    })?;
    report::shown(&format!(
        "Nobody could be asked, and of {} requests none failed; then all went on.",
        tally.total()
    ));
    Ok(())
}

pub(super) fn given_back(cluster: &mut Cluster) -> Result<()> {
    cluster.kubectl("delete service argocd late")?;
    cluster.awaited("get eip office -o jsonpath={.status.used}", |output| {
        output.contains("default/after") && !output.contains("argocd") && !output.contains("late")
    })?;
    report::shown("No finalizer holds a Service that is deleted, and its address is free.");
    Ok(())
}

fn eip(name: &str, addresses: &str, annotations: &str) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata:\n  name: {name}{annotations}\n\
         spec: {{address: {addresses}, protocol: layer2, interface: eth0}}\n"
    )
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {{lb.kubesphere.io/v1alpha1: openelb}}\n\
         spec:\n  type: LoadBalancer\n  selector: {{app: layer2-openelb}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
    )
}

/// Shows that a client gets an answer, as soon as it does.
fn reached(cluster: &Cluster, address: IpAddr) -> Result<()> {
    let line = format!("curl -s -m 2 http://{address}/");
    let answer = wait::until("an answer", || {
        agent::finished(cluster.lab.client.command("sh").args(["-c", &line]))
    })?;
    report::command("client", &line, &answer);
    expect(answer.starts_with("pod="), || "a pod's answer".into())
}
