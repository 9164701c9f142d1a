//! What the tests, the demo and the benches share: the lab of namespaces, a Kubernetes control plane, the golden packets and
//! the bench harness.

pub mod bench;
pub mod demo;
pub mod kube;
pub mod lab;
pub mod packets;
pub mod release;
pub mod survival;
