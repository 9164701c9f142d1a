//! What is installed of OpenELB beside the objects that Weir reads too: who runs, who is asked, which definitions there are.

use super::Findings;
use crate::{
    model::ObjectRef,
    takeover::{Definition, Level, WEBHOOKS, Webhook, Workload},
};

/// Name of the Deployment and the Service of Weir's own controller.
const CONTROLLER: &str = "weir-controller";
/// Name of OpenELB's configurations of webhooks, whatever its release is called.
const OPENELBS_WEBHOOKS: &str = "openelb-admission";
/// How the names of all its webhooks end. Others ask about objects of the same group, KubeSphere itself among them.
const OPENELBS_DOMAIN: &str = ".eip.network.kubesphere.io";
/// The version that is stored, and that Weir reads.
const VERSION: &str = "v1alpha2";

/// OpenELB, and what it was called before.
const PROJECTS: [&str; 2] = ["openelb", "porter"];
/// What follows in the names of its images, workloads and Services. A release that is not called like the project has its name before
/// that: `openelb-prod-controller`, `lb-openelb-controller`.
const PARTS: [&str; 9] = [
    "",
    "-admission",
    "-agent",
    "-controller",
    "-forward",
    "-keepalive-vip",
    "-manager",
    "-proxy",
    "-speaker",
];

/// Whether a workload, a Service or an image (without registry and tag) of this name is OpenELB's. Others have its words in theirs:
/// every exporter has `porter`.
fn is_openelbs(name: &str) -> bool {
    let mut parts = PROJECTS.iter().filter_map(|project| name.strip_prefix(project));
    // Porter's chart names no release, and others are called so, too.
    let of_release = PARTS.iter().filter(|part| !part.is_empty());
    let mut releases = of_release.filter_map(|part| name.strip_suffix(part));
    parts.any(|part| PARTS.contains(&part))
        || releases.any(|release| release.split('-').any(|word| word == PROJECTS[0]))
}

/// The last part of an image's path: `c` of `a:5000/b/c:tag@digest`.
fn image_name(image: &str) -> &str {
    let path = image.split_once('@').map_or(image, |(path, _)| path);
    let last = path.rsplit_once('/').map_or(path, |(_, last)| last);
    last.split_once(':').map_or(last, |(name, _)| name)
}

/// Who of OpenELB still runs.
pub(super) fn running(workload: &Workload, findings: &mut Findings) {
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
pub(super) fn asked(webhook: &Webhook, findings: &mut Findings) {
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

/// What the definitions that are there lack, or ask OpenELB.
pub(super) fn defined(definition: &Definition, findings: &mut Findings) {
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
