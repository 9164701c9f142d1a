//! The demo as a program; `cargo xtask demo` builds what it needs and runs it.

use clap::Parser;
use std::process::ExitCode;

/// Shows a VIP served by XDP to real clients from real servers, in network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Keeps the network afterwards and prints commands to try, until Enter or an interrupt.
    #[arg(long)]
    hold: bool,
    /// Plays in Kubernetes: a real API server, real kubectl, and OpenELB's manifests as they are.
    #[arg(long)]
    kube: bool,
}

fn main() -> ExitCode {
    let Arguments { hold, kube } = Arguments::parse();
    let played = if kube {
        tests::demo::run_in_kubernetes(hold)
    } else {
        tests::demo::run(hold)
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
