//! What the manifests start, started as they say: their arguments, users and capabilities, in a mount namespace of its own with
//! everything read-only but what they mount.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};
use tests::{
    kube::Manifests,
    lab::{Family, Lab, Namespace, Node, agent, client, process::Process, wait},
};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weir.yaml");
const NAMESPACE: &str = "weir-system";

/// What a container runtime does before a program: `$1`, capabilities of the bounding set; `$2`, its user; then pairs of folders,
/// of the host and of the container, up to `--`.
const RUNTIME: &str = r#"
set -e
capabilities=$1 user=$2; shift 2
mount -t tmpfs none /var/lib
mkdir /var/lib/weir
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec setpriv --no-new-privs --reuid "$user" --regid "$user" --clear-groups --inh-caps "$capabilities" --bounding-set "$capabilities" "$@"
"#;

/// A container of the manifests.
struct Container<'a> {
    spec: &'a Value,
    pod: &'a Value,
}

impl<'a> Container<'a> {
    fn of(workload: &'a Value, list: &str) -> Result<Self> {
        let pod = &workload["spec"]["template"]["spec"];
        let spec = pod[list].get(0).with_context(|| format!("no {list}"))?;
        Ok(Self { spec, pod })
    }

    /// As `setpriv` takes them.
    fn capabilities(&self) -> Result<String> {
        let security = &self.spec["securityContext"];
        ensure!(
            security["privileged"] != true && security["allowPrivilegeEscalation"] == false,
            "{security}"
        );
        ensure!(security["readOnlyRootFilesystem"] == true, "{security}");
        ensure!(
            security["capabilities"]["drop"] == serde_json::json!(["ALL"]),
            "{security}"
        );
        let added = security["capabilities"]["add"].as_array();
        let added = added.into_iter().flatten().filter_map(Value::as_str);
        Ok(std::iter::once("-all".to_owned())
            .chain(added.map(|name| format!("+{}", name.to_lowercase())))
            .collect::<Vec<_>>()
            .join(","))
    }

    fn user(&self) -> Result<u64> {
        let user = |of: &Value| of["securityContext"]["runAsUser"].as_u64();
        user(self.spec).or_else(|| user(self.pod)).context("no user")
    }

    /// It, in the network of a host. `folders` are those of the host that stand for what the pod mounts.
    fn command(&self, host: &Namespace, folders: &[(&Path, &str)]) -> Result<Command> {
        let mounted: Vec<&str> = self.spec["volumeMounts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|mount| mount["mountPath"].as_str())
            .collect();
        ensure!(
            mounted.iter().copied().eq(folders.iter().map(|(_, at)| *at)),
            "mounts {mounted:?}"
        );
        let mut command = host.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", RUNTIME, "sh"]);
        command.arg(self.capabilities()?).arg(self.user()?.to_string());
        for (host, at) in folders {
            command.arg(host).arg(at);
        }
        command.arg("--").arg(agent::binary());
        for argument in self.spec["args"].as_array().context("no args")? {
            command.arg(argument.as_str().context("no text")?);
        }
        Ok(command)
    }

    /// Returns when every probe succeeds.
    fn wait_for_probes(&self, process: &mut Process, host: &Namespace) -> Result<()> {
        for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &self.spec[name]["httpGet"];
            let path = probe["path"].as_str().with_context(|| format!("no {name}"))?;
            let port = self.spec["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|port| port["name"] == probe["port"]);
            let port = port
                .and_then(|port| port["containerPort"].as_u64())
                .context("no such port")?;
            let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), u16::try_from(port)?);
            process.wait_until(name, || host.run(|| client::get(at, path)))?;
        }
        Ok(())
    }
}

