//! What the tests, the demo and the benches share: the lab of namespaces, the golden packets and the bench harness.

pub mod bench;
pub mod demo;
pub mod lab;
pub mod packets;
pub mod release;
pub mod survival;
