//! Takes everything away that any agent has left under a pin folder, of whatever layout version.
//!
//! Links first, so that no packet meets programs whose maps are going. What is not there is fine.

use super::{
    attach,
    error::Error,
    pins::{PinDir, listing, remove_if_there},
};
use nix::net::if_::if_nameindex;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Removes links, clsact filters, maps and folders under `pin_dir`, and says what it removed, one line each.
///
/// # Errors
///
/// [`Error::PinDirInUse`] while an agent runs; [`Error::File`] for the first thing that could not be removed.
pub fn detach(pin_dir: &Path) -> Result<Vec<String>, Error> {
    if !pin_dir.exists() {
        return Ok(Vec::new());
    }
    super::preflight::check_bpffs(pin_dir)?;
    let pins = PinDir::new(pin_dir);
    let _lock = pins.lock()?;
    let mut removed = Vec::new();
    for (kind, interface, path) in pins.linked()? {
        remove_if_there(&path)?;
        removed.push(format!("{kind} program from interface {interface}"));
    }
    for interface in interfaces() {
        if attach::detach_clsact(&interface) {
            removed.push(format!("tc filter from interface {interface}"));
        }
    }
    for folder in folders(pin_dir)? {
        for path in files(&folder)? {
            remove_if_there(&path)?;
            removed.push(format!("map {}", path.display()));
        }
        fs::remove_dir(&folder).map_err(Error::file("remove", folder))?;
    }
    fs::remove_dir(pin_dir).map_err(Error::file("remove", pin_dir))?;
    Ok(removed)
}

/// Of this network namespace; `/sys/class/net` may show another's.
fn interfaces() -> Vec<String> {
    let Ok(interfaces) = if_nameindex() else {
        return Vec::new();
    };
    interfaces
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    listing(folder, |path| !path.is_dir())
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    listing(folder, Path::is_dir)
}
