//! The `weir` program: arguments in, exit code out. Everything else is in the library.

use clap::Parser;
use std::process::ExitCode;
use weir::{causes::error_text, cli::Cli};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {}", error_text(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
