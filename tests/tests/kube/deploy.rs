//! What the manifests start, started as they say from the image there is: its static program with nothing beside it, their
//! arguments, users and capabilities, everything read-only but what they mount.

use crate::{cluster::Cluster, names::NameServer, objects, workloads};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
};
use tests::{
    kube::{Container, Image, KubeProxy, Manifests, ProxyMode, Running, Surroundings},
    lab::{Family, Lab, Namespace, Node, client, manifests, wait},
};

/// The plain manifests.
pub const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weir.yaml");
/// Architectures of images: of this machine's, and another's.
pub const NATIVE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};
const FOREIGN: &str = if cfg!(target_arch = "aarch64") {
    "amd64"
} else {
    "arm64"
};
/// The name by which the API server is looked for; its certificate has it.
pub const API_SERVER: &str = "kubernetes.default.svc";

pub use tests::kube::WEIR_NAMESPACE as NAMESPACE;

/// What an agent's pod has around it; pins are in a folder of the lab's.
pub fn on_node<'a>(image: &'a Image, lab: &Lab, node: &'a Node) -> Result<Surroundings<'a>> {
    let folders = [
        (lab.pin_directory(node), "/sys/fs/bpf"),
        (lab.state_directory(node), "/var/lib/weir"),
    ];
    for (folder, _) in &folders {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(Surroundings {
        image,
        host: &node.namespace,
        folder: lab.directory().join(&node.name),
        mounts: folders.map(|(folder, at)| (folder, at.to_owned())).into(),
        environment: vec![("NODE_NAME", node.name.clone())],
    })
}

/// What the controller's pod has around it, beside the control plane; the names that `names` knows among it.
pub fn beside_the_api<'a>(image: &'a Image, cluster: &'a Cluster, names: &NameServer) -> Result<Surroundings<'a>> {
    let control_plane = &cluster.control_plane;
    let mut around = Surroundings {
        image,
        host: control_plane.namespace(),
        folder: control_plane.directory().to_owned(),
        mounts: Vec::new(),
        environment: vec![
            ("OPENELB_NAMESPACE", NAMESPACE.to_owned()),
            ("POD_NAME", "weir-controller-0".to_owned()),
        ],
    };
    let settings = control_plane.directory().join("resolv.conf");
    fs::write(&settings, format!("nameserver {}\n", names.address()))?;
    around.mounts.push((settings, "/etc/resolv.conf".to_owned()));
    around.in_cluster(control_plane, NAMESPACE, "weir-controller", API_SERVER)?;
    Ok(around)
}

/// The controller of the manifests, once its probes succeed.
pub fn start_controller(manifests: &Manifests, around: &Surroundings<'_>) -> Result<Running> {
    let controller = Container::of(manifests.object("Deployment", "weir-controller")?, "containers")?;
    ensure!(controller.user()? != 0, "the controller is root");
    let mut leader = controller.start("weir-controller", around)?;
    controller.wait_for_probes(&mut leader, around.host)?;
    Ok(leader)
}

/// The address that a Service gets.
pub fn address_of(cluster: &Cluster, service: &str) -> Result<IpAddr> {
    wait::until("an address", || {
        let service = cluster.control_plane.kubectl().get(&format!("service {service}"))?;
        let address = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        Ok(address.context("none yet")?.parse()?)
    })
}

/// Of the API server.
pub fn api_server_address(cluster: &Cluster) -> Result<String> {
    let server = cluster.control_plane.server();
    let authority = server.strip_prefix("https://").context("no URL")?;
    Ok(authority.parse::<SocketAddr>()?.ip().to_string())
}

/// An agent of `container`, once its probes succeed.
pub fn start_agent(container: &Container<'_>, image: &Image, cluster: &Cluster, node: &Node) -> Result<Running> {
    let mut around = on_node(image, &cluster.lab, node)?;
    around.in_cluster(
        &cluster.control_plane,
        NAMESPACE,
        "weir-agent",
        &api_server_address(cluster)?,
    )?;
    let mut agent = container.start("weir-agent", &around)?;
    container.wait_for_probes(&mut agent, &node.namespace)?;
    Ok(agent)
}

/// Gives the API server the plain manifests, and reads them.
pub fn apply(cluster: &Cluster) -> Result<Manifests> {
    let kubectl = cluster.control_plane.kubectl();
    kubectl.run(&format!("apply --server-side --force-conflicts -f {MANIFESTS}"))?;
    Manifests::read_file(MANIFESTS)
}

/// The ports at which containers of the image are reached in this network, from whatever address.
fn open_ports(host: &Namespace) -> Result<BTreeSet<u16>> {
    let sockets = host.output("ss -Hltnp")?;
    let mut ports = BTreeSet::new();
    for socket in sockets.lines().filter(|socket| socket.contains("(\"weir\",")) {
        let mut words = socket.split_whitespace();
        let local = words.nth(3).context("no address")?;
        let (address, port) = local.rsplit_once(':').context("no port")?;
        if !address.starts_with("127.") {
            ports.insert(port.parse()?);
        }
    }
    Ok(ports)
}

/// Makes the controller that runs beside the control plane the pod of its Deployment, as a kubelet would, so that its Service leads
/// there.
fn is_the_pod(cluster: &Cluster, deployment: &Value) -> Result<()> {
    let template = &deployment["spec"]["template"];
    let mut spec = template["spec"].clone();
    // A pod on no node is no endpoint.
    spec["nodeName"] = cluster.lab.nodes[0].name.clone().into();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": "weir-controller-0", "namespace": NAMESPACE, "labels": template["metadata"]["labels"]},
    });
    let kubectl = cluster.control_plane.kubectl();
    kubectl.apply(&pod.to_string())?;
    let address = api_server_address(cluster)?;
    let status = json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    kubectl.patch_status(&format!("pod weir-controller-0 -n {NAMESPACE}"), &status)
}

