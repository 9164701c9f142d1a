//! Where everything pinned lies, and carrying out what `layout.rs` decided.
//!
//! `<pin-dir>/v<LAYOUT_VERSION>/<MAP>` are maps, `<pin-dir>/links/{xdp,tc}-<interface>` are links. The programs hold
//! the maps they use, so taking a pin away changes nothing for packets until the program is replaced.

use super::{
    error::Error,
    layout::{self, Decision, Fate, Shape},
    mapped::Mapped,
};
use aya::maps::{MapData, MapInfo};
use nix::fcntl::{Flock, FlockArg};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use weir_common::abi::{Config, LAYOUT_VERSION};

/// Under this name lie the flows of the former map while they move.
const OLD_FLOWS: &str = "FLOWS_OLD";

/// The folder of pins of one data path.
#[derive(Clone, Debug)]
pub struct PinDir {
    root: PathBuf,
}

impl PinDir {
    /// The folder at `root`, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the map `name` of our layout version is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where the link of `kind` (`xdp` or `tc`) on `interface` is pinned.
    #[must_use]
    pub fn link(&self, kind: &str, interface: &str) -> PathBuf {
        // The BPF file system refuses dots in names, and interfaces may have them.
        self.links().join(format!("{kind}-{}", interface.replace('.', "%2e")))
    }

    fn parse_link(file_name: &str) -> Option<(&str, String)> {
        let (kind, interface) = file_name.split_once('-')?;
        Some((kind, interface.replace("%2e", ".")))
    }

    /// Every pinned link: kind, interface and path, in order.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn linked(&self) -> Result<Vec<(String, String, PathBuf)>, Error> {
        let paths = listing(&self.links(), |path| !path.is_dir())?;
        let parse = |path: PathBuf| {
            let (kind, interface) = Self::parse_link(path.file_name()?.to_str()?)?;
            Some((kind.to_owned(), interface, path))
        };
        Ok(paths.into_iter().filter_map(parse).collect())
    }

    /// The folder of links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn maps(&self) -> PathBuf {
        self.root.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Makes the folders and takes the lock that keeps a second agent out. It is free again when the value is dropped,
    /// or its process dies.
    ///
    /// # Errors
    ///
    /// [`Error::PinDirInUse`] when somebody else has it; [`Error::File`].
    pub fn lock(&self) -> Result<Flock<File>, Error> {
        fs::create_dir_all(&self.root).map_err(Error::file("create", &self.root))?;
        let folder = File::open(&self.root).map_err(Error::file("open", &self.root))?;
        Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => Error::PinDirInUse(self.root.clone()),
            errno => Error::file("lock", &self.root)(errno.into()),
        })
    }

    /// Decides about what is pinned, and changes nothing that runs.
    ///
    /// # Errors
    ///
    /// [`Error::OtherVersion`], [`Error::Mismatch`], or what the file system says.
    pub fn prepare(&self, wanted: &BTreeMap<String, Shape>) -> Result<Prepared, Error> {
        if let Some(found) = self.other_version()? {
            return Err(Error::OtherVersion {
                pin_dir: self.root.clone(),
                found,
                ours: LAYOUT_VERSION,
            });
        }
        for folder in [self.maps(), self.links()] {
            fs::create_dir_all(&folder).map_err(Error::file("create", folder))?;
        }
        let pinned = self.shapes()?;
        let config = pinned
            .contains_key("CONFIG")
            .then(|| self.read_config())
            .transpose()?
            .filter(|config| config.flow_seed != 0);
        let decision =
            layout::decide(wanted, &pinned, config.is_some(), self.was_cut()).map_err(|mismatch| Error::Mismatch {
                pin_dir: self.root.clone(),
                mismatch,
            })?;
        // Also what an agent left behind that was killed while flows moved.
        let mut old_flows = vec![self.map(OLD_FLOWS)];
        if decision.fates.get("FLOWS") == Some(&Fate::Move) {
            old_flows.push(self.map("FLOWS"));
        }
        let old_flows = old_flows
            .into_iter()
            .filter(|path| path.exists())
            .map(MapData::from_pin);
        let old_flows = old_flows
            .collect::<Result<_, _>>()
            .map_err(Error::map("open", "FLOWS"))?;
        for name in decision.fates.keys() {
            remove_if_there(&self.fresh(name))?;
        }
        Ok(Prepared {
            decision,
            config,
            old_flows,
        })
    }

    /// Where a map is pinned while it is not sure that the programs load: its place, or beside the one it replaces.
    #[must_use]
    pub fn loading(&self, name: &str, decision: &Decision) -> PathBuf {
        match decision.fates.get(name) {
            Some(Fate::Recreate | Fate::Move) => self.fresh(name),
            Some(Fate::Create | Fate::Adopt) | None => self.map(name),
        }
    }

    /// Puts the maps that replace others in their place, now that the programs are loaded. The program that runs keeps
    /// those it has until it is replaced itself.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn commit(&self, decision: &Decision) -> Result<(), Error> {
        let rename = |from: PathBuf, to: PathBuf| fs::rename(&from, to).map_err(Error::file("rename", from));
        for (name, fate) in &decision.fates {
            match fate {
                Fate::Create | Fate::Adopt => {}
                Fate::Recreate => rename(self.fresh(name), self.map(name))?,
                Fate::Move => {
                    rename(self.map(name), self.map(OLD_FLOWS))?;
                    rename(self.fresh(name), self.map(name))?;
                }
            }
        }
        Ok(())
    }

    /// Whether an agent ended between loading and the end of [`Self::commit`].
    fn was_cut(&self) -> bool {
        layout::PINNED.iter().any(|(name, _)| self.fresh(name).exists())
    }

    fn fresh(&self, name: &str) -> PathBuf {
        self.map(&format!("{name}_NEW"))
    }

    /// Removes the former flow map, whose flows have moved.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn forget_old_flows(&self) -> Result<(), Error> {
        remove_if_there(&self.map(OLD_FLOWS))
    }

    fn other_version(&self) -> Result<Option<String>, Error> {
        let ours = format!("v{LAYOUT_VERSION}");
        for entry in fs::read_dir(&self.root).map_err(Error::file("read", &self.root))? {
            let name = entry.map_err(Error::file("read", &self.root))?.file_name();
            if let Some(version) = name
                .to_str()
                .filter(|name| *name != ours)
                .and_then(|name| name.strip_prefix('v'))
            {
                return Ok(Some(version.to_owned()));
            }
        }
        Ok(None)
    }

    fn shapes(&self) -> Result<BTreeMap<String, Shape>, Error> {
        let mut shapes = BTreeMap::new();
        for (name, _) in layout::PINNED {
            let path = self.map(name);
            if path.exists() {
                let info = MapInfo::from_pin(&path).map_err(Error::map("look at", name))?;
                shapes.insert(name.to_owned(), shape(&info).map_err(Error::map("look at", name))?);
            }
        }
        Ok(shapes)
    }

    fn read_config(&self) -> Result<Config, Error> {
        let map = MapData::from_pin(self.map("CONFIG")).map_err(Error::map("open", "CONFIG"))?;
        let info = map.info().map_err(Error::map("look at", "CONFIG"))?;
        if info.value_size() as usize != size_of::<Config>() {
            return Ok(Config::default());
        }
        Mapped::<Config>::open("CONFIG", map.fd().as_fd(), info.max_entries())?.load(0)
    }
}

