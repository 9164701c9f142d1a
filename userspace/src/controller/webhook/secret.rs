//! The Secret by which all controllers have one certificate: made by whoever is first, renewed by whoever sees that it is time.

use super::certificates::{Bundle, Due, Found, Kept, read};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{Api, Client, api::PostParams};
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

/// Name of the Secret.
const NAME: &str = "weir-controller-webhook";
/// Between two looks at it, and after one that failed.
const LOOK: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the Secret {NAME} cannot be read or written: {0}")]
    Kube(#[from] kube::Error),
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the Secret {NAME}, which is not of our making, has no {0}; add it, or delete the Secret")]
    Unusable(&'static str),
}

/// Tells what the Secret has, for as long as somebody listens.
pub(super) async fn keep(
    client: Client,
    namespace: String,
    names: BTreeSet<String>,
    tell: watch::Sender<Option<Bundle>>,
) {
    let api = Api::namespaced(client, &namespace);
    let mut said = None;
    while !tell.is_closed() {
        let wait = match look(&api, &names).await {
            Ok(bundle) => {
                said = None;
                tell.send_if_modified(|told| {
                    let news = told.as_ref() != Some(&bundle);
                    *told = Some(bundle);
                    news
                });
                LOOK.0
            }
            Err(error) => {
                let text = error.to_string();
                if said.as_ref() != Some(&text) {
                    warn!("{text}; webhooks are as they were, and it is tried again");
                    said = Some(text);
                }
                LOOK.1
            }
        };
        sleep(wait).await;
    }
}

async fn look(api: &Api<Secret>, names: &BTreeSet<String>) -> Result<Bundle, Error> {
    loop {
        let now = Timestamp::now();
        let written = match api.get_opt(NAME).await? {
            None => {
                let made = Kept::new(names, now, None)?;
                let mut secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(NAME.into()),
                        ..ObjectMeta::default()
                    },
                    type_: Some("kubernetes.io/tls".into()),
                    ..Secret::default()
                };
                made.put(&mut secret);
                info!("writing a certificate for the webhooks into the Secret {NAME}");
                api.create(&PostParams::default(), &secret).await
            }
            Some(mut secret) => {
                let made = match read(&secret) {
                    Some(Found::Others(bundle)) => return Ok(bundle),
                    Some(Found::Unusable(key)) => return Err(Error::Unusable(key)),
                    None => Kept::new(names, now, None)?,
                    Some(Found::Ours(kept)) => match kept.due(names, now) {
                        Due::Nothing => return Ok(kept.bundle),
                        Due::Certificate => kept.signing(names, now)?,
                        Due::Authority => Kept::new(names, now, Some(&kept))?,
                    },
                };
                made.put(&mut secret);
                info!("renewing the webhooks' certificate in the Secret {NAME}");
                // With the version that it was read with.
                api.replace(NAME, &PostParams::default(), &secret).await
            }
        };
        match written {
            // Another was faster; what is there is read, as is what we wrote.
            Ok(_) => {}
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