/// [A04 A08 G07] The API server asks the webhooks by the Service of the manifests: through a real kube-proxy, at the port that the pod
/// has for it, and it trusts the certificate for that name.
#[test]
fn g07_the_webhooks_are_asked_by_their_service() -> Result<()> {
    Cluster::play(|cluster| {
        let image = Image::unpack(NATIVE, &cluster.lab.directory().join("image"))?;
        let manifests = apply(cluster)?;
        let control_plane = &cluster.control_plane;
        let (namespace, kubectl) = (control_plane.namespace(), control_plane.kubectl());
        let names = NameServer::start(namespace, API_SERVER, api_server_address(cluster)?.parse()?)?;
        let _leader = start_controller(&manifests, &beside_the_api(&image, cluster, &names)?)?;
        is_the_pod(cluster, manifests.object("Deployment", "weir-controller")?)?;
        let (node, folder) = (&cluster.lab.nodes[0].name, control_plane.directory());
        let _proxy = KubeProxy::start_in(control_plane, namespace, node, folder, ProxyMode::Nftables)?;

        let overlap = objects::manifest("Eip", "second", "{address: 10.10.1.7}");
        wait::until("a refusal", || {
            let made = kubectl.run_with("create --dry-run=server", &overlap);
            let said = made.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(said.contains("addresses in common with Eip lan-ipv4"), "{said:?}");
            Ok(())
        })?;
        let conf = objects::manifest("BgpConf", "default", "{as: 65000, listenPort: 17900}");
        kubectl.apply(&conf)?;
        wait::until("a conversion", || {
            let older = kubectl.get("bgpconfs.v1alpha1.network.kubesphere.io default")?;
            ensure!(older["spec"] == json!({"as": 65000, "port": 17900}), "{older}");
            Ok(())
        })
    })
}

