//! What an agent may write, by its token: its own node's entry in the status of Eips, its own Lease, and nothing else.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tests::{
    kube::{ControlPlane, Kubectl, WEIR_NAMESPACE},
    lab::wait,
};

const OWN: &str = "own";
const OTHER: &str = "other";
const LINE: &str = "apply --server-side --force-conflicts --validate=false";

/// A control plane with definitions, the agents' rights, two Nodes and the Eip `pool`, in whose status there is something of
/// everybody.
struct Cluster {
    control_plane: ControlPlane,
    agent: Kubectl,
}

impl Cluster {
    fn new() -> Result<Self> {
        let control_plane = ControlPlane::start()?;
        control_plane.apply_definitions()?;
        let kubectl = control_plane.kubectl();
        kubectl.run(&format!("create namespace {WEIR_NAMESPACE}"))?;
        for name in [OWN, OTHER] {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            kubectl.apply(&format!("{node}\n"))?;
        }
        control_plane.give_agent_rights()?;
        kubectl.apply(&crate::controlled::pool("10.10.0.0/16"))?;
        let cluster = Self {
            agent: control_plane.as_agent_of(OWN)?,
            control_plane,
        };
        cluster.tell(
            cluster.control_plane.kubectl(),
            "admin",
            &json!({"used": {"10.10.1.1": "default/web"}, "usage": 1, "ready": true, "nodes": {OTHER: entry()}}),
        )?;
        // Policies count a moment after they are made.
        wait::until("the policies", || {
            let lease = cluster.lease("weir-controller", OTHER, &["--dry-run=server"]);
            cluster.refused(lease, "its own Lease")?;
            let told = cluster.run(&cluster.agent, OWN, &json!({"ready": false}), " --dry-run=server");
            cluster.refused(told, "status.nodes")
        })?;
        Ok(cluster)
    }

    /// Applies a status of the Eip, as a field manager.
    fn tell(&self, whose: &Kubectl, manager: &str, status: &Value) -> Result<String> {
        self.run(whose, manager, status, "")
    }

    fn run(&self, whose: &Kubectl, manager: &str, status: &Value, options: &str) -> Result<String> {
        let eip = json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": {"name": "pool"}, "status": status,
        });
        let line = format!("{LINE} --subresource=status --field-manager={manager}{options}");
        whose.run_with(&line, &format!("{eip}\n"))
    }

    /// Applies a Lease as the agent.
    fn lease(&self, name: &str, holder: &str, options: &[&str]) -> Result<String> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": WEIR_NAMESPACE},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30},
        });
        let line = format!("{LINE} --field-manager=any {}", options.join(" "));
        self.agent.run_with(&line, &format!("{lease}\n"))
    }

    fn refused(&self, written: Result<String>, why: &str) -> Result<()> {
        match written {
            Ok(said) => bail!("taken: {said}"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(
                    said.contains("ValidatingAdmissionPolicy") && said.contains(why),
                    "{said}"
                );
                Ok(())
            }
        }
    }

    fn status(&self) -> Result<Value> {
        Ok(self.control_plane.kubectl().get("eip pool")?["status"].clone())
    }
}

fn entry() -> Value {
    json!({"ready": true, "takesTunnel": true, "announces": ["10.10.1.1"]})
}

