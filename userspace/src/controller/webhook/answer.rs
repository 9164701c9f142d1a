//! Questions of the API server, as JSON, and their answers.

use super::super::telemetry::{Review, Telemetry};
use crate::source::kube::{self as source, WrittenEip};
use axum::{
    body::Bytes,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;
use tracing::{debug, info, warn};
use weir_core::{
    admission::{self, Write},
    controller::EipStatus,
};

/// The API server waits longer than that for our answer.
const LIST: Duration = Duration::from_secs(3);

/// What answering needs.
#[derive(Clone)]
pub(super) struct Answering {
    client: Client,
    telemetry: Telemetry,
}

impl Answering {
    pub(super) const fn new(client: Client, telemetry: Telemetry) -> Self {
        Self { client, telemetry }
    }

    /// Why a write is to be refused, one sentence or two for each reason.
    async fn refusals(&self, request: &Value) -> Result<Vec<String>, String> {
        if request["kind"]["kind"] != "Eip" {
            return Ok(Vec::new());
        }
        // One that cannot be read is for its definition to refuse; if that lets it pass, it becomes a condition.
        let Some(after) = source::written_eip(&request["object"]) else {
            return Ok(Vec::new());
        };
        let before = source::written_eip(&request["oldObject"]);
        let nobody = EipStatus::default();
        let status = before.as_ref().map_or(&nobody, |WrittenEip { status, .. }| status);
        let eips = match timeout(LIST, source::eips(&self.client)).await {
            Ok(Ok(eips)) => eips,
            Ok(Err(error)) => return Err(format!("cannot list the Eips: {error}")),
            Err(_) => return Err("cannot list the Eips in time".into()),
        };
        let write = Write {
            name: &after.name,
            before: before.as_ref().map(|before| &before.eip),
            after: &after.eip,
            status,
        };
        let refusals = admission::refusals(&write, &eips);
        Ok(refusals
            .into_iter()
            .map(|refusal| format!("{}: {}", refusal.field, refusal.message))
            .collect())
    }
}

/// Answers an AdmissionReview.
pub(super) async fn admit(State(answering): State<Answering>, body: Bytes) -> Response {
    let telemetry = &answering.telemetry;
    let Some(review) = question(&body) else {
        telemetry.reviewed(Review::Admission, "failed");
        return refused();
    };
    let request = &review["request"];
    let name = request["name"].as_str().unwrap_or_default();
    let refusals = match answering.refusals(request).await {
        Ok(refusals) => refusals,
        Err(error) => {
            warn!("whether Eip {name} may be written is left to the webhook's failure policy: {error}");
            telemetry.reviewed(Review::Admission, "failed");
            return (StatusCode::INTERNAL_SERVER_ERROR, error).into_response();
        }
    };
    let kind = request["kind"]["kind"].as_str().unwrap_or_default();
    let mut response = json!({"uid": request["uid"], "allowed": refusals.is_empty()});
    if refusals.is_empty() {
        telemetry.reviewed(Review::Admission, "allowed");
    } else {
        telemetry.reviewed(Review::Admission, "refused");
        let message = refusals.join("; ");
        info!("refused to have {kind} {name} written: {message}");
        response["status"] = json!({"code": 403, "reason": "Forbidden", "message": message});
    }
    let advice = advice(kind, name, &request["object"]);
    if !advice.is_empty() {
        response["warnings"] = json!(advice);
    }
    answer(&review, response)
}

/// What to tell whoever writes an object, beside whether it is taken. Of one that cannot be read nothing: its definition speaks.
fn advice(kind: &str, name: &str, object: &Value) -> Vec<String> {
    let annotations: BTreeMap<String, String> =
        serde_json::from_value(object["metadata"]["annotations"].clone()).unwrap_or_default();
    let mut all: Vec<String> = admission::advice(kind, name, &annotations).into_iter().collect();
    match kind {
        "BgpConf" => all.extend(spec(object).iter().flat_map(weir_crds::advice::bgp_conf)),
        "BgpPeer" => all.extend(spec(object).iter().flat_map(weir_crds::advice::bgp_peer)),
        _ => {}
    }
    all
}

fn spec<T: DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object["spec"].clone()).ok()
}

/// Answers a ConversionReview.
pub(super) async fn convert(State(answering): State<Answering>, body: Bytes) -> Response {
    let Some(review) = question(&body) else {
        answering.telemetry.reviewed(Review::Conversion, "failed");
        return refused();
    };
    let (response, result) = converted(&review["request"]);
    answering.telemetry.reviewed(Review::Conversion, result);
    answer(&review, response)
}

fn converted(request: &Value) -> (Value, &'static str) {
    let desired = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().into_iter().flatten();
    let converted: Result<Vec<Value>, _> = objects
        .map(|object| weir_crds::convert::convert(object.clone(), desired))
        .collect();
    match converted {
        Ok(objects) => {
            let response = json!({"uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"}});
            (response, "converted")
        }
        Err(error) => {
            debug!("cannot convert: {error}");
            let result = json!({"status": "Failure", "message": error.to_string()});
            (
                json!({"uid": request["uid"], "convertedObjects": [], "result": result}),
                "failed",
            )
        }
    }
}

/// A review with a question in it.
fn question(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body)
        .ok()
        .filter(|review: &Value| review["request"]["uid"].is_string())
}

fn refused() -> Response {
    (StatusCode::BAD_REQUEST, "not a review with a request in it\n").into_response()
}

/// The answer is a review of the same kind and version.
fn answer(review: &Value, response: Value) -> Response {
    let review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    ([(CONTENT_TYPE, "application/json")], review.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_crds::convert::{V1ALPHA1, V1ALPHA2};

    #[test]
    fn a_question_is_a_review_with_a_request() {
        assert!(question(br#"{"request": {"uid": "a"}}"#).is_some());
        assert!(question(br#"{"request": {}}"#).is_none());
        assert!(question(b"ten").is_none());
    }

    /// A04.
    #[test]
    fn objects_are_converted_in_order_or_none_is() {
        let conf = |version: &str, port: &str| json!({"apiVersion": version, "kind": "BgpConf", "metadata": {"name": "default"}, "spec": {port: 17900}});
        let request = |objects: &[Value]| json!({"uid": "u", "desiredAPIVersion": V1ALPHA2, "objects": objects});
        let (response, result) = converted(&request(&[conf(V1ALPHA1, "port"), conf(V1ALPHA2, "listenPort")]));
        assert_eq!(result, "converted");
        assert_eq!(
            response["convertedObjects"],
            json!([conf(V1ALPHA2, "listenPort"), conf(V1ALPHA2, "listenPort")])
        );
        assert_eq!(
            (&response["uid"], &response["result"]["status"]),
            (&json!("u"), &json!("Success"))
        );

        let strange = json!({"apiVersion": V1ALPHA1, "kind": "Fish", "metadata": {"name": "x"}});
        let (response, result) = converted(&request(&[conf(V1ALPHA1, "port"), strange]));
        assert_eq!((result, &response["result"]["status"]), ("failed", &json!("Failure")));
        assert!(
            response["result"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("Fish"))
        );
    }
}
