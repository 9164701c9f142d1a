//! Taking out of a cluster what would wait for a controller that is gone.

use super::{
    answered,
    read::{definitions, metadata, object, webhooks},
};
use crate::source::kube;
use ::kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use anyhow::Context;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use std::{collections::BTreeMap, mem::discriminant, pin::pin, time::Duration};
use tokio::time::sleep;
use weir_core::{
    controller::SERVED,
    model::ObjectRef,
    takeover::{Marked, Step, steps},
};
use weir_crds::{BgpConf, BgpPeer};

/// How often is looked again for what has changed meanwhile.
const ROUNDS: usize = 5;
/// What the status of an Eip says of the nodes that serve it.
const TOLD_OF_EIPS: [&str; 3] = ["ready", "conditions", "nodes"];
/// How many writes are under way at once.
const AT_ONCE: usize = 16;
/// A Lease whose holder does not say for how long it is held is held for this long.
const LEASE: Duration = Duration::from_secs(15);

/// How to leave.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Namespace of the controllers' Lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// How long the API server may take to answer one request.
    pub timeout: Duration,
}

/// Removes Weir's webhooks and conversion, then labels and finalizers of Services, Eips, BgpConfs and BgpPeers with what
/// statuses say of how they are served, and prints a line for each. Addresses in statuses stay. What is done stays done, so that it
/// goes on from there when it is run again.
///
/// # Errors
///
/// When a controller still leads, as it would write all of it again; when the API server refuses something, after the others of
/// the kind; when it does not answer.
pub async fn cleanup(leaving: &Leaving) -> anyhow::Result<()> {
    let (client, server) = kube::insisting_client().await?;
    refuse_while_led(&client, &server, leaving).await?;
    for round in 0..ROUNDS {
        let steps = planned(&client, leaving.timeout).await?;
        if steps.is_empty() {
            if round == 0 {
                println!("nothing to remove");
            }
            return Ok(());
        }
        if leaving.dry_run {
            steps.iter().for_each(|step| println!("would {}", describe(step)));
            return Ok(());
        }
        // Each waits for those of another sort before it.
        let alike = |step: &Step| (discriminant(step), step.object().kind.clone());
        for steps in steps.chunk_by(|one, next| alike(one) == alike(next)) {
            take_all(&client, steps, leaving.timeout).await?;
        }
    }
    anyhow::bail!(
        "somebody writes labels, finalizers or statuses again; see whether a controller, agents, or OpenELB, still run"
    )
}

/// A Lease that is renewed while we look is held.
async fn refuse_while_led(client: &Client, server: &str, leaving: &Leaving) -> anyhow::Result<()> {
    let api = Api::<Lease>::namespaced(client.clone(), &leaving.namespace);
    let read = async || answered(leaving.timeout, async { Ok(api.get_opt(&leaving.lease).await?) }).await;
    let lease = read().await;
    let Some(lease) = lease.with_context(|| format!("cannot read the Kubernetes API at {server}"))? else {
        return Ok(());
    };
    let spec = lease.spec.unwrap_or_default();
    let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else {
        return Ok(());
    };
    let seconds = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    sleep(seconds.map_or(LEASE, Duration::from_secs)).await;
    let now = read().await?;
    let renewed = now.is_some_and(|now| now.metadata.resource_version != lease.metadata.resource_version);
    anyhow::ensure!(
        !renewed,
        "controller {holder} leads, and would write everything again: `kubectl -n {} scale deployment weir-controller --replicas=0` first",
        leaving.namespace
    );
    Ok(())
}

