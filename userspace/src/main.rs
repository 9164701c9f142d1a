//! The `weir` program: arguments in, exit code out. Everything else is in the library.

use clap::Parser;
use std::process::ExitCode;
use weir::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}
