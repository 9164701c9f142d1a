//! What `cargo xtask bench` measures.
//!
//! [`survival`] counts connections that break while everything comes and goes. [`throughput`] is the suite `lab`: packets per
//! second beside the kernel's ways of serving. [`update`] times changes of a folder on their way to the maps, [`kube`] those of a
//! Kubernetes API, and what agent and controller cost there; [`takeover`] is what clients notice while Weir takes over
//! from OpenELB. [`services`] makes thousands of Services, [`maps`] reads what an
//! agent has written, and [`cost`] what it has used.
//!
//! The rest is the suite `packet`: nanoseconds per packet of the loaded programs, by the kernel's own clock
//! (`BPF_PROG_TEST_RUN` with many repeats). [`cases`] says which packets are measured and what must become of them, [`scene`] fills the tables and builds the
//! frames, [`measure`] runs them in rounds with the floor beside each, [`report`] and [`machine`] print. A case whose
//! packets did not end as expected fails the bench: a number for the wrong path is worse than none.

pub mod cases;
mod cost;
pub mod kube;
pub mod machine;
mod maps;
pub mod measure;
pub mod report;
pub mod scene;
pub mod services;
pub mod survival;
pub mod takeover;
pub mod throughput;
pub mod update;

#[path = "../../../xdp-ebpf/src/bench/settings.rs"]
mod settings;
