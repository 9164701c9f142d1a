//! The state file: which addresses each Service has, so that they stay over restarts.
//!
//! Read once at the start, written before a changed allocation is served. A file that cannot be read is put aside, and
//! the agent goes on: the planner allots in the same order as before, and takes addresses from Service status. A file
//! that cannot be written is a condition, and does not keep Services from being served.

use crate::{
    causes::error_text,
    store::{self, Durability},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing::warn;
use weir_core::model::{Addresses, Condition, ObjectRef};

const FILE: &str = "allocations.json";

/// The state file and what it holds.
#[derive(Debug)]
pub struct Allocations {
    path: PathBuf,
    addresses: Arc<Addresses>,
    /// Whether the file holds `addresses`.
    saved: bool,
    /// Why the last attempt to save failed.
    problem: Option<String>,
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
        Self {
            path,
            addresses: Arc::new(addresses),
            saved,
            problem: None,
        }
    }

    /// What is remembered.
    #[must_use]
    pub const fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// Remembers `addresses`, if they are others than before. Whether [`Self::condition`] is another now.
    pub fn save(&mut self, addresses: Arc<Addresses>) -> bool {
        if self.saved && self.addresses == addresses {
            return false;
        }
        self.addresses = addresses;
        self.write()
    }

    /// Tries again what failed. Whether [`Self::condition`] is another now.
    pub fn save_again(&mut self) -> bool {
        self.problem.is_some() && self.write()
    }

    /// What is wrong with the file.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        let problem = self.problem.as_ref()?;
        let message = format!(
            "addresses given to Services cannot be saved, so a restart may change them: {problem}. It is tried again every \
             few seconds; check that the folder of --state-dir can be written and that its disk is not full."
        );
        let object = ObjectRef::cluster_scoped("File", &self.path.to_string_lossy());
        Some(Condition::new(object, "--state-dir", "SaveFailed", message))
    }

    fn write(&mut self) -> bool {
        let written = store::write(&self.path, &*self.addresses, Durability::Synced);
        let problem = written.err().map(|problem| error_text(&problem));
        self.saved = problem.is_none();
        let changed = self.problem != problem;
        self.problem = problem;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use weir_core::model::ServiceKey;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("weir-allocations-{name}-{}", std::process::id()))
    }

    fn one() -> Arc<Addresses> {
        let key: ServiceKey = "web/shop".parse().unwrap();
        Arc::new(BTreeMap::from([(key, BTreeSet::from(["10.10.1.2".parse().unwrap()]))]))
    }

    #[test]
    fn addresses_are_remembered() {
        let folder = folder("kept");
        Allocations::read(&folder).save(one());
        assert_eq!(Allocations::read(&folder).addresses(), &one());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_failed_save_is_a_condition_until_it_succeeds() {
        let folder = folder("failed");
        // A folder in the place of the file cannot be replaced by a file.
        let mut allocations = Allocations::read(&folder);
        fs::create_dir_all(folder.join(FILE)).unwrap();
        assert!(allocations.save(one()));
        let condition = allocations.condition().unwrap();
        assert_eq!((&*condition.object.kind, &*condition.reason), ("File", "SaveFailed"));
        assert!(condition.object.name.ends_with(FILE) && condition.field == "--state-dir");
        assert!(!allocations.save_again(), "the same problem again is nothing new");

        fs::remove_dir(folder.join(FILE)).unwrap();
        assert!(allocations.save_again());
        assert_eq!(allocations.condition(), None);
        assert_eq!(Allocations::read(&folder).addresses(), &one());
        assert!(!allocations.save_again());
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
        allocations.save(Arc::default());
        assert!(folder.join(FILE).exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