/// What loading goes on from.
#[derive(Debug)]
pub struct Prepared {
    /// The fate of each map.
    pub decision: Decision,
    /// `CONFIG` as the last agent left it.
    pub config: Option<Config>,
    /// Former `FLOWS` maps whose flows have to move.
    pub old_flows: Vec<MapData>,
}

fn shape(info: &MapInfo) -> Result<Shape, aya::maps::MapError> {
    Ok(Shape {
        map_type: info.map_type()? as u32,
        key_size: info.key_size(),
        value_size: info.value_size(),
        max_entries: info.max_entries(),
        flags: info.map_flags(),
    })
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
///
/// [`Error::File`].
pub fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// What is in `folder`, as far as it is `wanted`, in order; nothing when there is no folder.
///
/// # Errors
///
/// [`Error::File`].
pub fn listing(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file("read", folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::file("read", folder))?.path();
        if wanted(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_waits_for_its_place_tells_of_a_cut_commit() {
        let root = std::env::temp_dir().join(format!("weir-pins-cut-{}", std::process::id()));
        let pins = PinDir::new(&root);
        fs::create_dir_all(pins.maps()).unwrap();
        File::create(pins.map("ROWS")).unwrap();
        assert!(!pins.was_cut());
        File::create(pins.fresh("ROWS")).unwrap();
        assert!(pins.was_cut());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn names_of_links_have_no_dots_and_come_back() {
        let path = PinDir::new(Path::new("/p")).link("xdp", "bond0.100");
        assert_eq!(path, Path::new("/p/links/xdp-bond0%2e100"));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(PinDir::parse_link(name), Some(("xdp", "bond0.100".to_owned())));
        assert_eq!(PinDir::parse_link("tc-br-lan"), Some(("tc", "br-lan".to_owned())));
    }
}
