//! The state file: which addresses each Service has, so that they stay over restarts.
//!
//! Read once at the start, written before a changed allocation is served. A file that cannot be read is put aside, and
//! the agent goes on: the planner allots in the same order as before, and takes addresses from Service status.

use crate::store::{self, Durability};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};
use tracing::{error, warn};
use weir_core::model::ServiceKey;

/// Addresses by Service.
pub type Addresses = BTreeMap<ServiceKey, BTreeSet<IpAddr>>;

const FILE: &str = "allocations.json";

/// The state file and what it holds.
#[derive(Debug)]
pub struct Allocations {
    path: PathBuf,
    addresses: Addresses,
    /// Whether the file holds `addresses`.
    saved: bool,
}

impl Allocations {
    /// Reads the file in `state_dir`.
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let (addresses, saved) = match store::read(&path) {
            Ok(found) => (found.unwrap_or_default(), true),
            Err(problem) => {
                let aside = path.with_extension("json.corrupt");
                let what = match fs::rename(&path, &aside) {
                    Ok(()) => format!("kept as {}", aside.display()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => "it is gone".to_owned(),
                    Err(error) => format!("it cannot be put aside either: {error}"),
                };
                warn!(
                    problem = &problem as &dyn std::error::Error,
                    "starting without remembered addresses ({what}); Services get them by their status and in order"
                );
                (Addresses::new(), false)
            }
        };
        Self { path, addresses, saved }
    }

    /// What is remembered.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Remembers `addresses`, if they are others than before.
    pub fn save(&mut self, addresses: &Addresses) {
        if self.saved && self.addresses == *addresses {
            return;
        }
        self.addresses.clone_from(addresses);
        self.saved = match store::write(&self.path, addresses, Durability::Synced) {
            Ok(()) => true,
            Err(problem) => {
                error!(
                    problem = &problem as &dyn std::error::Error,
                    "addresses are not remembered over a restart until this is solved; trying again with the next plan"
                );
                false
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("weir-allocations-{name}-{}", std::process::id()))
    }

    fn one() -> Addresses {
        let key: ServiceKey = "web/shop".parse().unwrap();
        BTreeMap::from([(key, BTreeSet::from(["10.10.1.2".parse().unwrap()]))])
    }

    #[test]
    fn addresses_are_remembered() {
        let folder = folder("kept");
        Allocations::read(&folder).save(&one());
        assert_eq!(Allocations::read(&folder).addresses(), &one());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_replaced() {
        let folder = folder("damaged");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(FILE), "not json").unwrap();
        let mut allocations = Allocations::read(&folder);
        assert!(allocations.addresses().is_empty());
        assert_eq!(
            fs::read_to_string(folder.join("allocations.json.corrupt")).unwrap(),
            "not json"
        );
        allocations.save(&Addresses::new());
        assert!(folder.join(FILE).exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
