//! What leaving takes out of a cluster, and in which order.

use super::*;

#[test]
fn cleanup_first_stops_what_would_refuse_its_writes() {
    let marked = |object: ObjectRef, label: bool, finalizers: &[&str]| Marked {
        object,
        resource_version: "7".into(),
        labels: label
            .then(|| (EIP_LABEL.to_owned(), "pool".to_owned()))
            .into_iter()
            .collect(),
        finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
        told: false,
    };
    let told = |marked: Marked| Marked { told: true, ..marked };
    let definition = ObjectRef::cluster_scoped("CustomResourceDefinition", "eips.network.kubesphere.io");
    let service = |name: &str| ObjectRef::service(&key(name));
    let eip = |name: &str| ObjectRef::cluster_scoped("Eip", name);
    let named = |configuration: ObjectRef, service: &str| Webhook {
        configuration,
        ..webhook(service, true)
    };
    let ours = ObjectRef::cluster_scoped("ValidatingWebhookConfiguration", "weir");
    let steps = steps(
        &[
            webhook("openelb-controller", true),
            named(ours.clone(), "by-another-name"),
            named(ours.clone(), "by-another-name"),
            // Somebody else's, whatever its Service is called.
            webhook("weir-controller", true),
            webhook("weir-exporter", true),
            named(
                ObjectRef::cluster_scoped("MutatingWebhookConfiguration", "weir"),
                "weir-shop",
            ),
        ],
        std::slice::from_ref(&definition),
        &[
            told(marked(service("ours"), true, &[SERVICE_FINALIZER, "other/finalizer"])),
            marked(
                service("others"),
                false,
                &["other/finalizer", "node-proxy.example.com/finalizer"],
            ),
            marked(
                service("proxied"),
                false,
                &[&["other/finalizer"], &NODE_PROXY_FINALIZERS[..]].concat(),
            ),
            marked(service("labelled"), true, &[]),
            told(marked(service("waiting"), false, &[])),
        ],
        &[told(marked(eip("pool"), false, &[EIP_FINALIZER]))],
        &[marked(
            ObjectRef::cluster_scoped("BgpConf", "default"),
            false,
            &[SERVICE_FINALIZER],
        )],
    );
    let unmark = |object, label: bool, finalizers: &[&str]| Step::Unmark {
        object,
        resource_version: "7".into(),
        label: label.then_some(EIP_LABEL),
        finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(
        steps,
        [
            Step::Delete(ours),
            Step::StopConverting(definition),
            unmark(service("ours"), true, &["other/finalizer"]),
            unmark(service("proxied"), false, &["other/finalizer"]),
            unmark(service("labelled"), true, &[]),
            Step::Untell(service("ours")),
            Step::Untell(service("waiting")),
            unmark(eip("pool"), false, &[]),
            Step::Untell(eip("pool")),
            unmark(ObjectRef::cluster_scoped("BgpConf", "default"), false, &[]),
        ]
    );
}
