//! `cargo xtask VERB`: everything people and CI do with this repository. One file per verb.

mod bench;
mod build_ebpf;
mod ci;
mod crds;
mod demo;
mod deploy;
mod elf;
mod helm;
mod image;
mod kernels;
mod kube;
mod libtest;
mod process;
mod setup;
mod test;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

/// Builds, tests, measures and shows Weir.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Find or install the toolchain of the kernel half, the tools of the lab and of images, and Go.
    Setup,
    /// Build the eBPF object; its path is the last line.
    BuildEbpf,
    /// Run every kind of test, or only those named. Needs root.
    Test(test::Args),
    /// Boot other kernels under qemu and run the object and the tests there. Needs root.
    Kernels(kernels::Args),
    /// Build the Kubernetes control plane of the tests, or start one to play with.
    Kube(kube::Args),
    /// What CI runs: format, clippy, licences, tests.
    Ci,
    /// Write the CustomResourceDefinitions anew from their types.
    Crds,
    /// Build the image, for amd64 and arm64, as an OCI image layout; its path is the last line.
    Image(image::Args),
    /// Write deploy/weir.yaml anew from the chart.
    Deploy,
    /// Show Weir at work in a lab of network namespaces. Needs root.
    Demo(demo::Args),
    /// Measure what the packet path costs and holds. Needs root.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    // `{:#}` and not `{:?}`: people read causes, not the backtrace that RUST_BACKTRACE would add.
    match run(Verb::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Setup => {
            setup::run(setup::Scope::Kernels)?;
            setup::images()?;
            setup::go().map(drop)
        }
        Verb::BuildEbpf => build_ebpf::run(),
        Verb::Test(args) => test::run(&args),
        Verb::Kernels(args) => kernels::run(&args),
        Verb::Kube(args) => kube::run(&args),
        Verb::Ci => ci::run(),
        Verb::Crds => crds::run(),
        Verb::Image(args) => image::run(&args),
        Verb::Deploy => deploy::run(),
        Verb::Demo(args) => demo::run(&args),
        Verb::Bench(args) => bench::run(&args),
    }
}
