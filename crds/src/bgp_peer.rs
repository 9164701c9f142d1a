//! BgpPeer: one BGP neighbour and which nodes open a session to it.

use crate::{BgpPeerStatus, GracefulRestart, rules};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the sessions to a neighbour are to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "network.kubesphere.io",
    version = "v1alpha2",
    kind = "BgpPeer",
    plural = "bgppeers",
    status = "BgpPeerStatus",
    derive = "PartialEq",
    doc = "A BGP neighbour and which nodes open a session to it."
)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerSpec {
    /// Who the neighbour is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf: Option<PeerConf>,
    /// Neighbours that are not on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multihop: Option<EbgpMultihop>,
    /// Timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timers: Option<Timers>,
    /// The TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Graceful restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Address families; if empty, that of the neighbour's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub afi_safis: Vec<AfiSafi>,
    /// Take what this neighbour sends to port 179 of a node for the port we listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub using_port_forward: Option<bool>,
    /// The nodes that open a session; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::selector()))]
    pub node_selector: Option<LabelSelector>,
}

/// Who the neighbour is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::peer()))]
pub struct PeerConf {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::ADDRESS_LENGTH), extend("x-kubernetes-validations" = rules::address("the neighbour's address")))]
    pub neighbor_address: Option<String>,
    /// Its autonomous system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub peer_as: Option<u32>,
    /// Ours on this session, in place of the router's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_as: Option<u32>,
    /// Key of the TCP MD5 signature (RFC 2385).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_password: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// GoBGP's peer group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_group: Option<String>,
    /// GoBGP's peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<u32>,
    /// What becomes of private autonomous systems: NONE, ALL or REPLACE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "NONE", "ALL", "REPLACE"]))]
    pub remove_private_as: Option<String>,
    /// Route flap damping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_flap_damping: Option<bool>,
    /// GoBGP's kinds of communities to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_community: Option<u32>,
    /// Interface of an unnumbered neighbour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::NAME_LENGTH))]
    pub neighbor_interface: Option<String>,
    /// VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// How often our own autonomous system may be in a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_own_as: Option<u32>,
    /// Replace the neighbour's autonomous system in paths by ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_peer_as: Option<bool>,
    /// Keep the session down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_down: Option<bool>,
}

/// Neighbours that are not on the link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EbgpMultihop {
    /// Allow them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Hops, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub multihop_ttl: Option<u32>,
}

/// Timers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timers {
    /// Their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<TimersConfig>,
}

/// Values of timers: seconds, written as strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimersConfig {
    /// Between attempts to connect; 120 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::SECONDS_LENGTH), extend("x-kubernetes-validations" = rules::seconds()))]
    pub connect_retry: Option<String>,
    /// Without a message, until the session is given up; 90 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::SECONDS_LENGTH), extend("x-kubernetes-validations" = rules::hold_time()))]
    pub hold_time: Option<String>,
    /// Between KEEPALIVE messages; a third of the hold time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::SECONDS_LENGTH), extend("x-kubernetes-validations" = rules::seconds()))]
    pub keepalive_interval: Option<String>,
    /// Between UPDATE messages about one prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::SECONDS_LENGTH), extend("x-kubernetes-validations" = rules::seconds()))]
    pub minimum_advertisement_interval: Option<String>,
}

/// The TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// Path MTU discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_discovery: Option<bool>,
    /// Wait for the neighbour to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_mode: Option<bool>,
    /// Address to connect to, if it is not the neighbour's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::ADDRESS_LENGTH), extend("x-kubernetes-validations" = rules::address("the address to connect to")))]
    pub remote_address: Option<String>,
    /// Port to connect to; 179 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub remote_port: Option<u32>,
    /// Largest TCP segment in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub tcp_mss: Option<u32>,
}

/// One address family of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AfiSafi {
    /// Graceful restart of this family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mp_graceful_restart: Option<MpGracefulRestart>,
    /// Which family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AfiSafiConfig>,
    /// Several paths per prefix (RFC 7911).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_paths: Option<AddPaths>,
}

/// Which family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AfiSafiConfig {
    /// Its names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Offer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Names of an address family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// AFI_IP or AFI_IP6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["AFI_IP", "AFI_IP6"]))]
    pub afi: Option<String>,
    /// SAFI_UNICAST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["SAFI_UNICAST"]))]
    pub safi: Option<String>,
}

/// Graceful restart of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MpGracefulRestart {
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<MpGracefulRestartConfig>,
}

/// Graceful restart of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MpGracefulRestartConfig {
    /// Offer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Several paths per prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddPaths {
    /// Its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AddPathsConfig>,
}

/// Several paths per prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddPathsConfig {
    /// Accept them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive: Option<bool>,
    /// How many to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub send_max: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A03, A21, A22, A23.
    #[test]
    fn every_field_is_read() {
        let peer: BgpPeer = serde_saphyr::from_str(
            "
            apiVersion: network.kubesphere.io/v1alpha2
            kind: BgpPeer
            metadata: {name: router}
            spec:
              conf: {neighborAddress: 10.0.0.254, peerAs: 4200000001, localAs: 65001, authPassword: secret}
              ebgpMultihop: {enabled: true, multihopTtl: 4}
              timers: {config: {holdTime: \"9\", keepaliveInterval: \"3\"}}
              transport: {passiveMode: true, remotePort: 17900}
              gracefulRestart: {enabled: true}
              afiSafis: [{config: {family: {afi: AFI_IP6, safi: SAFI_UNICAST}, enabled: true},
                addPaths: {config: {sendMax: 10}}, mpGracefulRestart: {config: {enabled: true}}}]
              nodeSelector: {matchLabels: {openelb.kubesphere.io/rack: left}}
            ",
        )
        .unwrap();
        let spec = peer.spec;
        assert_eq!(spec.conf.unwrap().peer_as, Some(4_200_000_001));
        assert_eq!(spec.timers.unwrap().config.unwrap().hold_time.as_deref(), Some("9"));
        assert_eq!(
            spec.afi_safis[0]
                .add_paths
                .as_ref()
                .unwrap()
                .config
                .as_ref()
                .unwrap()
                .send_max,
            Some(10)
        );
        assert_eq!(spec.node_selector.unwrap().match_labels.unwrap().len(), 1);
    }
}
