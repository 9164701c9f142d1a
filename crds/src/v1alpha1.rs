//! Version `v1alpha1` of the three kinds, as Porter's users wrote them: fewer fields, some with other names.
//!
//! What [`crate::convert`] makes of an object of the newer version keeps fields that are not known here, so nothing is lost.
//! For the same reason no field is required that an object of the newer version may lack, or a client of this version could
//! not write back what it has read.

use crate::{BgpConfStatus, BgpPeerStatus, EipStatus, Protocol, rules};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an Eip is to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha1",
    kind = "Eip",
    plural = "eips",
    status = "EipStatus",
    category = "networking",
    derive = "PartialEq",
    storage = false,
    doc = "A set of addresses to allot to Services of type LoadBalancer.",
    printcolumn = r#"{"name": "cidr", "type": "string", "jsonPath": ".spec.address"}"#,
    printcolumn = r#"{"name": "usage", "type": "integer", "jsonPath": ".status.usage"}"#,
    printcolumn = r#"{"name": "total", "type": "integer", "jsonPath": ".status.poolSize"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::eip_v1alpha1()))]
pub struct EipSpec {
    /// The addresses: one address, a prefix (host bits do not matter), or `first-last`.
    #[schemars(length(max = rules::ADDRESSES_LENGTH), extend("x-kubernetes-validations" = rules::addresses()))]
    pub address: String,
    /// How they are announced; bgp if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Give out nothing new; Services keep what they have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
    /// Accepted and without effect: every address is used.
    #[serde(default, rename = "usingKnownIPs", skip_serializing_if = "std::ops::Not::not")]
    pub using_known_ips: bool,
}

/// What the BGP router is to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha1",
    kind = "BgpConf",
    plural = "bgpconfs",
    status = "BgpConfStatus",
    derive = "PartialEq",
    storage = false,
    doc = "The BGP router that every node runs; only the object named default counts."
)]
pub struct BgpConfSpec {
    /// Autonomous system of the nodes.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub r#as: Option<u32>,
    /// Port to listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Router identifier, written as an IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::ADDRESS_LENGTH), extend("x-kubernetes-validations" = rules::router_id()))]
    pub router_id: Option<String>,
}

/// What the sessions to a neighbour are to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha1",
    kind = "BgpPeer",
    plural = "bgppeers",
    status = "BgpPeerStatus",
    derive = "PartialEq",
    storage = false,
    doc = "A BGP neighbour."
)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// Who the neighbour is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PeerConfig>,
    /// Several paths per prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_paths: Option<AddPaths>,
    /// The TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Take what this neighbour sends to port 179 of a node for the port we listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub using_port_forward: Option<bool>,
}

/// Who the neighbour is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::peer_v1alpha1()))]
pub struct PeerConfig {
    /// Its autonomous system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub peer_as: Option<u32>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::ADDRESS_LENGTH), extend("x-kubernetes-validations" = rules::address("the neighbour's address")))]
    pub neighbor_address: Option<String>,
}

/// Several paths per prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddPaths {
    /// How many to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub send_max: Option<u32>,
}

/// The TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// Wait for the neighbour to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_mode: Option<bool>,
    /// Port to connect to; 179 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub remote_port: Option<u32>,
}
