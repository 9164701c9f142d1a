//! The demo, whose every step checks what it says.

use anyhow::Result;
use tests::demo::program_succeeds;

/// [C01, C02] From the manifests that an OpenELB user has to traffic that outlives a pod and an agent.
#[test]
fn every_step_of_the_demo_is_true() -> Result<()> {
    program_succeeds(env!("CARGO_BIN_EXE_demo"), &[])
}
