//! Where things are in this repository.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// Where user space is built; people may choose another place with `CARGO_TARGET_DIR`.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |chosen| root().join(chosen))
}

/// Where the kernel half is built. Fixed, because `userspace/build.rs` looks there.
pub(crate) fn ebpf_target() -> PathBuf {
    root().join("target/ebpf")
}

/// Where tools that no package provides are installed, for compilers with this LLVM major version.
pub(crate) fn tools(llvm: u32) -> PathBuf {
    root().join(format!("target/tools/llvm-{llvm}"))
}

/// The path of a binary of user space, built without optimisation.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join("debug").join(name)
}
