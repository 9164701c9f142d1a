//! What the tests, the demo and the benches share: the lab of namespaces, a Kubernetes control plane, the golden packets, the
//! bench harness, and what is both tested and measured.

pub mod bench;
pub mod demo;
pub mod kube;
pub mod lab;
pub mod packets;
pub mod release;
pub mod survival;
pub mod takeover;
