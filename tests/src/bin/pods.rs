//! What answers in the pods of a survival run; the run starts it.

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use tests::{lab::Namespace, survival::pods};

/// Serves small requests in many network namespaces.
#[derive(Debug, Parser)]
struct Arguments {
    /// A socket that tells how many segments were sent again.
    control: PathBuf,
    /// Number of ports.
    services: u16,
    /// `NAMESPACE=POD`, each.
    #[arg(value_parser = pods::parse)]
    pods: Vec<(Namespace, String)>,
}

fn main() -> ExitCode {
    let Arguments {
        control,
        services,
        pods,
    } = Arguments::parse();
    match pods::serve(&control, services, &pods) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pods: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
