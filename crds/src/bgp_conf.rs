//! BgpConf: this cluster's own BGP router. Only the object named `default` counts.

use crate::rules;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the BGP router is to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "BgpConf",
    plural = "bgpconfs",
    status = "BgpConfStatus",
    derive = "PartialEq",
    doc = "The BGP router that every node runs; only the object named default counts."
)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfSpec {
    /// Autonomous system of the nodes.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub r#as: Option<u32>,
    /// Autonomous system by rack, for nodes with the label `openelb.kubesphere.io/rack`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub as_per_rack: BTreeMap<String, u32>,
    /// Router identifier, written as an IPv4 address; a node's first InternalIP if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::ADDRESS_LENGTH), extend("x-kubernetes-validations" = rules::router_id()))]
    pub router_id: Option<String>,
    /// Port to listen on; 179 if absent, not at all if -1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 65535))]
    pub listen_port: Option<i32>,
    /// Addresses to listen on; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = rules::ADDRESSES_COUNT),
        inner(length(max = rules::ADDRESS_LENGTH)),
        extend("x-kubernetes-validations" = rules::listen_addresses())
    )]
    pub listen_addresses: Vec<String>,
    /// GoBGP's numbers of address families; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<u32>,
    /// Use several paths to one destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_multiple_paths: Option<bool>,
    /// Graceful restart of all sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Name of a ConfigMap with a policy in its key `gobgp.conf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// Graceful restart (RFC 4724) as GoBGP configures it; times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestart {
    /// Offer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long the peer keeps our routes; the message has 12 bits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4095))]
    pub restart_time: Option<u32>,
    /// Only keep the peer's routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper_only: Option<bool>,
    /// How long route selection waits for End-of-RIB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferral_time: Option<u32>,
    /// Also over NOTIFICATION messages (RFC 8538).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_enabled: Option<bool>,
    /// Long-lived graceful restart (RFC 9494).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longlived_enabled: Option<bool>,
    /// How long stale routes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_routes_time: Option<u32>,
    /// Restart time the peer has announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_restart_time: Option<u32>,
    /// Whether the peer is restarting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_restarting: Option<bool>,
    /// Whether we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_restarting: Option<bool>,
    /// GoBGP's mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// What has become of the router on each node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfStatus {
    /// Router by node name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes_conf_status: BTreeMap<String, NodeConfStatus>,
}

/// The router of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfStatus {
    /// Its identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Its autonomous system.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub r#as: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A03.
    #[test]
    fn large_autonomous_systems_are_accepted() {
        let conf: BgpConf = serde_saphyr::from_str(
            "
            apiVersion: network.kubesphere.io/v1alpha2
            kind: BgpConf
            metadata: {name: default}
            spec: {as: 4200000001, routerId: 10.0.0.1, listenPort: 17900, asPerRack: {left: 4200000002},
              gracefulRestart: {enabled: true, restartTime: 60}}
            ",
        )
        .unwrap();
        assert_eq!(conf.spec.r#as, Some(4_200_000_001));
        assert_eq!(conf.spec.graceful_restart.unwrap().restart_time, Some(60));
    }
}