async fn planned(client: &Client, limit: Duration) -> anyhow::Result<Vec<Step>> {
    let definitions = answered(limit, definitions(client)).await?;
    let converted = definitions.into_iter().filter(|definition| {
        let converter = definition.converter.as_ref();
        converter.is_some_and(|(_, service)| service.starts_with("weir-"))
    });
    let converted: Vec<ObjectRef> = converted
        .map(|definition| ObjectRef::cluster_scoped("CustomResourceDefinition", &definition.name))
        .collect();
    let services = marked(
        "Service",
        &answered(limit, whole(client, "Service")).await?,
        |service| {
            let conditions = service.data["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|condition| condition["type"] == SERVED))
        },
    );
    let eips = marked("Eip", &answered(limit, whole(client, "Eip")).await?, |eip| {
        let status = &eip.data["status"];
        TOLD_OF_EIPS.iter().any(|field| status.get(field).is_some())
    });
    // BGP is not spoken, so nothing is told of it.
    let mut bgp = marked("BgpConf", &answered(limit, metadata::<BgpConf>(client)).await?, |_| {
        false
    });
    bgp.extend(marked(
        "BgpPeer",
        &answered(limit, metadata::<BgpPeer>(client)).await?,
        |_| false,
    ));
    let webhooks = answered(limit, webhooks(client)).await?;
    Ok(steps(&webhooks, &converted, &services, &eips, &bgp))
}

/// All objects of a kind; none if it is not defined.
async fn whole(client: &Client, kind: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let everywhere = api(client, &ObjectRef::cluster_scoped(kind, ""));
    match everywhere.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(::kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn marked<K: ResourceExt>(kind: &str, found: &[K], told: impl Fn(&K) -> bool) -> Vec<Marked> {
    let marked = |found: &K| Marked {
        object: object(kind, found),
        resource_version: found.resource_version().unwrap_or_default(),
        labels: found.labels().clone(),
        finalizers: found.finalizers().to_vec(),
        told: told(found),
    };
    found.iter().map(marked).collect()
}

/// Makes these writes, some at once, and says which are made.
async fn take_all(client: &Client, steps: &[Step], limit: Duration) -> anyhow::Result<()> {
    let writes = stream::iter(steps).map(|step| async move { (step, answered(limit, take(client, step)).await) });
    let mut writes = pin!(writes.buffer_unordered(AT_ONCE));
    let mut refused = Vec::new();
    while let Some((step, outcome)) = writes.next().await {
        let cannot = format!("cannot {}", describe(step));
        match outcome.with_context(|| format!("{cannot}; what is printed is done, run it again to go on"))? {
            Outcome::Done => println!("{}", describe(step)),
            Outcome::Late => {}
            Outcome::Refused(why) => refused.push(format!("{cannot}: {why}")),
        }
    }
    anyhow::ensure!(
        refused.is_empty(),
        "the API server refuses {} of these writes:\n{}",
        refused.len(),
        refused.join("\n")
    );
    Ok(())
}

/// What has become of a write.
enum Outcome {
    /// It is made.
    Done,
    /// It came too late, and is planned anew.
    Late,
    /// It is not made, for this reason, which holds for this object and maybe no other.
    Refused(String),
}

/// Makes a write.
async fn take(client: &Client, step: &Step) -> anyhow::Result<Outcome> {
    let parameters = PatchParams::default();
    let done = match step {
        Step::Delete(object) => {
            let deleted = api(client, object).delete(&object.name, &DeleteParams::default()).await;
            deleted.map(drop)
        }
        Step::StopConverting(object) => {
            let patch = json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}});
            let patched = api(client, object)
                .patch(&object.name, &parameters, &Patch::Merge(patch))
                .await;
            patched.map(drop)
        }
        Step::Unmark {
            object,
            resource_version,
            label,
            finalizers,
        } => {
            let labels: BTreeMap<&str, Option<&str>> = label.iter().map(|label| (*label, None)).collect();
            let patch = json!({
                "metadata": {"resourceVersion": resource_version, "labels": labels, "finalizers": finalizers},
            });
            let patched = api(client, object)
                .patch(&object.name, &parameters, &Patch::Merge(patch))
                .await;
            patched.map(drop)
        }
        Step::Untell(object) => {
            // Only what is named goes, whatever else is there by then.
            let patch = if object.kind == "Service" {
                Patch::Strategic(json!({"status": {"conditions": [{"type": SERVED, "$patch": "delete"}]}}))
            } else {
                let none: BTreeMap<&str, Option<()>> = TOLD_OF_EIPS.iter().map(|field| (*field, None)).collect();
                Patch::Merge(json!({"status": none}))
            };
            let patched = api(client, object)
                .patch_status(&object.name, &parameters, &patch)
                .await;
            patched.map(drop)
        }
    };
    match done {
        Ok(()) => Ok(Outcome::Done),
        Err(::kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(Outcome::Late),
        Err(::kube::Error::Api(status)) if [400, 403, 422].contains(&status.code) => {
            Ok(Outcome::Refused(status.message))
        }
        Err(error) => Err(error.into()),
    }
}

fn api(client: &Client, object: &ObjectRef) -> Api<DynamicObject> {
    let (group, version, plural) = match object.kind.as_str() {
        "Service" => ("", "v1", "services"),
        "Eip" => ("network.kubesphere.io", "v1alpha2", "eips"),
        "BgpConf" => ("network.kubesphere.io", "v1alpha2", "bgpconfs"),
        "BgpPeer" => ("network.kubesphere.io", "v1alpha2", "bgppeers"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        "MutatingWebhookConfiguration" => ("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations"),
        // Steps are about no other kind.
        _ => ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &object.kind), plural);
    if object.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &object.namespace, &resource)
    }
}

/// After `would` or `cannot`, and as a line of what was done.
fn describe(step: &Step) -> String {
    match step {
        Step::Delete(object) => format!("delete {object}"),
        Step::StopConverting(object) => format!("remove conversion from {object}"),
        Step::Unmark { object, label, .. } => {
            let what = if label.is_some() {
                "label and finalizer"
            } else {
                "finalizer"
            };
            format!("remove {what} from {object}")
        }
        Step::Untell(object) if object.kind == "Service" => format!("remove condition {SERVED} from {object}"),
        Step::Untell(object) => format!("remove {} from {object}", TOLD_OF_EIPS.join(", ")),
    }
}
