//! The resources of the group `network.kubesphere.io`: what OpenELB's users wrote, taken as it is.
//!
//! One file per kind of `v1alpha2`, which is stored; `v1alpha1` is in [`v1alpha1`], and [`convert`] goes between the two. Every
//! field has OpenELB's name and type. Fields that are not known here are accepted and kept by the API server, so objects of
//! other versions survive. What one object says wrongly is refused by the API server ([`definition`]); what it says about
//! others, and what an absent value means, is decided where it is used.
#![forbid(unsafe_code)]

pub mod convert;
pub mod definition;
pub mod v1alpha1;

pub mod advice;
mod bgp_conf;
mod bgp_peer;
mod bgp_peer_status;
mod eip;
mod rules;

pub use bgp_conf::{BgpConf, BgpConfSpec, BgpConfStatus, GracefulRestart, NodeConfStatus};
pub use bgp_peer::{
    AddPaths, AddPathsConfig, AfiSafi, AfiSafiConfig, BgpPeer, BgpPeerSpec, EbgpMultihop, Family, MpGracefulRestart,
    MpGracefulRestartConfig, PeerConf, Timers, TimersConfig, Transport,
};
pub use bgp_peer_status::{BgpPeerStatus, Message, Messages, NodePeerStatus, PeerState, Queues, TimersState};
pub use eip::{Condition, Eip, EipSpec, EipStatus, NodeStanding, Protocol, ServiceProblem};

/// The group of all kinds here.
pub const GROUP: &str = "network.kubesphere.io";
