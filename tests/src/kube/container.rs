//! Containers of the manifests, run as a kubelet has them run: by crun, with the image as their root, and the users,
//! capabilities, mounts, arguments and probes that the manifests say.

use super::{ControlPlane, Image};
use crate::lab::{Namespace, agent, client, namespace::output_of, process::Process, wait};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

/// crun knows no machine whose control groups are of both versions; it is shown but the second, though it uses neither.
const RUNTIME: &str = "mount -t cgroup2 none /sys/fs/cgroup && exec crun --cgroup-manager=disabled \"$@\"";

/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A container of a workload's pods.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    spec: &'a Value,
    pod: &'a Value,
}

/// What a kubelet adds to it.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// What it consists of.
    pub image: &'a Image,
    /// The network it is in.
    pub host: &'a Namespace,
    /// Folder for what is kept of it, its log among it.
    pub folder: PathBuf,
    /// Folders and files of the host, and where they are in it.
    pub mounts: Vec<(PathBuf, String)>,
    /// Its environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Surroundings<'_> {
    /// Lets it find its cluster: at `host`, with the token of the pods' account in a folder as pods have it.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn in_cluster(
        &mut self,
        control_plane: &ControlPlane,
        namespace: &str,
        account: &str,
        host: &str,
    ) -> Result<()> {
        let mut environment = self.environment.iter();
        let node = environment.find(|(name, _)| *name == "NODE_NAME");
        let folder = control_plane.account_folder(namespace, account, node.map(|(_, node)| node.as_str()))?;
        self.mounts.push((folder, ACCOUNT.to_owned()));
        let port = control_plane.server().rsplit(':').next().unwrap_or_default().to_owned();
        self.environment.push(("KUBERNETES_SERVICE_HOST", host.to_owned()));
        self.environment.push(("KUBERNETES_SERVICE_PORT", port));
        Ok(())
    }
}

impl<'a> Container<'a> {
    /// The first of `list` in the pods of `workload`.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(workload: &'a Value, list: &str) -> Result<Self> {
        let pod = &workload["spec"]["template"]["spec"];
        let spec = pod[list].get(0).with_context(|| format!("no {list}"))?;
        Ok(Self { spec, pod })
    }

    /// The user it runs as.
    ///
    /// # Errors
    /// When none is said.
    pub fn user(&self) -> Result<u64> {
        self.identity("runAsUser").context("no user")
    }

    fn identity(&self, field: &str) -> Option<u64> {
        let of = |what: &Value| what["securityContext"][field].as_u64();
        of(self.spec).or_else(|| of(self.pod))
    }

    /// Those it has, of a container that has nothing else.
    fn capabilities(&self) -> Result<Vec<String>> {
        let security = &self.spec["securityContext"];
        ensure!(
            security["privileged"] != true && security["allowPrivilegeEscalation"] == false,
            "{security}"
        );
        ensure!(security["readOnlyRootFilesystem"] == true, "{security}");
        ensure!(security["capabilities"]["drop"] == json!(["ALL"]), "{security}");
        let added = security["capabilities"]["add"].as_array();
        let added = added.into_iter().flatten().filter_map(Value::as_str);
        Ok(added.map(|name| format!("CAP_{name}")).collect())
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let arguments = self.spec["args"].as_array().context("no args")?;
        let text = |argument: &Value| argument.as_str().map(str::to_owned).context("no text");
        arguments.iter().map(text).collect()
    }

    /// What the runtime is told (OCI runtime-spec 1.0).
    fn config(&self, around: &Surroundings<'_>, arguments: &[String]) -> Result<Value> {
        let (image, capabilities) = (around.image, self.capabilities()?);
        let mounted = self.spec["volumeMounts"].as_array().into_iter().flatten();
        for path in mounted.filter_map(|mount| mount["mountPath"].as_str()) {
            ensure!(
                around.mounts.iter().any(|(_, at)| at == path),
                "nothing to mount at {path}"
            );
        }
        let mount = |kind: &str, at: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "mode=755", "size=65536k"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        let mut words = Vec::new();
        let emulator = image
            .emulator
            .iter()
            .map(|emulator| (emulator.clone(), "/emulator".to_owned()));
        words.extend(image.emulator.iter().map(|_| "/emulator".to_owned()));
        for (source, at) in around.mounts.iter().cloned().chain(emulator) {
            mounts.push(json!({"destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate"]}));
        }
        words.extend(image.entrypoint.iter().chain(arguments).cloned());
        let environment = around.environment.iter().map(|(name, value)| format!("{name}={value}"));
        Ok(json!({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": self.user()?, "gid": self.identity("runAsGroup").unwrap_or(0)},
                "args": words,
                "env": environment.collect::<Vec<_>>(),
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "permitted": capabilities, "effective": capabilities},
                "noNewPrivileges": true,
            },
            "root": {"path": image.root, "readonly": true},
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }))
    }

    fn bundle(&self, name: &str, around: &Surroundings<'_>, arguments: &[String]) -> Result<Bundle> {
        let bundle = Bundle {
            folder: around.folder.join(name),
            name: name.to_owned(),
        };
        fs::create_dir_all(&bundle.folder).with_context(|| format!("cannot create {}", bundle.folder.display()))?;
        let config = self.config(around, arguments)?;
        fs::write(bundle.folder.join("config.json"), config.to_string())?;
        Ok(bundle)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the manifest is not as it should be, or crun is missing.
    pub fn start(&self, name: &str, around: &Surroundings<'_>) -> Result<Running> {
        let bundle = self.bundle(name, around, &self.arguments()?)?;
        let log = around.folder.join(format!("{name}.log"));
        let process = Process::start(bundle.run(around.host), name, &log)?;
        Ok(Running { bundle, process })
    }

    /// Runs it to its end, and gives what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn finish(&self, name: &str, around: &Surroundings<'_>) -> Result<String> {
        self.finish_with(name, around, &self.arguments()?)
    }

    /// The same with other arguments, as somebody would who has a shell's place in it.
    ///
    /// # Errors
    /// When it fails.
    pub fn finish_with(&self, name: &str, around: &Surroundings<'_>, arguments: &[String]) -> Result<String> {
        agent::finished(&mut self.bundle(name, around, arguments)?.run(around.host))
    }

    /// Returns when every probe succeeds.
    ///
    /// # Errors
    /// When it ends, or one does not in time.
    pub fn wait_for_probes(&self, running: &mut Running, host: &Namespace) -> Result<()> {
        for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &self.spec[name]["httpGet"];
            let path = probe["path"].as_str().with_context(|| format!("no {name}"))?;
            let mut ports = self.spec["ports"].as_array().into_iter().flatten();
            let port = ports.find(|port| port["name"] == probe["port"]);
            let port = port
                .and_then(|port| port["containerPort"].as_u64())
                .context("no such port")?;
            let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), u16::try_from(port)?);
            running
                .process
                .wait_until(name, || host.run(|| client::get(at, path)))?;
        }
        Ok(())
    }
}

