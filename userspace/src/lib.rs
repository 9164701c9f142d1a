//! Weir's agent: sources tell it about the cluster and the network, the core decides, appliers make it true.
//!
//! ```text
//! source::folder  --> Cluster --> weir_core::plan --> Plan --> weir_core::tables --> writes --> apply::bpf
//! source::netlink --> Links -------------------------------------^                         \--> report
//! ```
//!
//! [`agent`] is the loop that connects them; [`status`] shows what a running, or dead, agent has made true, and
//! [`metrics`] how it goes.

pub mod agent;
pub mod apply;
mod arenas;
pub mod causes;
pub mod check;
pub mod cli;
pub mod controller;
pub mod metrics;
pub mod monitor;
pub mod report;
pub mod source;
pub mod status;
mod store;
pub mod takeover;
pub mod trace;
