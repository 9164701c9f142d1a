//! `weir cleanup` where there is much to do and the API server is slow [B29].

use crate::controlled::{Cluster, LABEL};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tests::lab::{agent, wait};

/// Where the API server asks whether a Service may be changed, and goes on when nobody answers.
const BRAKE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9445);
const SERVICES: usize = 300;
/// How many writes are under way at once.
const AT_ONCE: usize = 16;
/// What each write takes at least.
const SLOW: Duration = Duration::from_millis(700);

/// Makes changes of Services slow, and after some holds them up.
struct Brake<'a> {
    cluster: &'a Cluster,
    /// How many have been asked about.
    asked: Arc<AtomicUsize>,
    /// How many of those go on.
    passing: Arc<AtomicUsize>,
}

impl<'a> Brake<'a> {
    fn put_on(cluster: &'a Cluster) -> Result<Self> {
        let listener = cluster
            .control_plane
            .namespace()
            .run(|| Ok(TcpListener::bind(BRAKE)?))?;
        let asked = Arc::new(AtomicUsize::new(0));
        let passing = Arc::new(AtomicUsize::new(usize::MAX));
        let brake = Self {
            cluster,
            asked: asked.clone(),
            passing: passing.clone(),
        };
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                let passing = passing.clone();
                if passing.load(Ordering::SeqCst) == 0 {
                    break;
                }
                thread::spawn(move || {
                    thread::sleep(SLOW);
                    while (1..=number).contains(&passing.load(Ordering::SeqCst)) {
                        thread::sleep(Duration::from_millis(20));
                    }
                    drop(connection);
                });
            }
        });
        cluster.kubectl().apply(&format!(
            "{}\n",
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "brake"},
                "webhooks": [{
                    "name": "brake.weir.dev",
                    "clientConfig": {"url": format!("https://{BRAKE}")},
                    "rules": [{
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["services"],
                    }],
                    "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": 30,
                }],
            })
        ))?;
        wait::until("the API server to ask", || {
            cluster
                .kubectl()
                .run("annotate service web-0 tried=yes --overwrite --dry-run=server")?;
            ensure!(brake.asked.load(Ordering::SeqCst) > 0);
            Ok(())
        })?;
        Ok(brake)
    }

    /// Lets so many more go on.
    fn let_pass(&self, more: usize) {
        let all = self.asked.load(Ordering::SeqCst).saturating_add(more);
        self.passing.store(all, Ordering::SeqCst);
    }
}

impl Drop for Brake<'_> {
    /// Ends all threads; the last one looks when somebody comes.
    fn drop(&mut self) {
        self.passing.store(0, Ordering::SeqCst);
        let namespace = self.cluster.control_plane.namespace();
        let _ = namespace.run(|| Ok(TcpStream::connect(BRAKE)?));
    }
}

fn cleanup(cluster: &Cluster, seconds: u64) -> Result<(Output, usize)> {
    let program = agent::binary();
    let mut command = cluster.control_plane.namespace().command(&program.to_string_lossy());
    command
        .args(["cleanup", "--timeout", &seconds.to_string()])
        .env("KUBECONFIG", cluster.kubectl().kubeconfig());
    let output = command.output()?;
    let done = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.starts_with("remove label and finalizer from Service default/web-"))
        .count();
    Ok((output, done))
}

/// How many Services carry the label or a finalizer.
fn marked(cluster: &Cluster) -> Result<usize> {
    let services = cluster.kubectl().get("services")?;
    let all = services["items"].as_array().context("no list")?.iter();
    let marked = all.filter(|service| {
        let metadata = &service["metadata"];
        metadata.get("finalizers").is_some() || metadata["labels"].get(LABEL).is_some()
    });
    Ok(marked.count())
}

/// [B29] Each answer has its time, and not all of them together; sixteen are waited for at once. Who has to give up goes on from
/// there the next time.
#[test]
fn b29_many_services_are_let_go_of_however_slow_each_write_is() -> Result<()> {
    let cluster = Cluster::new()?;
    let services = (0..SERVICES).map(|number| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": format!("web-{number}"), "labels": {LABEL: "pool"},
                "finalizers": ["finalizer.lb.kubesphere.io/v1alpha1"],
            },
            "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
        });
        format!("---\n{service}\n")
    });
    cluster.kubectl().run_with("create", &services.collect::<String>())?;
    let brake = Brake::put_on(&cluster)?;

    const PASSING: usize = 50;
    let before = brake.asked.load(Ordering::SeqCst);
    brake.let_pass(PASSING);
    let (output, first) = cleanup(&cluster, 8)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains("has not answered within 8 s") && said.contains("run it again"),
        "{output:?}"
    );
    // Those that are held up, and no more, were asked for.
    let asked = brake.asked.load(Ordering::SeqCst) - before;
    ensure!(asked == PASSING + AT_ONCE, "{asked} writes were begun");
    ensure!(first > PASSING - AT_ONCE, "{first} are done: {output:?}");

    brake.let_pass(usize::MAX);
    let left = marked(&cluster)?;
    ensure!(left <= SERVICES - first, "{left} are left after {first}");
    // Longer than one answer may take.
    ensure!(SLOW * u32::try_from(left / AT_ONCE)? > Duration::from_secs(8));
    let (output, second) = cleanup(&cluster, 8)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(
        second == left && marked(&cluster)? == 0,
        "{second} of {left}: {output:?}"
    );
    Ok(())
}
