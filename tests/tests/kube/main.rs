//! Against a real kube-apiserver, with etcd, controllers, kube-proxy and kubectl. Every test needs root, and the programs that
//! `cargo xtask kube` builds.
//!
//! Tests that leave the control plane as it was share one; what they make has a name of its own. Names in brackets are rows of
//! the acceptance list.

mod agent;
mod announcers;
mod bad_input;
mod bgp;
mod chart;
mod choosing;
mod cluster;
mod control_plane;
mod controlled;
mod controller;
mod definitions;
mod demo;
mod deploy;
mod detaching;
mod eips;
mod events;
mod gate;
mod handover;
mod health_checks;
mod in_pod;
mod killing;
mod kube_proxy;
mod leases;
mod leaving;
mod mistakes;
mod monitors;
mod names;
mod namespaces;
mod objects;
mod openelb;
mod outages;
mod outdated;
mod over_openelb;
mod own_entry;
mod pools;
mod requests;
mod rights;
mod rules;
mod samples;
mod silence;
mod status;
mod stopped;
mod storms;
mod takeover;
mod traffic;
mod unasked;
mod webhook;
mod workloads;
