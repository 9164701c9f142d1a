//! What is in a cluster that OpenELB 0.6 has served: its definitions, objects with every field they have, and Services that hold
//! addresses.

mod definitions;

use crate::controlled::{ADDRESS, LABEL, service};
use anyhow::Result;
pub use definitions::definitions;
use serde_json::{Value, json};
use tests::kube::{Kubectl, wait_for_definitions};

/// A field that OpenELB does not have, as of somebody who has changed it.
const OF_A_FORK: &str = "ofAFork";

/// Kind, name, finalizer, `spec` and `status` of every object.
fn objects() -> [(&'static str, &'static str, &'static str, Value, Value); 5] {
    const OF_EIPS: &str = "finalizer.ipam.kubesphere.io/v1alpha1";
    const OF_OTHERS: &str = "finalizer.lb.kubesphere.io/v1alpha1";
    let restart = json!({
        "enabled": true, "restartTime": 60, "helperOnly": true, "deferralTime": 1, "notificationEnabled": true, "longlivedEnabled": true,
        "staleRoutesTime": 2, "peerRestartTime": 3, "peerRestarting": true, "localRestarting": true, "mode": "m",
    });
    [
        (
            "Eip",
            "pool",
            OF_EIPS,
            json!({
                "address": "10.10.1.10/24", "protocol": "layer2", "interface": "can_reach:10.10.1.1", "usingKnownIPs": true, "priority": -3,
                "namespaces": ["default"], "namespaceSelector": {"team": "web"}, OF_A_FORK: {"a": "b"},
            }),
            json!({
                "used": {"10.10.1.7": "default/old", "10.10.1.9": "default/web;default/mail"}, "usage": 2, "poolSize": 256,
                "occupied": false, "firstIP": "10.10.1.0", "lastIP": "10.10.1.255", "v4": true, "ready": true,
            }),
        ),
        (
            "Eip",
            "full",
            OF_EIPS,
            json!({"address": "10.10.2.5", "disable": true}),
            json!({
                "used": {"10.10.2.5": "default/only"}, "usage": 1, "poolSize": 1, "occupied": true, "firstIP": "10.10.2.5",
                "lastIP": "10.10.2.5", "v4": true,
            }),
        ),
        (
            "Eip",
            "unused",
            OF_EIPS,
            json!({"address": "fd00:10::/120", "protocol": "vip", "interface": "eth0"}),
            json!({"poolSize": 256, "firstIP": "fd00:10::", "lastIP": "fd00:10::ff"}),
        ),
        (
            "BgpConf",
            "default",
            OF_OTHERS,
            json!({
                "as": 65000, "asPerRack": {"left": 65001}, "routerId": "10.0.0.1", "listenPort": 17900, "listenAddresses": ["10.0.0.1"],
                "families": [65537], "useMultiplePaths": true, "policy": "p", "gracefulRestart": restart, OF_A_FORK: {"a": "b"},
            }),
            json!({"nodesConfStatus": {"node-1": {"routerId": "10.0.0.1", "as": 65000}}}),
        ),
        (
            "BgpPeer",
            "router",
            OF_OTHERS,
            json!({
                "conf": {
                    "neighborAddress": "10.0.0.1", "peerAs": 65001, "localAs": 65002, "authPassword": "p", "description": "d",
                    "peerGroup": "g", "peerType": 1, "removePrivateAs": "NONE", "routeFlapDamping": true, "sendCommunity": 1,
                    "neighborInterface": "eth0", "vrf": "v", "allowOwnAs": 1, "replacePeerAs": true, "adminDown": true,
                },
                "ebgpMultihop": {"enabled": true, "multihopTtl": 2},
                "timers": {"config": {
                    "connectRetry": "1", "holdTime": "9", "keepaliveInterval": "3", "minimumAdvertisementInterval": "1",
                }},
                "transport": {
                    "mtuDiscovery": true, "passiveMode": true, "remoteAddress": "10.0.0.1", "remotePort": 1179, "tcpMss": 1400,
                },
                "gracefulRestart": restart,
                "afiSafis": [{
                    "config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": true},
                    "addPaths": {"config": {"receive": true, "sendMax": 3}},
                    "mpGracefulRestart": {"config": {"enabled": true}},
                }],
                "nodeSelector": {"matchLabels": {"a": "b"}},
                OF_A_FORK: {"a": "b"},
            }),
            json!({"nodesPeerStatus": {"node-1": {
                "peerState": {"neighborAddress": "10.0.0.1", "peerAs": 65001, "sessionState": "ESTABLISHED"},
                "timersState": {"negotiatedHoldTime": "9", "uptime": "1"},
            }}}),
        ),
    ]
}

/// Service, its Eip, its address, its port.
const SERVICES: [(&str, &str, &str, u16); 4] = [
    ("old", "pool", "10.10.1.7", 80),
    ("web", "pool", "10.10.1.9", 80),
    ("mail", "pool", "10.10.1.9", 25),
    ("only", "full", "10.10.2.5", 80),
];

/// Leaves all of it in a cluster, by its own definitions.
pub fn leave(kubectl: &Kubectl) -> Result<()> {
    // As helm makes what is in a chart's folder `crds`.
    kubectl.run_with("create", &definitions())?;
    wait_for_definitions(kubectl)?;
    let all = objects();
    let of_object = |(kind, name, finalizer, spec, _): &(&str, &str, &str, Value, Value)| {
        json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind,
            "metadata": {"name": name, "finalizers": [finalizer], "labels": {"kept": "yes"}, "annotations": {"a.b/c": "kept"}},
            "spec": spec,
        })
    };
    let mut items: Vec<Value> = all.iter().map(of_object).collect();
    for (name, eip, address, port) in SERVICES {
        // By its name, by its address, or by the namespace.
        let asked: &[(&str, &str)] = match name {
            "old" => &[(LABEL, eip)],
            "only" => &[],
            _ => &[(ADDRESS, address)],
        };
        let mut object: Value = serde_json::from_str(service(name, asked).trim_start_matches("---\n"))?;
        object["metadata"]["labels"] = json!({LABEL: eip});
        object["metadata"]["finalizers"] = json!(["finalizer.lb.kubesphere.io/v1alpha1"]);
        object["spec"]["ports"][0]["port"] = json!(port);
        items.push(object);
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    kubectl.run_with("create", &list.to_string())?;
    for (kind, name, _, _, status) in &all {
        kubectl.patch_status(&format!("{kind} {name}"), status)?;
    }
    for (name, _, address, _) in SERVICES {
        let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        kubectl.patch_status(&format!("service {name}"), &status)?;
    }
    Ok(())
}
