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
/// What each write takes at least, once none is held up.
const SLOW: Duration = Duration::from_secs(3);
/// How long the API server waits for those that are held up, which is for a handshake: then it goes on.
const HELD: u64 = 10;
/// How long an answer may take that is held up: less than that, and more than one that is not.
const SHORT: u64 = 8;
/// How long an answer may take that is slow: much more than that, and less than all of them together.
const LONG: u64 = 40;

/// Holds changes of Services up after some, or makes all of them slow.
struct Brake<'a> {
    cluster: &'a Cluster,
    /// How many have been asked about.
    asked: Arc<AtomicUsize>,
    /// How many of those go on at once; all, and slowly, if it is the greatest number there is.
    passing: Arc<AtomicUsize>,
    /// The most that have been slow at the same time.
    most: Arc<AtomicUsize>,
}

impl<'a> Brake<'a> {
    fn put_on(cluster: &'a Cluster) -> Result<Self> {
        let listener = cluster
            .control_plane
            .namespace()
            .run(|| Ok(TcpListener::bind(BRAKE)?))?;
        let asked = Arc::new(AtomicUsize::new(0));
        let passing = Arc::new(AtomicUsize::new(usize::MAX));
        let (slow, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let brake = Self {
            cluster,
            asked: asked.clone(),
            passing: passing.clone(),
            most: most.clone(),
        };
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                let (passing, slow, most) = (passing.clone(), slow.clone(), most.clone());
                if passing.load(Ordering::SeqCst) == 0 {
                    break;
                }
                thread::spawn(move || {
                    if passing.load(Ordering::SeqCst) == usize::MAX {
                        most.fetch_max(slow.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::sleep(SLOW);
                        // Before it goes on and makes room for another.
                        slow.fetch_sub(1, Ordering::SeqCst);
                    }
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
                    "timeoutSeconds": HELD,
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

    /// Lets so many more go on, at once, and holds up those that follow.
    fn let_pass(&self, more: usize) {
        let all = self.asked.load(Ordering::SeqCst) + more;
        self.passing.store(all, Ordering::SeqCst);
    }

    /// Holds up none any more, and makes all slow.
    fn slow_down(&self) {
        self.passing.store(usize::MAX, Ordering::SeqCst);
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
    let (output, first) = cleanup(&cluster, SHORT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let late = format!("has not answered within {SHORT} s");
    ensure!(
        !output.status.success() && said.contains(&late) && said.contains("run it again"),
        "{output:?}"
    );
    // It has come to those that are held up, and has asked for no more beside them.
    let asked = brake.asked.load(Ordering::SeqCst) - before;
    ensure!(
        (PASSING + 1..=PASSING + AT_ONCE).contains(&asked),
        "{asked} writes were begun"
    );
    ensure!(first <= PASSING, "{first} are done: {output:?}");

    brake.slow_down();
    let left = marked(&cluster)?;
    ensure!(left <= SERVICES - first, "{left} are left after {first}");
    // Longer than one answer may take.
    ensure!(SLOW * u32::try_from(left / AT_ONCE)? > Duration::from_secs(LONG));
    brake.most.store(0, Ordering::SeqCst);
    let (output, second) = cleanup(&cluster, LONG)?;
    ensure!(output.status.success(), "{output:?}");
    // What was held up may have been written after all.
    ensure!(
        (left - AT_ONCE..=left).contains(&second) && marked(&cluster)? == 0,
        "{second} of {left}: {output:?}"
    );
    let most = brake.most.load(Ordering::SeqCst);
    ensure!(most >= AT_ONCE, "only {most} were under way at once");
    Ok(())
}
