//! Agents, clients and servers in network namespaces: what a user of Weir can rely on. Every test needs root.
//!
//! Names in brackets are rows of the acceptance list that a test covers, in full or in the part that there is so far.

mod allocating;
mod announcing;
mod checking;
mod conntrack;
mod demo;
mod endpoints;
mod fragments;
mod input;
mod interfaces;
mod lifecycle;
mod links;
mod metrics;
mod monitor;
mod mtu;
mod network;
mod passing;
mod policies;
mod scene;
mod selecting;
mod serving;
mod status;
mod surviving;
mod trace;
mod transfers;
mod upgrading;
