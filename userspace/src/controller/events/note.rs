//! What an event is to the API server.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event as Note},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use weir_core::controller::Event;

/// The part of an event's name that is its object's, in bytes; both together have 253 at the most.
const LONGEST_NAME: usize = 230;
/// The longest text that the API server takes, in bytes.
const LONGEST: usize = 1024;

/// An object of its own for each, as each has a text of its own: series, as kube's `Recorder` makes them, keep the first text.
/// `at`: when it was said, from which its name follows, so that one that is sent again has the same; `identity`: who said it.
pub(super) fn note(event: &Event, at: Timestamp, identity: &str) -> Note {
    let mut text = event.message.clone();
    text.truncate(text.floor_char_boundary(LONGEST));
    let version = match event.object.kind.as_str() {
        "Eip" => format!("{}/v1alpha2", weir_crds::GROUP),
        _ => "v1".into(),
    };
    let about = ObjectReference {
        api_version: Some(version),
        kind: Some(event.object.kind.clone()),
        namespace: Some(event.object.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(event.object.name.clone()),
        uid: Some(event.uid.clone()),
        ..ObjectReference::default()
    };
    let namespace = about.namespace.clone();
    let mut name = event.object.name.clone();
    name.truncate(name.floor_char_boundary(LONGEST_NAME));
    let name = format!("{name}.{:x}", at.as_nanosecond());
    Note {
        metadata: ObjectMeta {
            // What is about an object without a namespace is kept in this one.
            namespace: Some(namespace.unwrap_or_else(|| "default".into())),
            name: Some(name),
            ..ObjectMeta::default()
        },
        type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
        action: Some(event.reason.clone()),
        reason: Some(event.reason.clone()),
        note: Some(text),
        regarding: Some(about),
        event_time: Some(MicroTime(at)),
        // As OpenELB's: tools that pick events by source go on.
        reporting_controller: Some(event.source().into()),
        reporting_instance: Some(identity.into()),
        ..Note::default()
    }
}
