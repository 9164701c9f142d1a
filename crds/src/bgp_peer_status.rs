//! What has become of a BgpPeer, node by node, with OpenELB's names. Counters and times are strings there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What has become of the sessions to a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerStatus {
    /// Session by node name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes_peer_status: BTreeMap<String, NodePeerStatus>,
}

/// The session of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePeerStatus {
    /// The session.
    #[serde(default)]
    pub peer_state: PeerState,
    /// Its timers.
    #[serde(default)]
    pub timers_state: TimersState,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerState {
    /// Read from objects OpenELB wrote; never written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_password: Option<String>,
    /// Free text of the neighbour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Our autonomous system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_as: Option<u32>,
    /// Messages counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    /// The neighbour's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbor_address: Option<String>,
    /// Its autonomous system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_as: Option<u32>,
    /// GoBGP's peer group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_group: Option<String>,
    /// GoBGP's peer type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<u32>,
    /// Lengths of queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Queues>,
    /// GoBGP's number for what becomes of private autonomous systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_private_as: Option<u32>,
    /// Route flap damping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_flap_damping: Option<bool>,
    /// GoBGP's kinds of communities sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_community: Option<u32>,
    /// IDLE, CONNECT, ACTIVE, OPENSENT, OPENCONFIRM or ESTABLISHED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_state: Option<String>,
    /// UP, DOWN or PFX_CT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<String>,
    /// Messages waiting to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_q: Option<u32>,
    /// How often the session was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<u32>,
    /// The neighbour's router identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
}

/// Messages counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Messages {
    /// Received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Message>,
    /// Sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Message>,
}

/// Messages by type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// NOTIFICATION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<String>,
    /// UPDATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// OPEN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<String>,
    /// KEEPALIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<String>,
    /// ROUTE-REFRESH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// Discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded: Option<String>,
    /// All.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,
    /// UPDATE with withdrawals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw_update: Option<String>,
    /// Prefixes withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw_prefix: Option<String>,
}

/// Lengths of queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queues {
    /// Received, not yet handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u32>,
    /// Not yet sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u32>,
}

/// Timers of a session: seconds, or points in time, as strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimersState {
    /// Between attempts to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry: Option<String>,
    /// Hold time offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// Between KEEPALIVE messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_interval: Option<String>,
    /// Between UPDATE messages about one prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_advertisement_interval: Option<String>,
    /// Hold time agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated_hold_time: Option<String>,
    /// When the session came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<String>,
    /// When it went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime: Option<String>,
}
