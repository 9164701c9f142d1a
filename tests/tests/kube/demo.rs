//! The demo in Kubernetes, whose every step checks what it says.

use anyhow::Result;
use tests::demo::program_succeeds;

/// [B01, B25, G06] From OpenELB's guide as it is to addresses that are given back.
#[test]
fn every_step_of_the_demo_in_kubernetes_is_true() -> Result<()> {
    program_succeeds(env!("CARGO_BIN_EXE_demo"), &["--kube"])
}