#[test]
fn an_agent_writes_the_entry_of_its_own_node_and_no_other() -> Result<()> {
    let cluster = Cluster::new()?;
    let before = cluster.status()?;
    let entries = "status.nodes, which is own, and no other";
    for (status, why) in [
        (json!({"nodes": {OTHER: {"ready": false}}}), entries),
        (json!({"nodes": {OWN: entry(), "third": entry()}}), entries),
        (json!({"used": {"10.10.1.2": "default/mine"}}), "and nothing else"),
        (
            json!({"used": {"10.10.1.1": "default/mine"}, "nodes": {OWN: entry()}}),
            "and nothing else",
        ),
        (json!({"ready": false}), "and nothing else"),
        (json!({"usage": 7}), "and nothing else"),
        (
            json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Mine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
            "and nothing else",
        ),
    ] {
        cluster.refused(cluster.tell(&cluster.agent, OWN, &status), why)?;
    }
    // To take away what another has said is no better: whoever applies nothing as that one does.
    for (status, why) in [
        (
            json!({"used": {"10.10.1.1": "default/web"}, "usage": 1, "ready": true}),
            entries,
        ),
        (json!({"nodes": {OTHER: entry()}}), "and nothing else"),
    ] {
        cluster.refused(cluster.tell(&cluster.agent, "admin", &status), why)?;
    }
    ensure!(cluster.status()? == before, "{}", cluster.status()?);

    cluster.tell(&cluster.agent, OWN, &json!({"nodes": {OWN: entry()}}))?;
    ensure!(cluster.status()?["nodes"][OWN] == entry(), "{}", cluster.status()?);
    cluster.tell(&cluster.agent, OWN, &json!({}))?;
    ensure!(cluster.status()? == before, "{}", cluster.status()?);
    // A token that says of no node where its bearer is, is none of a pod.
    let anywhere = cluster.control_plane.kubectl_as(WEIR_NAMESPACE, "weir-agent")?;
    let told = cluster.tell(&anywhere, OWN, &json!({"nodes": {OWN: entry()}}));
    cluster.refused(told, "does not say on which node")?;

    cluster.lease("weir-agent-own", OWN, &[])?;
    let other = cluster.control_plane.as_agent_of(OTHER)?;
    let theirs = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "weir-agent-other", "namespace": WEIR_NAMESPACE}, "spec": {"holderIdentity": OTHER},
    });
    other.run_with(&format!("{LINE} --field-manager=any"), &format!("{theirs}\n"))?;
    for (name, holder) in [
        ("weir-agent-other", OTHER),
        ("weir-agent-other", OWN),
        ("weir-agent-new", OTHER),
        ("weir-controller", OWN),
    ] {
        cluster.refused(cluster.lease(name, holder, &[]), "its own Lease")?;
    }
    Ok(())
}

/// Policies may cost the API server only so much; this is as large as `docs/kubernetes.md` says that a status may be.
#[test]
fn the_policy_reads_the_status_of_500_nodes_with_5000_addresses() -> Result<()> {
    let cluster = Cluster::new()?;
    let address = |number: u32| std::net::Ipv4Addr::from(0x0a0a_0000 + number).to_string();
    let used = (0..5000).map(|number| (address(number), json!(format!("team-{}/service-{number}", number % 50))));
    let nodes = (0..499).map(|node| {
        let announces: Vec<String> = (0..10).map(|at| address(node * 10 + at)).collect();
        (
            format!("node-{node}"),
            json!({"ready": true, "takesTunnel": true, "announces": announces}),
        )
    });
    let all = json!({
        "used": used.collect::<serde_json::Map<_, _>>(), "usage": 5000, "ready": true,
        "nodes": nodes.collect::<serde_json::Map<_, _>>(),
    });
    cluster.tell(cluster.control_plane.kubectl(), "admin", &all)?;
    let before = cluster.status()?;
    cluster.tell(&cluster.agent, OWN, &json!({"nodes": {OWN: entry()}}))?;
    ensure!(cluster.status()?["nodes"][OWN] == entry());
    let told = cluster.tell(
        &cluster.agent,
        OWN,
        &json!({"nodes": {OWN: entry(), "node-498": entry()}}),
    );
    cluster.refused(told, "and no other")?;
    let told = cluster.tell(&cluster.agent, OWN, &json!({"used": {"10.10.19.135": "default/mine"}}));
    cluster.refused(told, "and nothing else")?;
    let mut after = cluster.status()?;
    after["nodes"].as_object_mut().map(|nodes| nodes.remove(OWN));
    ensure!(after == before, "what others say has changed");
    Ok(())
}
