use super::*;
use crate::{BgpConf, BgpPeer, v1alpha1};
use proptest::prelude::*;

fn object(version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "one"}, "spec": spec})
}

fn converted(object: &Value, desired: &str) -> Value {
    convert(object.clone(), desired).unwrap()
}

#[test]
fn a04_an_old_router_keeps_its_port_and_identifier() {
    let old = object(
        V1ALPHA1,
        "BgpConf",
        json!({"as": 4_200_000_001_u32, "port": 17900, "routerID": "10.0.0.1"}),
    );
    let new = converted(&old, V1ALPHA2);
    assert_eq!(
        new,
        object(
            V1ALPHA2,
            "BgpConf",
            json!({"as": 4_200_000_001_u32, "listenPort": 17900, "routerId": "10.0.0.1"})
        )
    );
    let read: BgpConf = serde_json::from_value(new.clone()).unwrap();
    assert_eq!(
        (read.spec.listen_port, read.spec.router_id.as_deref()),
        (Some(17900), Some("10.0.0.1"))
    );
    assert_eq!(converted(&new, V1ALPHA1), old);
}

#[test]
fn a04_an_old_neighbour_keeps_everything() {
    let spec = json!({
        "config": {"peerAs": 65001, "neighborAddress": "10.0.0.254"},
        "addPaths": {"sendMax": 8},
        "transport": {"passiveMode": true, "remotePort": 17900},
        "usingPortForward": true
    });
    let old = object(V1ALPHA1, "BgpPeer", spec);
    let new = converted(&old, V1ALPHA2);
    let read: BgpPeer = serde_json::from_value(new.clone()).unwrap();
    let conf = read.spec.conf.unwrap();
    assert_eq!(
        (conf.peer_as, conf.neighbor_address.as_deref()),
        (Some(65001), Some("10.0.0.254"))
    );
    let family = &read.spec.afi_safis[0];
    let paths = family.add_paths.as_ref().and_then(|paths| paths.config.as_ref());
    assert_eq!(
        (family.config.is_none(), paths.and_then(|it| it.send_max)),
        (true, Some(8))
    );
    assert_eq!(read.spec.transport.unwrap().remote_port, Some(17900));
    assert_eq!(read.spec.using_port_forward, Some(true));
    assert!(new["metadata"].get("annotations").is_none(), "{new}");
    let back = converted(&new, V1ALPHA1);
    assert_eq!(back, old);
    serde_json::from_value::<v1alpha1::BgpPeer>(back).unwrap();
}

#[test]
fn a04_an_old_eip_is_a_new_one() {
    let spec = json!({"address": "10.0.0.0/24", "protocol": "layer2", "disable": true, "usingKnownIPs": true});
    let old = object(V1ALPHA1, "Eip", spec.clone());
    assert_eq!(converted(&old, V1ALPHA2), object(V1ALPHA2, "Eip", spec));
}

#[test]
fn what_the_older_version_cannot_say_is_still_there() {
    let spec = json!({
        "conf": {"peerAs": 1, "neighborAddress": "fd00::1", "authPassword": "secret"},
        "afiSafis": [{"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}, "enabled": true}}],
        "timers": {"config": {"holdTime": "9"}}
    });
    let new = object(V1ALPHA2, "BgpPeer", spec);
    let old = converted(&new, V1ALPHA1);
    assert_eq!(old["spec"]["config"]["authPassword"], "secret");
    assert_eq!(old["spec"]["timers"]["config"]["holdTime"], "9");
    assert_eq!(converted(&old, V1ALPHA2), new);
}

#[test]
fn two_fields_that_become_one_are_told_apart_on_the_way_back() {
    let old = object(
        V1ALPHA1,
        "BgpConf",
        json!({"as": 1, "port": 179, "routerID": "10.0.0.1", "listenPort": 5}),
    );
    let new = converted(&old, V1ALPHA2);
    assert_eq!(
        (&new["spec"]["listenPort"], &new["spec"]["port"]),
        (&json!(5), &json!(179))
    );
    assert_eq!(converted(&new, V1ALPHA1), old);

    // Whoever changes it in between is heard, and the annotation does not outlive its truth.
    let mut changed = new;
    changed["spec"]["listenPort"] = 6.into();
    let old = converted(&changed, V1ALPHA1);
    assert_eq!(old["spec"]["listenPort"], 6);
    assert_eq!(converted(&old, V1ALPHA2)["spec"], changed["spec"]);
}

#[test]
fn a04_what_nobody_converted_is_settled() {
    let stored = object(
        V1ALPHA2,
        "BgpConf",
        json!({"as": 1, "port": 17900, "routerID": "10.0.0.1"}),
    );
    let expected = object(
        V1ALPHA2,
        "BgpConf",
        json!({"as": 1, "listenPort": 17900, "routerId": "10.0.0.1"}),
    );
    assert_eq!(settle(stored), expected);
    assert_eq!(settle(expected.clone()), expected);
    let old = object(V1ALPHA1, "BgpConf", json!({"port": 1}));
    assert_eq!(settle(old.clone()), old);
}

#[test]
fn others_are_refused() {
    let refused = |object: Value, desired: &str| convert(object, desired).unwrap_err().to_string();
    assert!(refused(object("v1", "Eip", json!({})), V1ALPHA2).contains("apiVersion `v1`"));
    assert!(refused(object(V1ALPHA1, "Eip", json!({})), "v3").contains("apiVersion `v3`"));
    assert!(refused(object(V1ALPHA1, "Service", json!({})), V1ALPHA2).contains("kind `Service`"));
    assert!(refused(json!(7), V1ALPHA2).contains("apiVersion ``"));
}

/// Values of any shape, with the names that are moved among the keys.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9.:]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(keys(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}

fn keys() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "port",
        "listenPort",
        "routerID",
        "routerId",
        "as",
        "config",
        "conf",
        "addPaths",
        "afiSafis",
        "sendMax",
        "other",
    ])
}

fn objects() -> impl Strategy<Value = Value> {
    let spec = prop::collection::btree_map(keys(), values(), 0..8);
    let kind = prop::sample::select(vec!["Eip", "BgpConf", "BgpPeer"]);
    let annotations = prop::option::of(prop::collection::btree_map("[a-z]{1,4}", "[a-z]{0,4}", 1..3));
    (kind, spec, annotations, values()).prop_map(|(kind, spec, annotations, status)| {
        let spec: Spec = spec.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut object = object(V1ALPHA1, kind, spec.into());
        object["status"] = status;
        if let Some(annotations) = annotations {
            object["metadata"]["annotations"] = json!(annotations);
        }
        object
    })
}

proptest! {
    #[test]
    fn there_and_back_is_where_it_was(object in objects()) {
        for (version, other) in [(V1ALPHA1, V1ALPHA2), (V1ALPHA2, V1ALPHA1)] {
            let mut object = object.clone();
            object["apiVersion"] = version.into();
            let there = converted(&object, other);
            prop_assert_eq!(&there["apiVersion"], other);
            prop_assert_eq!(&there["status"], &object["status"]);
            let back = converted(&there, version);
            prop_assert_eq!(&back, &object);
            // However often.
            prop_assert_eq!(converted(&back, other), there);
        }
    }
}
