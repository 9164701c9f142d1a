//! What the API server is to be told: whom it asks, about what, and whom it trusts there.

use super::{ADMIT, CONVERT, FailurePolicy, Settings};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MatchCondition, RuleWithOperations, ServiceReference, ValidatingWebhook, WebhookClientConfig,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceConversion, ServiceReference as ConvertingService, WebhookClientConfig as ConvertingClient,
        WebhookConversion,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::{Value, json};
use weir_crds::GROUP;

/// The API server waits for an answer for that long, in seconds.
const PATIENCE: i32 = 5;

/// Only what is asked for and how is asked about: statuses, labels and finalizers can be written whoever answers.
const WORTH_ASKING: &str = "request.operation == 'CREATE' || object.spec != oldObject.spec \
    || (has(object.metadata.annotations) ? object.metadata.annotations : {}) \
    != (has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {})";

/// Whom to ask.
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) namespace: &'a str,
    /// Who signed the certificate, in PEM.
    pub(super) authority: Vec<u8>,
}

impl Asked<'_> {
    fn url(&self, path: &str) -> Option<String> {
        self.settings.url.as_ref().map(|url| format!("{}{path}", url.text))
    }

    /// Webhooks about writes.
    pub(super) fn webhooks(&self) -> Vec<ValidatingWebhook> {
        let url = self.url(ADMIT);
        let service = ServiceReference {
            name: self.settings.service.clone(),
            namespace: self.namespace.into(),
            path: Some(ADMIT.into()),
            port: Some(443),
        };
        let policy = match self.settings.policy {
            FailurePolicy::Ignore => "Ignore",
            FailurePolicy::Fail => "Fail",
        };
        let of = |resource: &str, name: &str, policy: &str| ValidatingWebhook {
            name: format!("{name}.{GROUP}"),
            admission_review_versions: vec!["v1".into()],
            client_config: WebhookClientConfig {
                ca_bundle: Some(ByteString(self.authority.clone())),
                service: url.is_none().then(|| service.clone()),
                url: url.clone(),
            },
            failure_policy: Some(policy.into()),
            match_conditions: Some(vec![MatchCondition {
                name: "worth-asking".into(),
                expression: WORTH_ASKING.into(),
            }]),
            match_policy: Some("Equivalent".into()),
            namespace_selector: Some(LabelSelector::default()),
            object_selector: Some(LabelSelector::default()),
            rules: Some(vec![RuleWithOperations {
                api_groups: Some(vec![GROUP.into()]),
                api_versions: Some(vec!["v1alpha2".into()]),
                operations: Some(vec!["CREATE".into(), "UPDATE".into()]),
                resources: Some(vec![resource.into()]),
                scope: Some("Cluster".into()),
            }]),
            side_effects: "None".into(),
            timeout_seconds: Some(PATIENCE),
        };
        // Advice is never worth a refusal.
        vec![
            of("eips", "eip", policy),
            of("bgpconfs", "bgpconf", "Ignore"),
            of("bgppeers", "bgppeer", "Ignore"),
        ]
    }

    /// The webhook about versions.
    pub(super) fn conversion(&self) -> CustomResourceConversion {
        let url = self.url(CONVERT);
        CustomResourceConversion {
            strategy: "Webhook".into(),
            webhook: Some(WebhookConversion {
                client_config: Some(ConvertingClient {
                    ca_bundle: Some(ByteString(self.authority.clone())),
                    service: url.is_none().then(|| ConvertingService {
                        name: self.settings.service.clone(),
                        namespace: self.namespace.into(),
                        path: Some(CONVERT.into()),
                        port: Some(443),
                    }),
                    url,
                }),
                conversion_review_versions: vec!["v1".into()],
            }),
        }
    }
}

/// As a merge patch: of service and URL, the one that is not asked has to be named to go.
pub(super) fn replaced(conversion: &CustomResourceConversion) -> Value {
    let mut patch = json!(conversion);
    let client = &mut patch["webhook"]["clientConfig"];
    for key in ["service", "url"] {
        if client.get(key).is_none() {
            client[key] = Value::Null;
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_ways_to_be_asked_the_other_one_goes() {
        let settings = |url: Option<&str>| Settings {
            address: ([0, 0, 0, 0], 9443).into(),
            service: "weir-controller".into(),
            url: url.map(|url| url.parse().unwrap()),
            policy: FailurePolicy::Fail,
        };
        for (url, gone, there) in [
            (None, "url", "service"),
            (Some("https://10.0.0.1:9443"), "service", "url"),
        ] {
            let settings = settings(url);
            let asked = Asked {
                settings: &settings,
                namespace: "weir-system",
                authority: b"a".to_vec(),
            };
            let patch = replaced(&asked.conversion());
            let client = &patch["webhook"]["clientConfig"];
            assert!(client[gone].is_null() && !client[there].is_null(), "{patch}");
            let eips = &asked.webhooks()[0];
            assert_eq!(
                eips.client_config.url.as_deref(),
                url.map(|_| "https://10.0.0.1:9443/admit")
            );
            assert_eq!(eips.client_config.service.is_some(), url.is_none());
            assert_eq!(eips.failure_policy.as_deref(), Some("Fail"));
        }
    }
}
