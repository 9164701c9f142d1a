//! Whom the API server is to ask: written by whoever leads, and again when somebody has written something else.
//!
//! Eips are the same in both versions but for `apiVersion`, which the API server changes by itself, so nobody is asked about
//! them and addresses are given out whatever becomes of the webhooks. While BGP objects were converted by nobody, some of their
//! fields may have been stored with their older names; those get their newer ones then.

use super::{
    Settings, Surroundings,
    asked::{Asked, replaced},
    certificates::Bundle,
    settle::settle_all,
};
use crate::controller::Leading;
use futures_util::{Stream, StreamExt, stream::SelectAll};
use k8s_openapi::{
    api::admissionregistration::v1::ValidatingWebhookConfiguration,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{fmt::Debug, pin::Pin, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};
use weir_core::takeover::WEBHOOKS;
use weir_crds::GROUP;

/// The kinds that are another in their other version, and their plurals.
const CONVERTED: [(&str, &str); 2] = [("BgpConf", "bgpconfs"), ("BgpPeer", "bgppeers")];
/// Until it is looked again though nothing is said to have changed, and after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(5));

/// Sees to it, whenever this controller leads, that the API server asks as it should.
pub(super) async fn keep(settings: Settings, around: Surroundings, mut bundle: watch::Receiver<Option<Bundle>>) {
    let Surroundings {
        client,
        namespace,
        mut leading,
        mut service_exists,
        ..
    } = around;
    let mut changes = changes(&client);
    let mut said = None;
    while wait_to_lead(&mut leading).await {
        let authority = bundle
            .borrow_and_update()
            .as_ref()
            .map(|bundle| bundle.authority.clone());
        let reachable = settings.url.is_some() || *service_exists.borrow_and_update();
        let done = match authority {
            Some(authority) if reachable => {
                let asked = Asked {
                    settings: &settings,
                    namespace: &namespace,
                    authority,
                };
                configure(&client, &asked)
                    .await
                    .map_err(|error| format!("cannot have the API server ask the webhooks: {}", said_by(&error)))
            }
            Some(_) => Err(format!(
                "there is no Service {namespace}/{}, so the API server is not told of the webhooks; make one whose port 443 leads to \
                 {}, or give --no-webhook",
                settings.service, settings.address
            )),
            None => Ok(true),
        };
        let wait = match done {
            Ok(all) => {
                said = None;
                if all { AGAIN.0 } else { AGAIN.1 }
            }
            Err(text) => {
                if said.as_ref() != Some(&text) {
                    warn!("{text}");
                    said = Some(text);
                }
                AGAIN.1
            }
        };
        let until = Instant::now() + wait;
        tokio::select! {
            // One that fails says so as long as it does, and goes on by itself.
            Some(()) = changes.next() => {}
            Ok(()) = bundle.changed() => {}
            Ok(()) = service_exists.changed() => {}
            () = sleep_until(until) => {}
        }
    }
}

/// Has the API server ask nobody any more, once this controller leads.
pub(super) async fn withdraw(client: Client, mut leading: watch::Receiver<Leading>) {
    while wait_to_lead(&mut leading).await {
        let until = match unconfigure(&client).await {
            Ok(()) => return,
            Err(error) => {
                let error = said_by(&error);
                warn!("cannot have the API server ask no webhooks: {error}; it is tried again");
                Instant::now() + AGAIN.1
            }
        };
        sleep_until(until).await;
    }
}

/// Waits until this controller leads; not for ever only if it does so before it ends.
async fn wait_to_lead(leading: &mut watch::Receiver<Leading>) -> bool {
    leading.wait_for(Leading::now).await.is_ok()
}

type Changes = SelectAll<Pin<Box<dyn Stream<Item = ()> + Send>>>;

/// Something for each change of what is configured here.
fn changes(client: &Client) -> Changes {
    fn of<K>(client: &Client, name: &str) -> Pin<Box<dyn Stream<Item = ()> + Send>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        // By name, as the rights are.
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(Api::<PartialObjectMeta<K>>::all(client.clone()), config).default_backoff();
        stream.filter_map(|event| async move { event.ok().map(drop) }).boxed()
    }
    let definitions = CONVERTED.map(|(_, plural)| of::<CustomResourceDefinition>(client, &definition(plural)));
    let configuration = of::<ValidatingWebhookConfiguration>(client, WEBHOOKS);
    definitions.into_iter().chain([configuration]).collect()
}

fn definition(plural: &str) -> String {
    format!("{plural}.{GROUP}")
}

/// What an error says, without what tools are told beside.
fn said_by(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Configures what is not as it should be; whether nothing is left to be done.
async fn configure(client: &Client, asked: &Asked<'_>) -> Result<bool, kube::Error> {
    ask_for_conversions(client, asked).await?;
    ask_for_admission(client, asked).await?;
    for (kind, _) in CONVERTED {
        match settle_all(client, kind).await {
            Ok(()) => {}
            // Its definition has just been changed, or is not there.
            Err(kube::Error::Api(status)) if [404, 429].contains(&status.code) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

async fn ask_for_conversions(client: &Client, asked: &Asked<'_>) -> Result<(), kube::Error> {
    let conversion = asked.conversion();
    for (_, plural) in CONVERTED {
        let api = Api::<CustomResourceDefinition>::all(client.clone());
        let Some(found) = api.get_opt(&definition(plural)).await? else {
            continue;
        };
        if found.spec.conversion.as_ref() != Some(&conversion) {
            info!("having the API server ask for conversions of {plural}");
            let patch = json!({"spec": {"conversion": replaced(&conversion)}});
            api.patch(&definition(plural), &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
    }
    Ok(())
}

async fn ask_for_admission(client: &Client, asked: &Asked<'_>) -> Result<(), kube::Error> {
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let webhooks = asked.webhooks();
    match api.get_opt(WEBHOOKS).await? {
        None => {
            info!("having the API server ask whether Eips may be written");
            let configuration = ValidatingWebhookConfiguration {
                metadata: ObjectMeta {
                    name: Some(WEBHOOKS.into()),
                    ..ObjectMeta::default()
                },
                webhooks: Some(webhooks),
            };
            api.create(&PostParams::default(), &configuration).await.map(drop)
        }
        Some(found) if found.webhooks.as_ref() == Some(&webhooks) => Ok(()),
        Some(_) => {
            info!("having the API server ask anew whether Eips may be written");
            let patch = json!({ "webhooks": webhooks });
            api.patch(WEBHOOKS, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(drop)
        }
    }
}

async fn unconfigure(client: &Client) -> Result<(), kube::Error> {
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    if api.get_opt(WEBHOOKS).await?.is_some() {
        info!("having the API server ask nobody whether Eips may be written");
        api.delete(WEBHOOKS, &DeleteParams::default()).await?;
    }
    for (_, plural) in CONVERTED {
        let api = Api::<CustomResourceDefinition>::all(client.clone());
        let found = api.get_opt(&definition(plural)).await?;
        let conversion = found.and_then(|found| found.spec.conversion);
        if conversion.is_some_and(|conversion| conversion.strategy == "Webhook") {
            info!("having the API server ask nobody for conversions of {plural}");
            let patch = json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}});
            api.patch(&definition(plural), &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
    }
    Ok(())
}
