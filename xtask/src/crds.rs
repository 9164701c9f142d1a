//! `cargo xtask crds`: writes `crds/yaml` anew from the types in `crds/src`.

use crate::{
    process::{cargo, check},
    workspace,
};
use anyhow::Result;

/// The verb. A test of `weir-crds` fails while it has not been run.
pub(crate) fn run() -> Result<()> {
    let folder = workspace::root().join("crds/yaml");
    check(
        cargo()
            .args(["run", "--quiet", "--package", "weir-crds", "--"])
            .arg(&folder),
    )
}