/// [G02 G04 G07 G10] Controller and agents as `deploy/weir.yaml` starts them: a Service gets an address, clients are answered, also
/// while agents are killed and started again, and `weir trace` in an agent's pod knows its own programs.
#[test]
fn g07_g10_as_the_manifests_start_the_image() -> Result<()> {
    Cluster::play(|cluster| {
        let image = Image::unpack(NATIVE, &cluster.lab.directory().join("image"))?;
        ensure!(image.content()?.trim() == "weir", "{}", image.content()?);
        let manifests = apply(cluster)?;
        let server = api_server_address(cluster)?;
        let names = NameServer::start(cluster.control_plane.namespace(), API_SERVER, server.parse()?)?;
        let _leader = start_controller(&manifests, &beside_the_api(&image, cluster, &names)?)?;
        ensure!(names.asked() > 0, "the API server was not looked for by its name");
        let policy = manifests.object("NetworkPolicy", "weir-controller")?;
        let admitted = workloads::admitted(policy, manifests.object("Deployment", "weir-controller")?)?;
        // That of the webhooks is open when there is a certificate for it.
        wait::until("the ports", || {
            let open = open_ports(cluster.control_plane.namespace())?;
            ensure!(open == admitted, "{open:?} are open, and {admitted:?} let in");
            Ok(())
        })?;

        let daemon_set = manifests.object("DaemonSet", "weir-agent")?;
        let check = Container::of(daemon_set, "initContainers")?;
        let container = Container::of(daemon_set, "containers")?;
        let start = |at: usize| start_agent(&container, &image, cluster, &cluster.lab.nodes[at]);
        let look = |at: usize| {
            let node = &cluster.lab.nodes[at];
            check.finish("weir-check", &on_node(&image, &cluster.lab, node)?)
        };
        let mut agents = Vec::new();
        for at in 0..cluster.lab.nodes.len() {
            let found = look(at)?;
            ensure!(found.contains("no XDP program yet"), "{found}");
            agents.push(start(at)?);
            let open = open_ports(&cluster.lab.nodes[at].namespace)?;
            ensure!(open.is_empty(), "anybody reaches an agent at {open:?}");
        }

        let web = manifests::Service::new("web").from_eip("lan-ipv4", Family::V4);
        cluster.control_plane.kubectl().apply(&web.with(cluster.lab.pods()))?;
        let address = SocketAddr::new(address_of(cluster, "web")?, manifests::HTTP);
        let answered = || wait::until("an answer", || cluster.lab.client.run(|| client::ask(address)));
        answered()?;

        let question = ["trace", "--from=203.0.113.7:4242", "--syn", "--output=json"].map(str::to_owned);
        let question = [&question[..], &[format!("--to={address}")]].concat();
        for (at, agent) in agents.iter_mut().enumerate() {
            let around = on_node(&image, &cluster.lab, &cluster.lab.nodes[at])?;
            let said = container.finish_with("weir-trace", &around, &question)?;
            let said: Value = serde_json::from_str(&said)?;
            ensure!(said["same_code"] == true && said["agrees"] == true, "{said:#}");
            agent.kill()?;
            // What it left in the kernel goes on, and is adopted by the next.
            answered()?;
            let found = look(at)?;
            ensure!(
                found.contains("runs weir's XDP program") && !found.contains("others' tc programs"),
                "{found}"
            );
            *agent = start(at)?;
            ensure!(
                agent.log().contains("took over the XDP link of an earlier agent"),
                "{}",
                agent.log()
            );
        }
        answered().map(drop)
    })
}

/// [G10] The image for another machine, on that machine's processor as qemu has it. Qemu knows no BPF, so no agent can run; the
/// programs that it would load are the same for both.
#[test]
fn g10_the_image_for_another_machine() -> Result<()> {
    Cluster::play(|cluster| {
        let image = Image::unpack(FOREIGN, &cluster.lab.directory().join("image"))?;
        ensure!(image.content()?.trim() == "weir", "{}", image.content()?);
        let manifests = apply(cluster)?;
        let daemon_set = manifests.object("DaemonSet", "weir-agent")?;
        let check = Container::of(daemon_set, "initContainers")?;
        let around = on_node(&image, &cluster.lab, &cluster.lab.nodes[0])?;
        let version = check.finish_with("weir-version", &around, &["--version".to_owned()])?;
        ensure!(
            version.trim() == concat!("weir ", env!("CARGO_PKG_VERSION")),
            "{version}"
        );
        let found = check.finish("weir-check", &around)?;
        ensure!(found.contains("no XDP program yet"), "{found}");

        let server = api_server_address(cluster)?;
        let names = NameServer::start(cluster.control_plane.namespace(), API_SERVER, server.parse()?)?;
        let _leader = start_controller(&manifests, &beside_the_api(&image, cluster, &names)?)?;
        let web = manifests::Service::new("web").from_eip("lan-ipv4", Family::V4);
        cluster.control_plane.kubectl().apply(&web.with(cluster.lab.pods()))?;
        address_of(cluster, "web").map(drop)
    })
}
