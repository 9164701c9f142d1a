//! A Kubernetes control plane to play with; `cargo xtask kube --start` builds what it needs and runs it.

use anyhow::Result;
use std::{process::ExitCode, thread};
use tests::kube::ControlPlane;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("The control plane did not come up: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    control_plane.apply_definitions()?;
    let kubectl = control_plane.kubectl();
    println!("{}", kubectl.run("version")?);
    println!("It is in a network namespace of its own. To enter it:\n");
    println!("  nsenter --net={} bash", control_plane.namespace().path().display());
    println!("  export KUBECONFIG={}", kubectl.kubeconfig().display());
    println!("  alias kubectl={}", tests::kube::program("kubectl")?.display());
    println!(
        "\nLogs are in {}. An interrupt ends it and removes everything.",
        control_plane.directory().display()
    );
    loop {
        // The interrupt is handled on a thread of its own, which ends the program.
        thread::park();
    }
}
