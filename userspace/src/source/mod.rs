//! Sources: each publishes one part of what the agent plans from, complete every time.

pub mod conntrack;
pub mod default_route;
pub mod folder;
pub mod kube;
pub mod netlink;
mod objects;
