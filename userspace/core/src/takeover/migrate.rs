//! What would be otherwise if Weir took over a cluster as it is. Most of it is asked of the controller's own plan: what it would
//! write is what would change.

use super::{Definition, Finding, Level, Surroundings, WEBHOOKS, Webhook, Workload, is_openelbs};
use crate::{
    annotations,
    controller::{Action, EipStatus, ServiceObject, World, plan},
    model::{Cluster, Family, Mode, ObjectRef, ServiceKey, TrafficPolicy, reason},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Name of the Deployment and the Service of Weir's own controller.
const CONTROLLER: &str = "weir-controller";
/// Name of OpenELB's configurations of webhooks, whatever its release is called.
const OPENELBS_WEBHOOKS: &str = "openelb-admission";
/// How the names of all its webhooks end. Others ask about objects of the same group, KubeSphere itself among them.
const OPENELBS_DOMAIN: &str = ".eip.network.kubesphere.io";
/// The version that is stored, and that Weir reads.
const VERSION: &str = "v1alpha2";

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

/// The last part of an image's path: `c` of `a:5000/b/c:tag@digest`.
fn image_name(image: &str) -> &str {
    let path = image.split_once('@').map_or(image, |(path, _)| path);
    let last = path.rsplit_once('/').map_or(path, |(_, last)| last);
    last.split_once(':').map_or(last, |(name, _)| name)
}

/// Who of OpenELB still runs.
fn running(workload: &Workload, findings: &mut Findings) {
    let Workload { object, images, pods } = workload;
    let of_openelb = is_openelbs(&object.name) || images.iter().any(|image| is_openelbs(image_name(image)));
    let node_proxy = object.name.starts_with("node-proxy-");
    if !of_openelb && !node_proxy {
        return;
    }
    let kind = object.kind.to_lowercase();
    let ObjectRef { namespace, name, .. } = object;
    let delete = format!("`kubectl -n {namespace} delete {kind} {name}`");
    if node_proxy {
        findings.add(
            Level::Warning,
            object,
            "",
            "forwards for a Service as OpenELB's node proxy, which Weir does not offer",
            format!("give the Service an Eip, then {delete}"),
        );
    } else if *pods == 0 {
        findings.add(
            Level::Note,
            object,
            "",
            "is OpenELB's, and has no pods",
            format!("{delete} once Weir has taken over"),
        );
    } else if kind == "daemonset" {
        findings.add(
            Level::Problem,
            object,
            "",
            format!("is OpenELB's, and its {pods} pods announce the addresses that Weir's agents would"),
            format!("start Weir's agents, then {delete}"),
        );
    } else {
        findings.add(
            Level::Problem,
            object,
            "spec.replicas",
            "is OpenELB's, and gives out addresses; two that do would give one to two Services",
            format!("before Weir's controller starts: `kubectl -n {namespace} scale {kind} {name} --replicas=0`"),
        );
    }
}

/// Whether a webhook is OpenELB's. The name of the Service that is asked depends on its release's.
fn is_openelbs_webhook(webhook: &Webhook, service: &str) -> bool {
    let Webhook {
        configuration, name, ..
    } = webhook;
    let is_ours = configuration.name == WEBHOOKS || service == CONTROLLER;
    let is_theirs = configuration.name == OPENELBS_WEBHOOKS || name.ends_with(OPENELBS_DOMAIN) || is_openelbs(service);
    is_theirs && !is_ours
}

/// What the API server would ask OpenELB.
fn asked(webhook: &Webhook, findings: &mut Findings) {
    let Webhook {
        configuration,
        name,
        service,
        fails_closed,
        resources,
    } = webhook;
    let Some((namespace, service)) = service else { return };
    if !is_openelbs_webhook(webhook, service) {
        return;
    }
    if configuration.kind == "MutatingWebhookConfiguration" {
        findings.add(
            Level::Note,
            configuration,
            "",
            "gives Services without an annotation to OpenELB, where there is a default Eip (0.5)",
            "`weir controller --adopt-all` does, without a webhook",
        );
    }
    let resources = resources.join(", ");
    let remedy = format!(
        "`kubectl delete {} {}`",
        configuration.kind.to_lowercase(),
        configuration.name
    );
    let field = format!("webhooks[{name}]");
    if *fails_closed {
        findings.add(
            Level::Problem,
            configuration,
            &field,
            format!("asks Service {namespace}/{service}; once that is gone, every write of {resources} is refused"),
            format!("as soon as OpenELB's controller is stopped: {remedy}"),
        );
    } else {
        findings.add(
            Level::Warning,
            configuration,
            &field,
            format!("asks Service {namespace}/{service} about {resources}"),
            remedy,
        );
    }
}

fn defined(definition: &Definition, findings: &mut Findings) {
    let object = ObjectRef::cluster_scoped("CustomResourceDefinition", &definition.name);
    let remedy = "apply Weir's definitions (`crds/yaml`, or the chart); objects stay as they are";
    if !definition.served.iter().any(|version| version == VERSION) {
        findings.add(
            Level::Problem,
            &object,
            "spec.versions",
            format!("{VERSION} is not served, and Weir reads no other"),
            remedy,
        );
    }
    if let Some((namespace, service)) = &definition.converter
        && service != CONTROLLER
    {
        findings.add(
            Level::Problem,
            &object,
            "spec.conversion",
            format!(
                "Service {namespace}/{service} converts; while it is away, objects in another version cannot be read"
            ),
            remedy,
        );
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

/// What the controller would write, and what it would say.
fn planned(cluster: &Cluster, world: &World, findings: &mut Findings) {
    let planned = plan(world);
    for action in &planned.actions {
        match action {
            Action::Show { service, addresses, .. } => shown(cluster, service, addresses, findings),
            Action::Mark { service, eip, .. } => marked(world, service, eip.as_deref(), findings),
            Action::Guard { eip, finalizer, .. } => {
                let says = if *finalizer {
                    "would get its finalizer"
                } else {
                    "would lose its finalizer"
                };
                let object = ObjectRef::cluster_scoped("Eip", eip);
                findings.add(Level::Note, &object, "metadata.finalizers", says, "nothing");
            }
            Action::Record { eip, status, .. } => recorded(cluster, world, eip, status, findings),
        }
    }
    let remaining = remaining(cluster, world, &planned.actions);
    for event in planned.warnings {
        let mut services = cluster.services.iter();
        let service = services.find(|(key, _)| ObjectRef::service(key) == event.object);
        let has = service.is_some_and(|(_, service)| !service.ingress.is_empty());
        let loses = service.is_some_and(|(key, service)| {
            let mut addresses = service.ingress.iter();
            addresses.any(|address| !remaining.contains(&(*address, key.clone())))
        });
        let harmless = [reason::BALANCER_IGNORED, reason::PROTOCOL_IGNORED, reason::SHARED_LOCAL];
        // What nobody serves is of no use, whoever has it.
        let unserved = has && event.reason == reason::FRONTEND_TAKEN;
        let unlike = !harmless.contains(&event.reason.as_str());
        let level = if loses && unlike || unserved {
            Level::Problem
        } else {
            Level::Warning
        };
        findings.add(
            level,
            &event.object,
            "",
            format!("{}: {}", event.reason, event.message),
            "as it says",
        );
    }
}

/// The addresses that are still their Services' after these writes: the books have them, and statuses are not to lose them.
fn remaining(cluster: &Cluster, world: &World, actions: &[Action]) -> BTreeSet<(IpAddr, ServiceKey)> {
    let mut books: BTreeMap<&str, &EipStatus> = BTreeMap::new();
    for name in cluster.eips.keys() {
        books.extend(world.eip(name).map(|object| (name.as_str(), &object.status)));
    }
    let mut shown: BTreeMap<&ServiceKey, &[IpAddr]> = BTreeMap::new();
    for action in actions {
        match action {
            Action::Record { eip, status, .. } => drop(books.insert(eip, status)),
            Action::Show { service, addresses, .. } => drop(shown.insert(service, addresses)),
            Action::Mark { .. } | Action::Guard { .. } => {}
        }
    }
    let entries = books.into_values().flat_map(EipStatus::entries);
    let entries = entries.filter(|(address, key)| shown.get(key).is_none_or(|shown| shown.contains(address)));
    entries.collect()
}

fn shown(cluster: &Cluster, key: &ServiceKey, addresses: &[IpAddr], findings: &mut Findings) {
    let before = cluster.services.get(key).map_or(&[][..], |service| &service.ingress);
    let object = ObjectRef::service(key);
    let spell = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let lost: Vec<IpAddr> = before
        .iter()
        .copied()
        .filter(|address| !addresses.contains(address))
        .collect();
    let field = "status.loadBalancer.ingress";
    if lost.is_empty() {
        let says = format!("would get {}", spell(addresses));
        findings.add(Level::Note, &object, field, says, "nothing, if that is wanted");
        return;
    }
    let instead = if addresses.is_empty() {
        "none".into()
    } else {
        spell(addresses)
    };
    findings.add(
        Level::Problem,
        &object,
        field,
        format!(
            "has {} and would have {instead}, as {} is not what it asks for, or no Eip has it",
            spell(before),
            spell(&lost)
        ),
        "ask for the address by the annotation eip.openelb.kubesphere.io/v1alpha1, and see to an Eip that has it",
    );
}

fn marked(world: &World, key: &ServiceKey, eip: Option<&str>, findings: &mut Findings) {
    let object = ObjectRef::service(key);
    let object_now = world.service(key);
    let before = object_now.and_then(|service| service.label.as_deref());
    match (before, eip) {
        // That has been said.
        (_, None) if object_now.is_some_and(|service| !service.marked()) => {}
        (_, None) => findings.add(
            Level::Warning,
            &object,
            "metadata.finalizers",
            "carries OpenELB's label or finalizer and is none of its Services any more; both would go",
            "nothing",
        ),
        (Some(before), Some(eip)) if before != eip => findings.add(
            Level::Warning,
            &object,
            "metadata.labels[eip.openelb.kubesphere.io/v1alpha2]",
            format!("is {before} and would be {eip}, which has its address"),
            "nothing",
        ),
        _ => findings.add(
            Level::Note,
            &object,
            "metadata.labels",
            "would get label and finalizer",
            "nothing",
        ),
    }
}

/// Where the book of an Eip and the Services differ.
fn recorded(cluster: &Cluster, world: &World, eip: &str, after: &EipStatus, findings: &mut Findings) {
    let object = ObjectRef::cluster_scoped("Eip", eip);
    let book = |status: &EipStatus| status.entries().collect::<BTreeSet<_>>();
    let before = world.eip(eip).map(|object| book(&object.status)).unwrap_or_default();
    let after = book(after);
    let field = |address: &IpAddr| format!("status.used[{address}]");
    for (address, key) in before.difference(&after) {
        let says = format!("says that Service {key} has it, which it does not, or not any more");
        findings.add(
            Level::Warning,
            &object,
            &field(address),
            says,
            "nothing; the entry would go",
        );
    }
    for (address, key) in after.difference(&before) {
        let has = cluster
            .services
            .get(key)
            .is_some_and(|service| service.ingress.contains(address));
        if has {
            let says = format!("is missing, and Service {key} has it");
            findings.add(
                Level::Warning,
                &object,
                &field(address),
                says,
                "nothing; it would be entered",
            );
        } else {
            // The book comes first; what it says is what the Service would have next, in that family.
            let before = cluster.services.get(key).map_or(&[][..], |service| &service.ingress);
            let others = before
                .iter()
                .copied()
                .filter(|other| Family::of(*other) != Family::of(*address));
            let next: Vec<IpAddr> = others.chain([*address]).collect();
            shown(cluster, key, &next, findings);
        }
    }
    if before == after {
        let says = "the numbers are not those of the Eip, or not there yet";
        findings.add(Level::Note, &object, "status", says, "nothing; they would be written");
    }
}