/// What the agent of a node mounts; pins are in a folder of the lab's.
fn folders(lab: &Lab, node: &Node) -> Result<[(PathBuf, &'static str); 2]> {
    let folders = [
        (lab.pin_directory(node), "/sys/fs/bpf"),
        (lab.state_directory(node), "/var/lib/weir"),
    ];
    for (folder, _) in &folders {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(folders)
}

fn start_agent(container: &Container<'_>, cluster: &Cluster, at: usize) -> Result<Process> {
    let (lab, node) = (&cluster.lab, &cluster.lab.nodes[at]);
    let folders = folders(lab, node)?;
    let folders = folders.each_ref().map(|(host, at)| (host.as_path(), *at));
    let mut command = container.command(&node.namespace, &folders)?;
    command
        .env("KUBECONFIG", cluster.kubeconfig()?)
        .env("NODE_NAME", &node.name);
    Process::start(
        command,
        "weir agent",
        &lab.directory().join(&node.name).join("agent.log"),
    )
}

/// [G02 G04 G07] Controller and agents as `deploy/weir.yaml` starts them: a Service gets an address, clients are answered, also
/// while agents are killed and started again.
#[test]
fn g07_as_the_manifests_start_it() -> Result<()> {
    Cluster::play(|cluster| {
        let manifests = Manifests::read_file(MANIFESTS)?;
        let kubectl = cluster.control_plane.kubectl().clone();
        kubectl.run(&format!("apply --server-side --force-conflicts -f {MANIFESTS}"))?;

        let deployment = manifests.object("Deployment", "weir-controller")?;
        let controller = Container::of(deployment, "containers")?;
        ensure!(controller.pod["securityContext"]["runAsNonRoot"] == true && controller.user()? != 0);
        let host = cluster.control_plane.namespace();
        let account = cluster.control_plane.kubectl_as(NAMESPACE, "weir-controller")?;
        let mut command = controller.command(host, &[])?;
        command
            .env("KUBECONFIG", account.kubeconfig())
            .env("OPENELB_NAMESPACE", NAMESPACE)
            .env("POD_NAME", "weir-controller-0");
        let log = cluster.control_plane.directory().join("controller.log");
        let mut leader = Process::start(command, "weir controller", &log)?;
        controller.wait_for_probes(&mut leader, host)?;

        let daemon_set = manifests.object("DaemonSet", "weir-agent")?;
        let check = Container::of(daemon_set, "initContainers")?;
        let container = Container::of(daemon_set, "containers")?;
        let look = |cluster: &Cluster, at: usize| -> Result<String> {
            let node = &cluster.lab.nodes[at];
            let folders = folders(&cluster.lab, node)?;
            let folders = folders.each_ref().map(|(host, at)| (host.as_path(), *at));
            agent::finished(&mut check.command(&node.namespace, &folders)?)
        };
        let mut agents = Vec::new();
        for at in 0..cluster.lab.nodes.len() {
            let found = look(cluster, at)?;
            ensure!(found.contains("no XDP program yet"), "{found}");
            let mut agent = start_agent(&container, cluster, at)?;
            container.wait_for_probes(&mut agent, &cluster.lab.nodes[at].namespace)?;
            agents.push(agent);
        }

        kubectl.apply(
            &tests::lab::manifests::Service::new("web")
                .from_eip("lan-ipv4", Family::V4)
                .with(cluster.lab.pods()),
        )?;
        let address = wait::until("an address", || {
            let service = kubectl.get("service web")?;
            let address = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
            Ok(SocketAddr::new(
                address.context("none yet")?.parse()?,
                tests::lab::manifests::HTTP,
            ))
        })?;
        let answered = |cluster: &Cluster| wait::until("an answer", || cluster.lab.client.run(|| client::ask(address)));
        answered(cluster)?;

        for (at, agent) in agents.iter_mut().enumerate() {
            agent.kill()?;
            // What it left in the kernel goes on, and is adopted by the next.
            answered(cluster)?;
            let found = look(cluster, at)?;
            ensure!(found.contains("runs weir's XDP program"), "{found}");
            *agent = start_agent(&container, cluster, at)?;
            container.wait_for_probes(agent, &cluster.lab.nodes[at].namespace)?;
            ensure!(
                agent.log().contains("took over the XDP link of an earlier agent"),
                "{}",
                agent.log()
            );
        }
        answered(cluster)?;
        leader.kill().map(drop)
    })
}
