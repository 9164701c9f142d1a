//! Writes of the controller that come too late: while each is on its way, somebody else changes the object.

use crate::{
    controlled::{Cluster, LABEL, pool, service},
    gate::{ACCOUNT, Gate},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::kube::Kubectl;

/// As nobody answers a request for so long that the controller gives it up, on a busy machine, say.
const ATTEMPTS: usize = 5;
/// Where the controller's metrics are.
const METRICS: u16 = 9491;

/// One kind of write.
struct Write {
    /// By its name in metrics.
    name: &'static str,
    group: &'static str,
    resource: &'static str,
    /// Which requests are such writes, of all that change that resource.
    condition: Option<&'static str>,
    /// What makes the controller write.
    cause: String,
    /// The object that it writes.
    object: &'static str,
    /// What somebody else writes meanwhile: the numbers tell each from the one before.
    edit: fn(&Kubectl, usize) -> Result<()>,
}

const EIPS: &str = "network.kubesphere.io";
/// Nodes' words and conditions are written there as well.
const IN_BOOK: &str = "has(object.status.used) && (!has(oldObject.status) || !has(oldObject.status.used) || \
                       object.status.used != oldObject.status.used)";
const SHOWN: &str = "object.status.loadBalancer != oldObject.status.loadBalancer";

fn writes() -> [Write; 4] {
    [
        Write {
            name: "guard",
            group: EIPS,
            resource: "eips",
            condition: None,
            cause: pool("10.10.1.0/24"),
            object: "eip pool",
            edit: |kubectl, number| {
                let finalizers = [format!("example.com/other-{number}")];
                kubectl.patch("eip pool", &json!({"metadata": {"finalizers": finalizers}}))
            },
        },
        Write {
            name: "record",
            group: EIPS,
            resource: "eips/status",
            condition: Some(IN_BOOK),
            cause: service("recorded", &[(LABEL, "pool")]),
            object: "eip pool",
            edit: |kubectl, number| {
                let used = json!({"10.10.1.0": format!("default/other-{number}")});
                kubectl.patch_status("eip pool", &json!({ "used": used }))
            },
        },
        Write {
            name: "mark",
            group: "",
            resource: "services",
            condition: None,
            cause: service("marked", &[(LABEL, "pool")]),
            object: "service marked",
            edit: |kubectl, number| {
                let labels = json!({LABEL: format!("other-{number}")});
                kubectl.patch("service marked", &json!({"metadata": {"labels": labels}}))
            },
        },
        Write {
            name: "show",
            group: "",
            resource: "services/status",
            condition: Some(SHOWN),
            cause: service("shown", &[(LABEL, "pool")]),
            object: "service shown",
            edit: |kubectl, number| {
                let ingress = json!([{"ip": format!("10.99.0.{number}")}]);
                kubectl.patch_status("service shown", &json!({"loadBalancer": {"ingress": ingress}}))
            },
        },
    ]
}

/// How many such writes the API server has refused as too old.
fn refused(cluster: &Cluster, write: &Write) -> Result<usize> {
    let asked = cluster.control_plane.asked()?;
    let too_old = asked.iter().filter(|asked| {
        let what = (&*asked.account, &*asked.verb, &*asked.group, &*asked.resource);
        what == (ACCOUNT, "patch", write.group, write.resource) && asked.code == 409
    });
    Ok(too_old.count())
}

/// Whether one such write that meets a newer object leaves it as it is, and whether the controller knows.
fn is_refused(cluster: &Cluster, write: &Write) -> Result<()> {
    let kubectl = cluster.kubectl();
    let rules = json!([{
        "apiGroups": [write.group], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": [write.resource],
    }]);
    let gate = Gate::close(cluster, &rules, write.condition, "Ignore")?;
    let before = refused(cluster, write)?;
    kubectl.apply(&write.cause)?;
    let mut held = gate.next()?;
    for number in 1..=ATTEMPTS {
        (write.edit)(kubectl, number)?;
        let edited: Value = kubectl.get(write.object)?;
        drop(held);
        // What comes next is planned from the object as it is now, or is the same once more.
        held = gate.next()?;
        if refused(cluster, write)? > before {
            let now = kubectl.get(write.object)?;
            ensure!(now == edited, "it was {edited}, and is {now}");
            let too_old = format!(
                "weir_controller_writes_total{{action=\"{}\",result=\"too_old\"}} ",
                write.name
            );
            let metrics = cluster.asks(METRICS, "/metrics")?;
            ensure!(metrics.contains(&too_old), "{metrics}");
            gate.open()?;
            drop(held);
            return Ok(());
        }
    }
    bail!("it is not refused: {:?}", cluster.control_plane.asked()?)
}

/// [B24]
#[test]
fn b24_a_write_that_comes_after_somebody_elses_changes_nothing() -> Result<()> {
    let cluster = Cluster::new()?;
    let metrics = format!("[::]:{METRICS}");
    let _controller = cluster.start_with("only", &["--no-webhook", "--metrics", &metrics])?;
    for write in writes() {
        is_refused(&cluster, &write).context(write.name)?;
    }
    // After that it is as if nobody else had written.
    let given = [
        ("recorded", "10.10.1.0"),
        ("marked", "10.10.1.1"),
        ("shown", "10.10.1.2"),
    ];
    cluster.show(given)?;
    let book = given.map(|(name, address)| (address.to_owned(), json!(format!("default/{name}"))));
    cluster.has_book("pool", &Value::Object(book.into_iter().collect()))?;
    for (name, _) in given {
        let found = cluster.kubectl().get(&format!("service {name}"))?;
        ensure!(found["metadata"]["labels"][LABEL] == "pool", "{found}");
    }
    // The finalizers of others are theirs.
    let eip = cluster.kubectl().get("eip pool")?;
    let finalizers = eip["metadata"]["finalizers"].to_string();
    ensure!(finalizers.contains("example.com/other-"), "{eip}");
    ensure!(finalizers.contains("finalizer.ipam.kubesphere.io/v1alpha1"), "{eip}");
    Ok(())
}
