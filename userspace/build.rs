//! Puts the eBPF object where the loader embeds it from: `OUT_DIR/weir.o`.
//!
//! The object is made by `cargo xtask build-ebpf`; `WEIR_EBPF_OBJECT` names another. Without one an empty file is embedded,
//! so that everything compiles, and the loader refuses to start.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=WEIR_EBPF_OBJECT");
    let object = env::var_os("WEIR_EBPF_OBJECT").map(PathBuf::from);
    let chosen = object.is_some();
    let object = object.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf/weir.o"));
    println!("cargo::rerun-if-changed={}", object.display());

    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !chosen => Vec::new(),
        Err(error) => {
            return Err(io::Error::new(
                error.kind(),
                format!("WEIR_EBPF_OBJECT {}: {error}", object.display()),
            ));
        }
    };
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("weir.o"), bytes)
}
