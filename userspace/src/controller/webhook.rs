//! The webhooks: the API server asks here whether an Eip may be written, and what BGP objects are in their other version.
//!
//! Every controller answers, with a certificate that all share by a Secret; the one that leads sees to it that the API server
//! knows whom to ask. What is answered is decided by [`weir_core::admission`] and [`weir_crds::convert`].

mod answer;
mod asked;
mod certificates;
mod configure;
mod secret;
mod server;
mod settle;

use super::{Leading, telemetry::Telemetry};
use kube::Client;
use std::{collections::BTreeSet, net::SocketAddr};
use tokio::{sync::watch, task::JoinSet};

/// Path of the admission webhook.
const ADMIT: &str = "/admit";
/// Path of the conversion webhook.
const CONVERT: &str = "/convert";

/// Where webhooks are served, and how the API server gets there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they are served.
    pub address: SocketAddr,
    /// Name of the Service, in the controller's namespace, whose port 443 leads there.
    pub service: String,
    /// Where it is outside of the cluster (`https://HOST:PORT`), then asked instead of the Service.
    pub url: Option<Url>,
    /// What becomes of writes of Eips while nobody answers.
    pub policy: FailurePolicy,
}

/// `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    host: String,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not of the form https://HOST or https://HOST:PORT".to_owned();
        let text = text.trim_end_matches('/');
        let uri: axum::http::Uri = text.parse().map_err(|_| wrong())?;
        let host = uri
            .host()
            .filter(|_| uri.scheme_str() == Some("https") && uri.path() == "/");
        let host = host.ok_or_else(wrong)?;
        Ok(Self {
            text: text.into(),
            host: host.trim_matches(['[', ']']).into(),
        })
    }
}

/// What becomes of a write while nobody answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FailurePolicy {
    /// It is made; what is wrong is said by events and conditions.
    #[default]
    #[value(name = "Ignore")]
    Ignore,
    /// It is refused.
    #[value(name = "Fail")]
    Fail,
}

/// What the webhooks need to know of the controller.
pub(super) struct Surroundings {
    pub(super) client: Client,
    /// The controller's namespace.
    pub(super) namespace: String,
    pub(super) leading: watch::Receiver<Leading>,
    /// Whether the Service through which they are asked is there.
    pub(super) service_exists: watch::Receiver<bool>,
    pub(super) telemetry: Telemetry,
}

/// Serves in `tasks`, and so for as long as they are. Without settings, whoever leads takes back what the API server was told.
pub(super) fn start(tasks: &mut JoinSet<()>, settings: Option<Settings>, around: Surroundings) {
    let Some(settings) = settings else {
        tasks.spawn(configure::withdraw(around.client, around.leading));
        return;
    };
    let (tell, bundle) = watch::channel(None);
    let mut names = BTreeSet::from([format!("{}.{}.svc", settings.service, around.namespace)]);
    names.extend(settings.url.iter().map(|url| url.host.clone()));
    tasks.spawn(secret::keep(
        around.client.clone(),
        around.namespace.clone(),
        names,
        tell,
    ));
    tasks.spawn(server::serve(
        settings.address,
        bundle.clone(),
        answer::Answering::new(around.client.clone(), around.telemetry.clone()),
    ));
    tasks.spawn(configure::keep(settings, around, bundle));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_nothing_behind_it() {
        let host = |text: &str| text.parse::<Url>().map(|url| url.host);
        assert_eq!(host("https://10.0.0.1:9443/"), Ok("10.0.0.1".into()));
        assert_eq!(host("https://[fd00::1]:9443"), Ok("fd00::1".into()));
        assert_eq!(host("https://weir.example"), Ok("weir.example".into()));
        for wrong in [
            "http://weir.example",
            "https://weir.example/hooks",
            "weir.example",
            "https://",
        ] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
