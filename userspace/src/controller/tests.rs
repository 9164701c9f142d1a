//! What is exposed, and that the page about it says the same.

use super::{
    telemetry::{Result, Review, Telemetry},
    *,
};
use crate::{
    metrics::{
        Watched,
        tests::{families_of, listed},
    },
    source::kube::Records,
};
use prometheus_client::encoding::text;
use weir_core::{
    controller::{EipObject, EipStatus, Event, ServiceObject},
    model::ObjectRef,
};

fn warning(reason: &str) -> Event {
    Event {
        object: ObjectRef::cluster_scoped("Eip", "pool"),
        uid: "1".into(),
        warning: true,
        reason: reason.into(),
        message: "text".into(),
    }
}

/// One of everything.
fn exposed(openelb: bool) -> String {
    let telemetry = Telemetry::default();
    telemetry.transitions(4);
    telemetry.wrote("record", Result::Written);
    telemetry.wrote("record", Result::Written);
    telemetry.wrote("show", Result::TooOld);
    telemetry.said(true);
    telemetry.events_wait(5);
    telemetry.reviewed(Review::Admission, "refused");
    telemetry.planned(Duration::from_millis(3), &["Overlap", "Overlap", "NoEip"].map(warning));
    let status = EipStatus {
        pool_size: 256,
        usage: 7,
        ..EipStatus::default()
    };
    let eip = EipObject {
        status,
        ..EipObject::default()
    };
    let marked = ServiceObject {
        label: Some("pool".into()),
        finalizer: true,
        ..ServiceObject::default()
    };
    let services = [("a/b", marked), ("a/c", ServiceObject::default())];
    telemetry.read(&Records {
        services: services.map(|(key, object)| (key.parse().unwrap(), object)).into(),
        eips: [("pool".into(), eip)].into(),
        ..Records::default()
    });
    let mut written = String::new();
    text::encode(&mut written, &telemetry.exposed(openelb)).unwrap();
    written
}

#[test]
fn the_page_about_metrics_lists_exactly_what_the_controller_exposes() {
    assert_eq!(families_of(&exposed(false)), listed("weir_controller_"));
}

#[test]
fn what_is_told_is_exposed() {
    let text = exposed(false);
    for line in [
        "weir_controller_leading 0\n",
        "weir_controller_lease_transitions_total 4\n",
        "weir_controller_writes_total{action=\"record\",result=\"written\"} 2\n",
        "weir_controller_writes_total{action=\"show\",result=\"too_old\"} 1\n",
        "weir_controller_events_total{type=\"Warning\"} 1\n",
        "weir_controller_events_waiting 5\n",
        "weir_controller_reviews_total{review=\"admission\",result=\"refused\"} 1\n",
        "weir_controller_warnings{reason=\"Overlap\"} 2\n",
        "weir_controller_eip_addresses{eip=\"pool\"} 256\n",
        "weir_controller_eip_addresses_used{eip=\"pool\"} 7\n",
        "weir_controller_services 1\n",
        "weir_controller_plan_duration_seconds_count 1\n",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

/// [G05]
#[test]
fn the_page_about_metrics_lists_what_is_exposed_by_openelbs_names() {
    let (text, without) = (exposed(true), families_of(&exposed(false)));
    let mut added = families_of(&text);
    added.retain(|name, _| !without.contains_key(name));
    let mut page = listed("addresses_");
    page.extend(listed("services_"));
    assert_eq!(added, page);
    for line in [
        "addresses_total{eipName=\"pool\"} 256\n",
        "addresses_in_use_total{eipName=\"pool\"} 7\n",
        "services_allocated_total{eipName=\"pool\"} 1\n",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[test]
fn a_controller_is_ready_once_it_has_read_everything() {
    let telemetry = Telemetry::default();
    assert!(telemetry.unready().is_some() && telemetry.unwell().is_none());
    telemetry.waits_for(Some("not read yet: eips".into()));
    assert!(telemetry.unready().unwrap().contains("eips"));
    telemetry.waits_for(None);
    assert_eq!(telemetry.unready(), None);
}
