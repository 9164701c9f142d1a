//! Reading a cluster: the objects as the controller sees them, and what OpenELB has beside them.

use crate::source::kube::{Kube, Records, Scope};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        apps::v1::{DaemonSet, Deployment},
        core::v1::PodTemplateSpec,
        networking::v1::NetworkPolicy,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use weir_core::{
    model::{Cluster, ObjectRef},
    takeover::{Definition, Surroundings, Webhook, Workload},
};
use weir_crds::{BgpConf, BgpPeer};

/// The definitions that are looked at.
pub(super) const DEFINITIONS: [&str; 3] = [
    "eips.network.kubesphere.io",
    "bgpconfs.network.kubesphere.io",
    "bgppeers.network.kubesphere.io",
];

/// A snapshot of everything that addresses are given out by.
pub(super) async fn objects(client: &Client, server: &str) -> anyhow::Result<(Cluster, Records)> {
    let mut source = Kube::follow(client, server, Scope::Controller);
    loop {
        source.changed().await;
        if let Some(cluster) = source.read() {
            return Ok((cluster, source.records().clone()));
        }
        if let Some(problem) = source.conditions().next() {
            anyhow::bail!("{problem}");
        }
    }
}

/// What OpenELB has beside those.
pub(super) async fn surroundings(client: &Client) -> anyhow::Result<Surroundings> {
    let all = ListParams::default();
    let deployments = Api::<Deployment>::all(client.clone()).list(&all).await?;
    let daemon_sets = Api::<DaemonSet>::all(client.clone()).list(&all).await?;
    let deployments = deployments.items.iter().map(|deployment| {
        let spec = deployment.spec.as_ref();
        let pods = spec.map_or(0, |spec| spec.replicas.unwrap_or(1));
        workload(deployment, spec.map(|spec| &spec.template), pods)
    });
    let daemon_sets = daemon_sets.items.iter().map(|set| {
        let pods = set.status.as_ref().map_or(0, |status| status.desired_number_scheduled);
        // One that nobody has looked at yet counts as one with pods.
        workload(set, set.spec.as_ref().map(|spec| &spec.template), pods.max(1))
    });
    let workloads = deployments.chain(daemon_sets).collect();
    let policies = Api::<NetworkPolicy>::all(client.clone()).list(&all).await;
    let letting_in = permitted(policies.map(|list| list.items))?.map(|policies| letting_in(&policies));
    let mut bgp = Vec::new();
    bgp.extend(
        metadata::<BgpConf>(client)
            .await?
            .iter()
            .map(|found| object("BgpConf", found)),
    );
    bgp.extend(
        metadata::<BgpPeer>(client)
            .await?
            .iter()
            .map(|found| object("BgpPeer", found)),
    );
    Ok(Surroundings {
        workloads,
        webhooks: webhooks(client).await?,
        definitions: definitions(client).await?,
        bgp,
        letting_in,
    })
}

/// What was asked for; `None` if whoever runs this may not have it.
fn permitted<T>(answer: Result<T, kube::Error>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Those that are about what comes in.
fn letting_in(policies: &[NetworkPolicy]) -> Vec<ObjectRef> {
    let letting_in = policies.iter().filter(|policy| {
        let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.as_deref());
        // One that names none is about what comes in.
        types.is_none_or(|types| types.is_empty() || types.iter().any(|of| of == "Ingress"))
    });
    letting_in.map(|policy| object("NetworkPolicy", policy)).collect()
}

/// Metadata of all objects of a kind; none if it is not defined.
pub(super) async fn metadata<K>(client: &Client) -> anyhow::Result<Vec<PartialObjectMeta<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    match api.list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Which object it is.
pub(super) fn object(kind: &str, found: &impl ResourceExt) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        namespace: found.namespace().unwrap_or_default(),
        name: found.name_any(),
    }
}

fn workload<K: Resource<DynamicType = ()>>(found: &K, template: Option<&PodTemplateSpec>, pods: i32) -> Workload {
    let containers = template.and_then(|template| template.spec.as_ref());
    let containers = containers.into_iter().flat_map(|spec| &spec.containers);
    Workload {
        object: object(&K::kind(&()), found),
        images: containers.filter_map(|container| container.image.clone()).collect(),
        pods: pods.into(),
    }
}

/// Every webhook of admission.
pub(super) async fn webhooks(client: &Client) -> anyhow::Result<Vec<Webhook>> {
    let all = ListParams::default();
    let mut webhooks = Vec::new();
    for found in Api::<ValidatingWebhookConfiguration>::all(client.clone())
        .list(&all)
        .await?
    {
        let configuration = object("ValidatingWebhookConfiguration", &found);
        for hook in found.webhooks.into_iter().flatten() {
            let closed = hook.failure_policy.as_deref() != Some("Ignore");
            webhooks.push(webhook(
                &configuration,
                hook.name,
                hook.client_config,
                closed,
                hook.rules,
            ));
        }
    }
    for found in Api::<MutatingWebhookConfiguration>::all(client.clone())
        .list(&all)
        .await?
    {
        let configuration = object("MutatingWebhookConfiguration", &found);
        for hook in found.webhooks.into_iter().flatten() {
            let closed = hook.failure_policy.as_deref() != Some("Ignore");
            webhooks.push(webhook(
                &configuration,
                hook.name,
                hook.client_config,
                closed,
                hook.rules,
            ));
        }
    }
    Ok(webhooks)
}

fn webhook(
    configuration: &ObjectRef,
    name: String,
    asked: WebhookClientConfig,
    fails_closed: bool,
    rules: Option<Vec<RuleWithOperations>>,
) -> Webhook {
    let resources = rules
        .into_iter()
        .flatten()
        .flat_map(|rule| rule.resources.unwrap_or_default());
    Webhook {
        configuration: configuration.clone(),
        name,
        service: asked.service.map(|service| (service.namespace, service.name)),
        fails_closed,
        resources: resources.collect(),
    }
}

/// Those of the definitions that there are.
pub(super) async fn definitions(client: &Client) -> anyhow::Result<Vec<Definition>> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let mut definitions = Vec::new();
    for name in DEFINITIONS {
        let Some(found) = api.get_opt(name).await? else {
            continue;
        };
        let conversion = found.spec.conversion.and_then(|conversion| conversion.webhook);
        let service = conversion.and_then(|webhook| webhook.client_config?.service);
        let served = found.spec.versions.into_iter().filter(|version| version.served);
        definitions.push(Definition {
            name: name.into(),
            converter: service.map(|service| (service.namespace, service.name)),
            served: served.map(|version| version.name).collect(),
        });
    }
    Ok(definitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn what_may_not_be_listed_is_gone_without_and_no_other_failure_is() {
        let refused = |code: u16| {
            let mut status = Status::failure("no", "Reason");
            status.code = code;
            permitted::<()>(Err(kube::Error::Api(status.boxed())))
        };
        assert_eq!(refused(403).unwrap(), None);
        for code in [401, 404, 500] {
            assert!(refused(code).is_err(), "{code}");
        }
        assert_eq!(permitted(Ok(7)).unwrap(), Some(7));
    }
}
