//! The product, run on a node of the lab.

use super::{Lab, Node, foreign, process::Process, status::Status, wait::patience};
use anyhow::{Context, Result, bail, ensure};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// Puts its first argument where pods find their ServiceAccount, and becomes the others.
const IN_POD: &str = "at=/var/run/secrets/kubernetes.io/serviceaccount && mount -t tmpfs none /var/run && mkdir -p $at && \
                      mount --bind \"$1\" $at && shift && exec \"$@\"";

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    node: String,
}

impl Agent {
    /// Starts the agent of `node` on `eth0` and returns when it has made its plan true.
    ///
    /// # Errors
    /// When it ends or is not ready in time.
    pub fn start(lab: &Lab, node: &Node) -> Result<Self> {
        Self::start_with(lab, node, &["--interface", "eth0"])
    }

    /// As [`Agent::start`], with these arguments instead of the interface's.
    ///
    /// # Errors
    /// When it ends or is not ready in time.
    pub fn start_with(lab: &Lab, node: &Node, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self::launch(lab, node, arguments)?;
        agent.wait_until_ready(lab)?;
        Ok(agent)
    }

    /// Starts the agent of `node` without waiting for anything.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn launch(lab: &Lab, node: &Node, arguments: &[&str]) -> Result<Self> {
        Self::launch_program(&binary(), lab, node, arguments)
    }

    /// As [`Agent::launch`], with a program of the caller's: the agent of another version.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn launch_program(program: &Path, lab: &Lab, node: &Node, arguments: &[&str]) -> Result<Self> {
        let mut command = command(program, lab, node, "run");
        command
            .arg("--manifests")
            .arg(lab.manifest_directory(node))
            .args(["--node", &node.name])
            .args(arguments);
        Ok(Self {
            process: Process::start(command, "weir run", &log(lab, node))?,
            node: node.name.clone(),
        })
    }

    /// Starts `weir agent` on `node`, on `eth0`, with the API that `kubeconfig` leads to; does not wait for anything.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn launch_in_cluster(lab: &Lab, node: &Node, kubeconfig: &Path) -> Result<Self> {
        Self::launch_in_cluster_with(lab, node, kubeconfig, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn launch_in_cluster_with(lab: &Lab, node: &Node, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = in_cluster(lab, node, kubeconfig);
        command.args(arguments);
        Self::spawn(command, lab, node)
    }

    /// The same of an agent whose pod is in the namespace `namespace`, as its manifest has it told.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn launch_from(namespace: &str, lab: &Lab, node: &Node, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = in_cluster(lab, node, kubeconfig);
        command.env("OPENELB_NAMESPACE", namespace).args(arguments);
        Self::spawn(command, lab, node)
    }

    fn spawn(command: Command, lab: &Lab, node: &Node) -> Result<Self> {
        Ok(Self {
            process: Process::start(command, "weir agent", &log(lab, node))?,
            node: node.name.clone(),
        })
    }

    /// As [`Agent::launch_in_cluster`], but as in a pod: with `mounted` where a pod finds its ServiceAccount, in a mount namespace of its
    /// own, and the API server's address in the environment.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn launch_in_pod(lab: &Lab, node: &Node, server: SocketAddr, mounted: &Path) -> Result<Self> {
        let program = binary();
        let mut command = node.namespace.command("unshare");
        command
            .args(["--mount", "--propagation=private", "--", "sh", "-c", IN_POD, "sh"])
            .arg(mounted)
            .arg(&program);
        tell(&mut command, lab, node, "agent");
        command
            .env_remove("KUBECONFIG")
            // Where nobody's kubeconfig is.
            .env("HOME", mounted)
            .env("KUBERNETES_SERVICE_HOST", server.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", server.port().to_string())
            .env("NODE_NAME", &node.name)
            .args(["--interface", "eth0", "--log-level", "weir=debug"]);
        Self::spawn(command, lab, node)
    }

    /// Returns when it has made its plan true.
    ///
    /// # Errors
    /// When it ends or is not ready in time.
    pub fn wait_until_ready(&mut self, lab: &Lab) -> Result<()> {
        let (id, node) = (self.process.id(), lab.node(&self.node)?);
        self.process
            .wait_until("the agent to be ready", || Status::of(lab, node)?.check_ready(id))
            .with_context(|| format!("the agent of {}", self.node))
    }

    /// Starts the agents of all nodes together.
    ///
    /// # Errors
    /// When one is not ready in time.
    pub fn start_everywhere(lab: &Lab) -> Result<Vec<Self>> {
        thread::scope(|scope| {
            let starting: Vec<_> = lab
                .nodes
                .iter()
                .map(|node| scope.spawn(|| Self::start(lab, node)))
                .collect();
            let started = starting.into_iter().map(|thread| match thread.join() {
                Ok(agent) => agent,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            started.collect()
        })
    }

    /// Asks it to stop (SIGTERM); the data path stays.
    ///
    /// # Errors
    /// When it does not stop in time, or not with success.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop(patience())?;
        ensure!(
            status.success(),
            "the agent of {} stopped with {status}:\n{}",
            self.node,
            self.process.last_words(20)
        );
        Ok(())
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait(patience())
    }

    /// Everything it has said, and those before it on the same node.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// What the agents of all nodes said last; for the message of a failure.
pub fn last_words(lab: &Lab) -> String {
    let of_node = |node: &Node| {
        let log = fs::read_to_string(log(lab, node)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("--- the agent of {} said last:\n{last}\n", node.name)
    };
    lab.nodes.iter().map(of_node).collect()
}

/// `weir agent` for `node`, which finds the API server by this file.
fn in_cluster(lab: &Lab, node: &Node, kubeconfig: &Path) -> Command {
    let mut command = command(&binary(), lab, node, "agent");
    command
        .env("KUBECONFIG", kubeconfig)
        .env("NODE_NAME", &node.name)
        .args(["--interface", "eth0", "--log-level", "weir=debug"]);
    command
}

fn log(lab: &Lab, node: &Node) -> PathBuf {
    lab.directory().join(&node.name).join("agent.log")
}

/// Runs `weir run --detach` for `node`.
///
/// # Errors
/// When it fails.
pub fn detach(lab: &Lab, node: &Node) -> Result<String> {
    finished(weir(lab, node, "run").arg("--detach"))
}

/// Whether programs are on the node's interface, XDP, tcx or tc; or one of ours on any of its devices.
///
/// # Errors
/// When the kernel does not say.
pub fn has_programs(node: &Node) -> Result<bool> {
    let net = node.namespace.output("bpftool net show")?;
    // Not every bpftool shows those of tcx.
    let counted = foreign::count(&node.namespace, "eth0")? != [0, 0];
    Ok(counted || net.contains("weir_ingress") || net.contains("weir_egress") || net.contains("eth0("))
}

/// What `weir status` prints on `node`, as a table.
///
/// # Errors
/// When it fails.
pub fn status_table(lab: &Lab, node: &Node) -> Result<String> {
    finished(&mut weir(lab, node, "status"))
}

/// Runs `weir VERB ARGUMENTS` on `node` to its end, and gives what it prints.
///
/// # Errors
/// When it fails.
pub fn run(lab: &Lab, node: &Node, verb: &str, arguments: &[&str]) -> Result<String> {
    finished(weir(lab, node, verb).args(arguments))
}

/// The same, and it may fail.
///
/// # Errors
/// When it cannot be started.
pub fn output(lab: &Lab, node: &Node, verb: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = weir(lab, node, verb);
    command.args(arguments);
    command.output().with_context(|| format!("cannot run {command:?}"))
}

/// Starts `weir VERB ARGUMENTS` on `node` in the background; what it prints goes to a file of its own.
///
/// # Errors
/// When it cannot be started.
pub fn start(lab: &Lab, node: &Node, verb: &str, arguments: &[&str]) -> Result<Process> {
    let mut command = weir(lab, node, verb);
    command.args(arguments);
    let number = BACKGROUND.fetch_add(1, Ordering::Relaxed);
    let log = lab.directory().join(&node.name).join(format!("{verb}-{number}.log"));
    Process::start(command, verb, &log)
}

static BACKGROUND: AtomicU32 = AtomicU32::new(0);

/// `weir VERB` in the namespace of `node`, told where that node's pins and state are.
pub(super) fn weir(lab: &Lab, node: &Node, verb: &str) -> Command {
    command(&binary(), lab, node, verb)
}

fn command(program: &Path, lab: &Lab, node: &Node, verb: &str) -> Command {
    let mut command = node.namespace.command(&program.to_string_lossy());
    tell(&mut command, lab, node, verb);
    command
}

fn tell(command: &mut Command, lab: &Lab, node: &Node, verb: &str) {
    command.arg(verb).arg("--pin-dir").arg(lab.pin_directory(node));
    command.arg("--state-dir").arg(lab.state_directory(node));
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails, with what it printed.
pub fn finished(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!(
            "{command:?}: {status}: {}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The agent's program: `WEIR_BIN`, or the one cargo built beside this one.
pub fn binary() -> PathBuf {
    env::var_os("WEIR_BIN").map_or_else(|| beside("weir"), Into::into)
}

/// The program of this name that cargo built beside this one, which may be a test; else whatever the shell would find.
pub fn beside(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}
