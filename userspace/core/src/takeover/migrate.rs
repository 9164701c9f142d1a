//! What would be otherwise if Weir took over a cluster as it is. Most of it is asked of the controller's own plan: what it would
//! write is what would change.

mod installed;
mod planned;

use super::{Finding, Level, Surroundings};
use crate::{
    annotations,
    controller::{ServiceObject, World},
    model::{Cluster, Mode, ObjectRef, ServiceKey, TrafficPolicy},
};
use installed::{asked, defined, running};
use planned::planned;

/// Everything that is different in `world`, a snapshot of the same objects as `cluster`; what matters most comes first.
#[must_use]
pub fn judge(cluster: &Cluster, world: World, surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings = Findings::default();
    for workload in &surroundings.workloads {
        running(workload, &mut findings);
    }
    for webhook in &surroundings.webhooks {
        asked(webhook, &mut findings);
    }
    for definition in &surroundings.definitions {
        defined(definition, &mut findings);
    }
    announced(cluster, surroundings, &mut findings);
    annotated(cluster, &mut findings);
    proxied(cluster, &world, &mut findings);
    match &surroundings.letting_in {
        Some(policies) => let_in(cluster, &world, policies, &mut findings),
        None => findings.add(
            Level::Note,
            &ObjectRef::cluster_scoped("NetworkPolicy", "*"),
            "",
            "may not be listed by whom you are here; pods will see the addresses of clients, and none that lets in nodes alone is named",
            "if there are any, check with a kubeconfig that may list NetworkPolicies of all namespaces",
        ),
    }
    planned(cluster, &world.giving(true), &mut findings);
    let mut findings = findings.0;
    findings
        .sort_by(|one, other| (other.level, &one.object, &one.field).cmp(&(one.level, &other.object, &other.field)));
    findings
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        level: Level,
        object: &ObjectRef,
        field: &str,
        says: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding {
            level,
            object: object.clone(),
            field: field.into(),
            says: says.into(),
            remedy: remedy.into(),
        });
    }
}

/// Eips that Weir announces otherwise than OpenELB.
fn announced(cluster: &Cluster, surroundings: &Surroundings, findings: &mut Findings) {
    for (name, eip) in &cluster.eips {
        let object = ObjectRef::cluster_scoped("Eip", name);
        if eip.left_to_cni {
            findings.add(
                Level::Warning,
                &object,
                "metadata.labels[openelb.kubesphere.io/cni]",
                "leaves it to somebody else to announce its addresses, as with OpenELB 0.5; 0.6 announces them all the same",
                "remove the label if the nodes are to announce them",
            );
            continue;
        }
        match eip.mode {
            Mode::Layer2 => {}
            Mode::Bgp => findings.add(
                Level::Problem,
                &object,
                "spec.protocol",
                "bgp (what an absent protocol means) is not spoken yet: routers would lose the way to its addresses",
                "route them to the nodes by other means, or set the protocol to layer2",
            ),
            Mode::Vip => findings.add(
                Level::Warning,
                &object,
                "spec.protocol",
                "vip is served as layer2 is, without VRRP: the address is answered for by ARP and NDP, and is on no interface",
                "nothing, unless somebody relies on VRRP",
            ),
        }
    }
    for object in &surroundings.bgp {
        findings.add(
            Level::Warning,
            object,
            "",
            "is kept as it is, and nobody acts on it: BGP is not spoken yet",
            "nothing; see the Eips of protocol bgp",
        );
    }
}

/// What earlier versions of OpenELB have written or read.
fn annotated(cluster: &Cluster, findings: &mut Findings) {
    for (key, service) in &cluster.services {
        let object = ObjectRef::service(key);
        for (name, value) in &service.annotations {
            let field = format!("metadata.annotations[{name}]");
            // What they wrote down for themselves.
            let of_project = |project: &str| {
                [
                    "layer2.{}/v1alpha1",
                    "node-proxy.{}/external-ip",
                    "node-proxy.{}/internal-ip",
                ]
                .iter()
                .any(|key| *name == key.replace("{}", &format!("{project}.kubesphere.io")))
            };
            let is_read = annotations::ALL
                .iter()
                .any(|annotation| annotation.names.contains(&name.as_str()));
            if !is_read && ["openelb", "porter"].into_iter().any(of_project) {
                findings.add(
                    Level::Note,
                    &object,
                    &field,
                    "is what OpenELB wrote down of who announces, or of where its node proxy runs; nobody reads it any more",
                    "remove it if you like",
                );
            } else if is_read && name.contains(".porter.kubesphere.io/")
                || name == "lb.kubesphere.io/v1alpha1" && value == "porter"
            {
                findings.add(
                    Level::Note,
                    &object,
                    &field,
                    "is of Porter, and read like OpenELB's",
                    "nothing",
                );
            }
        }
    }
}

/// Services that wait for OpenELB when they are deleted, or already do.
fn proxied(cluster: &Cluster, world: &World, findings: &mut Findings) {
    let with_proxy = |key: &&ServiceKey| world.service(key).is_some_and(|object| object.node_proxy);
    for key in cluster.services.keys().filter(with_proxy) {
        let ServiceKey { namespace, name } = key;
        findings.add(
            Level::Warning,
            &ObjectRef::service(key),
            "metadata.finalizers",
            "carries the finalizer of OpenELB's node proxy; once OpenELB is gone, nobody but Weir's controller, or `weir cleanup`, \
             lets it be deleted",
            format!(
                "leave the finalizer to them, and see to it that no Deployment or DaemonSet node-proxy-{name}-{namespace} is left"
            ),
        );
    }
}

/// Services whose clients come with other addresses than before, where policies may go by addresses.
fn let_in(cluster: &Cluster, world: &World, policies: &[ObjectRef], findings: &mut Findings) {
    for (key, service) in &cluster.services {
        let is_ours = world.service(key).is_some_and(ServiceObject::marked);
        // With Local nobody has hidden them before.
        if service.traffic_policy == TrafficPolicy::Local || !is_ours {
            continue;
        }
        let of_namespace = policies.iter().filter(|policy| policy.namespace == key.namespace);
        let names: Vec<&str> = of_namespace.map(|policy| policy.name.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        findings.add(
            Level::Note,
            &ObjectRef::service(key),
            "spec.externalTrafficPolicy",
            format!(
                "its pods have seen nodes' addresses and will see those of clients, and NetworkPolicies of their namespace say who \
                 may come in: {}",
                names.join(", ")
            ),
            "those that select its pods have to let clients in by an ipBlock; add it before Weir takes over",
        );
    }
}
