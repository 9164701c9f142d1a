//! The resources of the group `network.kubesphere.io`, version `v1alpha2`: what OpenELB's users wrote, taken as it is.
//!
//! One file per kind. Every field has OpenELB's name and type. Fields that are not known here are accepted and kept by the
//! API server, so objects of other versions survive. Nothing is defaulted or checked here beyond types: what an absent or
//! nonsensical value means is decided where it is used.
#![forbid(unsafe_code)]

mod bgp_conf;
mod bgp_peer;
mod bgp_peer_status;
mod eip;

pub use bgp_conf::{BgpConf, BgpConfSpec, BgpConfStatus, GracefulRestart, NodeConfStatus};
pub use bgp_peer::{
    AddPaths, AddPathsConfig, AfiSafi, AfiSafiConfig, BgpPeer, BgpPeerSpec, EbgpMultihop, Family, MpGracefulRestart,
    MpGracefulRestartConfig, PeerConf, Timers, TimersConfig, Transport,
};
pub use bgp_peer_status::{BgpPeerStatus, Message, Messages, NodePeerStatus, PeerState, Queues, TimersState};
pub use eip::{Eip, EipSpec, EipStatus, Protocol};

/// The group of all kinds here.
pub const GROUP: &str = "network.kubesphere.io";