/// What the runtime works with.
#[derive(Debug)]
struct Bundle {
    folder: PathBuf,
    name: String,
}

impl Bundle {
    fn runtime(&self, verb: &str) -> Command {
        self.in_the_place_of(Command::new("unshare"), verb)
    }

    /// `unshare`, as it is to be started, becomes crun.
    fn in_the_place_of(&self, mut unshare: Command, verb: &str) -> Command {
        unshare.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            RUNTIME,
            "crun",
            "--root",
        ]);
        unshare.arg(self.state()).arg(verb);
        unshare
    }

    /// Where crun keeps what it knows.
    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn run(&self, host: &Namespace) -> Command {
        let mut command = self.in_the_place_of(host.command("unshare"), "run");
        command.arg("--bundle").arg(&self.folder).arg(&self.name);
        command
    }
}

/// A running container; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    bundle: Bundle,
    process: Process,
}

impl Running {
    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        output_of(self.bundle.runtime("kill").args([&self.bundle.name, "KILL"]))?;
        self.process.wait(wait::patience()).map(drop)
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// When it has ended before, or goes on.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        ensure!(self.process.ended()?.is_none(), "it has ended:\n{}", self.log());
        wait::until("it to end", || {
            if let Some(status) = self.process.ended()? {
                return Ok(status);
            }
            // More than once: what comes before a program listens is lost to the first of its processes.
            output_of(self.bundle.runtime("kill").args([&self.bundle.name, "TERM"]))?;
            bail!("it goes on")
        })
    }

    /// Everything it has said, and those before it of the same name.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to be done about one that has ended already.
        let _ = self
            .bundle
            .runtime("delete")
            .args(["--force", &self.bundle.name])
            .output();
    }
}

impl ControlPlane {
    /// A folder with token, authority and namespace, as pods of that account have it mounted.
    fn account_folder(&self, namespace: &str, account: &str, node: Option<&str>) -> Result<PathBuf> {
        let place = node.unwrap_or("anywhere");
        let folder: PathBuf = self.directory().join(format!("{namespace}-{account}-{place}-account"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let authority = fs::read_to_string(&self.certificates().authority)?;
        for (name, text) in [
            ("token", self.token(namespace, account, node)?),
            ("ca.crt", authority),
            ("namespace", namespace.to_owned()),
        ] {
            write(&folder.join(name), &text)?;
        }
        Ok(folder)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
