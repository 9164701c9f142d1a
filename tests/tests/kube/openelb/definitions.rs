//! OpenELB's definitions of Eip, BgpConf and BgpPeer, in both versions: fields and types, and what they refuse.

use super::OF_A_FORK;
use serde_json::{Map, Value, json};

fn object(fields: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": fields});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Fields of one schema.
fn all(names: &[&str], schema: &Value) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), schema.clone())).collect()
}

fn joined(parts: impl IntoIterator<Item = Map<String, Value>>) -> Value {
    Value::Object(parts.into_iter().flatten().collect())
}

fn string() -> Value {
    json!({"type": "string"})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

fn integer() -> Value {
    json!({"type": "integer"})
}

/// Autonomous systems, too: the larger half of them is refused.
fn int32() -> Value {
    json!({"type": "integer", "format": "int32"})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

fn map(values: &Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

fn fork() -> Map<String, Value> {
    all(&[OF_A_FORK], &map(&string()))
}

fn config(inner: Value) -> Value {
    object(json!({ "config": inner }), &[])
}

fn graceful_restart() -> Value {
    object(
        joined([
            all(
                &[
                    "enabled",
                    "helperOnly",
                    "notificationEnabled",
                    "longlivedEnabled",
                    "peerRestarting",
                    "localRestarting",
                ],
                &boolean(),
            ),
            all(
                &["restartTime", "deferralTime", "staleRoutesTime", "peerRestartTime"],
                &int32(),
            ),
            all(&["mode"], &string()),
        ]),
        &[],
    )
}

fn transport() -> Value {
    object(
        joined([
            all(&["mtuDiscovery", "passiveMode"], &boolean()),
            all(&["remoteAddress"], &string()),
            all(&["remotePort", "tcpMss"], &int32()),
        ]),
        &[],
    )
}

fn eip() -> [Value; 2] {
    let status = object(
        joined([
            all(&["occupied", "ready", "v4"], &boolean()),
            all(&["usage", "poolSize"], &integer()),
            all(&["firstIP", "lastIP"], &string()),
            all(&["used"], &map(&string())),
        ]),
        &[],
    );
    let older = joined([
        all(&["address"], &json!({"type": "string", "pattern": "^[0-9./-]+$"})),
        all(&["protocol"], &json!({"type": "string", "enum": ["bgp", "layer2"]})),
        all(&["disable", "usingKnownIPs"], &boolean()),
        fork(),
    ]);
    let newer = joined([
        all(&["address", "interface"], &string()),
        all(
            &["protocol"],
            &json!({"type": "string", "enum": ["bgp", "layer2", "vip"]}),
        ),
        all(&["disable", "usingKnownIPs"], &boolean()),
        all(&["priority"], &integer()),
        all(&["namespaces"], &list(&string())),
        all(&["namespaceSelector"], &map(&string())),
        fork(),
    ]);
    [older, newer].map(|spec| {
        let spec = object(spec, &["address"]);
        object(json!({"spec": spec, "status": status}), &[])
    })
}

fn bgp_conf() -> [Value; 2] {
    let older = object(
        joined([
            all(&["as"], &int32()),
            all(
                &["port"],
                &json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}),
            ),
            all(&["routerID"], &string()),
            fork(),
        ]),
        &["as", "port", "routerID"],
    );
    let newer = object(
        joined([
            all(&["as", "listenPort"], &int32()),
            all(&["asPerRack"], &map(&int32())),
            all(&["routerId", "policy"], &string()),
            all(&["listenAddresses"], &list(&string())),
            all(&["families"], &list(&int32())),
            all(&["useMultiplePaths"], &boolean()),
            all(&["gracefulRestart"], &graceful_restart()),
            fork(),
        ]),
        &[],
    );
    let node = object(json!({"routerId": string(), "as": int32()}), &[]);
    let status = object(json!({ "nodesConfStatus": map(&node) }), &[]);
    [
        object(json!({"spec": older, "status": object(json!({}), &[])}), &[]),
        object(json!({"spec": newer, "status": status}), &[]),
    ]
}

fn bgp_peer() -> [Value; 2] {
    let older = joined([
        all(
            &["config"],
            &object(
                json!({"peerAs": int32(), "neighborAddress": string()}),
                &["peerAs", "neighborAddress"],
            ),
        ),
        all(&["addPaths"], &object(json!({"sendMax": int32()}), &[])),
        all(&["transport"], &transport()),
        all(&["usingPortForward"], &boolean()),
        fork(),
    ]);
    let conf = joined([
        all(
            &["peerAs", "localAs", "peerType", "sendCommunity", "allowOwnAs"],
            &int32(),
        ),
        all(&["routeFlapDamping", "replacePeerAs", "adminDown"], &boolean()),
        all(
            &[
                "authPassword",
                "description",
                "neighborAddress",
                "neighborInterface",
                "peerGroup",
                "removePrivateAs",
                "vrf",
            ],
            &string(),
        ),
    ]);
    let timers = all(
        &[
            "connectRetry",
            "holdTime",
            "keepaliveInterval",
            "minimumAdvertisementInterval",
        ],
        &string(),
    );
    let enabled = config(object(json!({"enabled": boolean()}), &[]));
    let family = object(json!({"afi": string(), "safi": string()}), &[]);
    let afi_safi = json!({
        "config": object(json!({"family": family, "enabled": boolean()}), &[]),
        "addPaths": config(object(json!({"receive": boolean(), "sendMax": int32()}), &[])),
        "mpGracefulRestart": enabled,
    });
    let selector = object(json!({ "matchLabels": map(&string()) }), &[]);
    let newer = joined([
        all(&["conf"], &object(conf, &[])),
        all(
            &["ebgpMultihop"],
            &object(json!({"enabled": boolean(), "multihopTtl": int32()}), &[]),
        ),
        all(&["timers"], &config(object(Value::Object(timers), &[]))),
        all(&["transport"], &transport()),
        all(&["gracefulRestart"], &graceful_restart()),
        all(&["afiSafis"], &list(&object(afi_safi, &[]))),
        all(&["nodeSelector"], &selector),
        fork(),
    ]);
    let node = json!({
        "peerState": object(json!({"neighborAddress": string(), "peerAs": int32(), "sessionState": string()}), &[]),
        "timersState": object(json!({"negotiatedHoldTime": string(), "uptime": string()}), &[]),
    });
    let status = object(json!({ "nodesPeerStatus": map(&object(node, &[])) }), &[]);
    [
        object(
            json!({"spec": object(older, &[]), "status": object(json!({}), &[])}),
            &[],
        ),
        object(json!({"spec": object(newer, &[]), "status": status}), &[]),
    ]
}

/// The definitions; nothing is kept of what they do not name.
pub fn definitions() -> String {
    let columns = json!([
        {"name": "cidr", "type": "string", "jsonPath": ".spec.address"},
        {"name": "usage", "type": "integer", "jsonPath": ".status.usage"},
        {"name": "total", "type": "integer", "jsonPath": ".status.poolSize"},
    ]);
    let of = |(kind, [older, newer]): (&str, [Value; 2])| {
        let singular = kind.to_lowercase();
        let plural = format!("{singular}s");
        let mut versions = json!([
            {"name": "v1alpha1", "served": true, "storage": false, "schema": {"openAPIV3Schema": older}},
            {"name": "v1alpha2", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": newer}},
        ]);
        let mut names =
            json!({"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular});
        if kind == "Eip" {
            names["categories"] = json!(["networking"]);
            for version in versions.as_array_mut().into_iter().flatten() {
                version["additionalPrinterColumns"] = columns.clone();
            }
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.network.kubesphere.io"),
                "annotations": {"controller-gen.kubebuilder.io/version": "v0.4.0"},
            },
            "spec": {"group": "network.kubesphere.io", "names": names, "scope": "Cluster", "versions": versions},
        })
    };
    let all = [("Eip", eip()), ("BgpConf", bgp_conf()), ("BgpPeer", bgp_peer())].map(of);
    json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string()
}
