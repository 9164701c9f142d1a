//! `cargo xtask ci`: what has to hold before a change is merged, for people and for CI alike.

use crate::{
    process::{cargo, check, find, say},
    test,
};
use anyhow::Result;
use clap::Parser;

/// The verb: format, clippy, licences and duplicates, every test.
pub(crate) fn run() -> Result<()> {
    say("format");
    check(cargo().args(["fmt", "--all", "--check"]))?;
    say("clippy");
    check(
        cargo()
            .args([
                "clippy",
                "--quiet",
                "--workspace",
                "--exclude",
                "weir-ebpf",
                "--all-targets",
            ])
            .args(["--", "--deny", "warnings"]),
    )?;
    if find("cargo-deny").is_some() {
        say("licences, sources and duplicate versions");
        check(cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        say("NOT checked: licences, sources and duplicate versions, because cargo-deny is not installed");
    }
    test::run(&test::Args::parse_from(["test"]))
}
