//! Eip: a set of addresses to allot to Services.

use crate::rules;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an Eip is to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "Eip",
    plural = "eips",
    status = "EipStatus",
    category = "networking",
    derive = "PartialEq",
    doc = "A set of addresses to allot to Services of type LoadBalancer.",
    printcolumn = r#"{"name": "cidr", "type": "string", "jsonPath": ".spec.address"}"#,
    printcolumn = r#"{"name": "usage", "type": "integer", "jsonPath": ".status.usage"}"#,
    printcolumn = r#"{"name": "total", "type": "integer", "jsonPath": ".status.poolSize"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::eip()))]
pub struct EipSpec {
    /// The addresses: one address, a prefix (host bits do not matter), or `first-last`; IPv4 or IPv6.
    #[schemars(length(max = rules::ADDRESSES_LENGTH), extend("x-kubernetes-validations" = rules::addresses()))]
    pub address: String,
    /// How they are announced; bgp if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// For layer2 and vip: the nodes' interface in that network, or `can_reach:` and an address in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::NAME_LENGTH))]
    pub interface: Option<String>,
    /// Give out nothing new; Services keep what they have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
    /// Accepted and without effect, as in OpenELB since 0.4: every address is used.
    #[serde(default, rename = "usingKnownIPs", skip_serializing_if = "std::ops::Not::not")]
    pub using_known_ips: bool,
    /// Give addresses that end in .0 or .255 only to Services that ask for them: some equipment takes them for a network's own.
    #[serde(default, rename = "avoidBuggyIPs", skip_serializing_if = "std::ops::Not::not")]
    pub avoid_buggy_ips: bool,
    /// Let `address` be changed. A change that takes addresses away that are in use is refused; where it cannot be, as no webhook is
    /// asked, their Services get others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resizable: bool,
    /// Smaller is preferred, among Eips bound to one namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Namespaces whose Services may get an address without asking for this Eip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The same, by labels of the namespace; all of them must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<BTreeMap<String, String>>,
}

/// How addresses are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// BGP, from every node.
    Bgp,
    /// ARP and NDP, by one owner per address.
    Layer2,
    /// VRRP.
    Vip,
}

/// What has become of an Eip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EipStatus {
    /// Whether every address is in use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub occupied: bool,
    /// Number of addresses in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<i64>,
    /// Number of addresses, at most the largest the field holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<i64>,
    /// Services (`namespace/name`, joined by `;`) by address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, String>,
    /// The first address.
    #[serde(default, rename = "firstIP", skip_serializing_if = "Option::is_none")]
    pub first_ip: Option<String>,
    /// The last address.
    #[serde(default, rename = "lastIP", skip_serializing_if = "Option::is_none")]
    pub last_ip: Option<String>,
    /// Whether nodes can announce it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// Whether it is IPv4.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub v4: bool,
    /// `Ready`: whether nodes announce it, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How it stands on each node, by name; each node writes its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeStanding>,
}

/// One thing that is so or not, as Kubernetes' own objects have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Since when.
    pub last_transition_time: String,
    /// One word.
    pub reason: String,
    /// A sentence or two.
    pub message: String,
}

/// How an Eip stands on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStanding {
    /// Whether the node does for it what it should.
    pub ready: bool,
    /// Why not, or what else is wrong with the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether packets that other nodes send to it by tunnel come to its pods; they do unless it says that they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_tunnel: Option<bool>,
    /// The addresses whose traffic the node draws.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announces: Vec<String>,
    /// What is wrong with Services at those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ServiceProblem>,
}

/// Something that is wrong with a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceProblem {
    /// `namespace/name`.
    pub service: String,
    /// The field at fault, if it is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// One word.
    pub reason: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A02.
    #[test]
    fn every_field_is_read_and_unknown_ones_do_no_harm() {
        let eip: Eip = serde_saphyr::from_str(
            "
            apiVersion: network.kubesphere.io/v1alpha2
            kind: Eip
            metadata: {name: pool, annotations: {eip.openelb.kubesphere.io/is-default-eip: \"true\"}}
            spec:
              address: 10.1.0.0/24
              protocol: layer2
              interface: eth0
              disable: false
              usingKnownIPs: true
              priority: -3
              namespaces: [a, b]
              namespaceSelector: {team: web}
              ofTomorrow: {a: [1]}
            status: {occupied: false, usage: 1, poolSize: 256, used: {10.1.0.2: a/web}, firstIP: 10.1.0.0,
              lastIP: 10.1.0.255, ready: true, v4: true}
            ",
        )
        .unwrap();
        assert_eq!(eip.spec.protocol, Some(Protocol::Layer2));
        assert!(eip.spec.using_known_ips);
        assert_eq!(eip.spec.priority, Some(-3));
        let status = eip.status.unwrap();
        assert_eq!((status.first_ip.as_deref(), status.used.len()), (Some("10.1.0.0"), 1));
    }
}
