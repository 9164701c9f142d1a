//! Where everything pinned lies, and carrying out what `layout.rs` decided.
//!
//! `<pin-dir>/v<LAYOUT_VERSION>/<MAP>` are maps, `<pin-dir>/links/{xdp,tc}-<interface>` are links. The programs hold
//! the maps they use, so taking a pin away changes nothing for packets until the program is replaced.

use super::{
    error::Error,
    flows::Reading,
    former::{self, Former},
    layout::{self, Decision, Fate, Shape},
    mapped::Mapped,
};
use aya::maps::{MapData, MapInfo, MapType};
use nix::fcntl::{Flock, FlockArg};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use weir_common::abi::{Config, FlowBucket, LAYOUT_VERSION};

/// Where pins are unless told otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/weir";

/// Under this name lie the flows of the former map while they move.
const OLD_FLOWS: &str = "FLOWS_OLD";

/// Flag of arrays that user space can map.
const BPF_F_MMAPABLE: u32 = 1 << 10;

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

    /// Where the link of `kind` (`xdp`, `tc` or, while flows move, another beside `tc`) on `interface` is pinned.
    #[must_use]
    pub fn link(&self, kind: &str, interface: &str) -> PathBuf {
        // The BPF file system refuses dots in names, and interfaces may have them.
        self.links().join(format!("{kind}-{}", interface.replace('.', "%2e")))
    }

    /// Puts the link pinned as `from` in the place of the one pinned as `to`, which ends it, in one step.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn replace_link(&self, from: &str, to: &str, interface: &str) -> Result<(), Error> {
        let (from, to) = (self.link(from, interface), self.link(to, interface));
        fs::rename(&from, to).map_err(Error::file("rename", from))
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

    /// Where the ingress program is pinned for a moment. No name of a link, so nobody takes it for one.
    #[must_use]
    pub fn handle(&self) -> PathBuf {
        self.links().join("program")
    }

    /// Where the map `name` of an earlier layout is pinned.
    #[must_use]
    pub fn former_map(&self, former: &Former, name: &str) -> PathBuf {
        self.version(former.version).join(name)
    }

    /// The folder of maps of our layout version.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.version(LAYOUT_VERSION)
    }

    fn version(&self, version: u32) -> PathBuf {
        self.root.join(format!("v{version}"))
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
    /// [`Error::OtherVersion`], [`Error::Mismatch`], [`Error::FormerMap`], or what the file system says.
    pub fn prepare(&self, wanted: &BTreeMap<String, Shape>) -> Result<Prepared, Error> {
        let formers = self.formers()?;
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
        let mut old_flows = vec![(self.map(OLD_FLOWS), Reading::OURS)];
        if decision.fates.get("FLOWS") == Some(&Fate::Move) {
            old_flows.push((self.map("FLOWS"), Reading::OURS));
        }
        for former in &formers {
            old_flows.push((self.former_map(former, "FLOWS"), Reading { flow: former.flow }));
        }
        old_flows.retain(|(path, _)| path.exists());
        let old_flows = old_flows.into_iter().map(|(path, reading)| {
            self.check_flows(&path)?;
            let map = MapData::from_pin(&path).map_err(Error::map("open", "FLOWS"))?;
            Ok((map, reading))
        });
        let old_flows = old_flows.collect::<Result<_, Error>>()?;
        for name in decision.fates.keys() {
            remove_if_there(&self.fresh(name))?;
        }
        Ok(Prepared {
            decision,
            config,
            formers,
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

    /// Takes back what loading has pinned where nothing was before: an earlier agent finds its data path as it left it.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn withdraw(&self, decision: &Decision) -> Result<(), Error> {
        for name in decision.fates.keys() {
            remove_if_there(&self.loading(name, decision))?;
        }
        fs::remove_dir(self.maps()).map_err(Error::file("remove", self.maps()))
    }

    /// Removes the former flow map and the maps of earlier layouts: what was in them has moved.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn forget_former(&self) -> Result<(), Error> {
        remove_if_there(&self.map(OLD_FLOWS))?;
        for former in self.formers()? {
            let folder = self.version(former.version);
            for path in listing(&folder, |_| true)? {
                remove_if_there(&path)?;
            }
            fs::remove_dir(&folder).map_err(Error::file("remove", folder))?;
        }
        Ok(())
    }

    /// The earlier layouts that have pins here, the latest last.
    fn formers(&self) -> Result<Vec<Former>, Error> {
        let mut formers = Vec::new();
        for folder in listing(&self.root, Path::is_dir)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let former = former::of_folder(&name).map_err(|found| Error::OtherVersion {
                pin_dir: self.root.clone(),
                found: found.to_owned(),
                ours: LAYOUT_VERSION,
            })?;
            formers.extend(former);
        }
        formers.sort_by_key(|former| former.version);
        Ok(formers)
    }

    /// That flows can be read from the map at `path`: every layout so far has had buckets of the same size.
    fn check_flows(&self, path: &Path) -> Result<(), Error> {
        let info = MapInfo::from_pin(path).map_err(Error::map("look at", "FLOWS"))?;
        let found = shape(&info).map_err(Error::map("look at", "FLOWS"))?;
        let readable = Shape {
            map_type: MapType::Array as u32,
            key_size: 4,
            value_size: size_of::<FlowBucket>() as u32,
            max_entries: found.max_entries,
            flags: BPF_F_MMAPABLE,
        };
        if found == readable && found.max_entries.is_power_of_two() {
            return Ok(());
        }
        Err(Error::FormerMap {
            path: path.to_owned(),
            pin_dir: self.root.clone(),
        })
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
    /// Earlier layouts that are taken over, the latest last.
    pub formers: Vec<Former>,
    /// Former `FLOWS` maps whose flows have to move, and how they are read.
    pub old_flows: Vec<(MapData, Reading)>,
}

/// What the kernel says of a map.
///
/// # Errors
///
/// When it is of a type that aya does not know.
pub fn shape(info: &MapInfo) -> Result<Shape, aya::maps::MapError> {
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
    fn what_was_loaded_in_vain_is_taken_back_and_an_earlier_layout_left_alone() {
        let root = std::env::temp_dir().join(format!("weir-pins-vain-{}", std::process::id()));
        let pins = PinDir::new(&root);
        let earlier = pins.version(1).join("FLOWS");
        fs::create_dir_all(pins.version(1)).unwrap();
        File::create(&earlier).unwrap();
        fs::create_dir_all(pins.maps()).unwrap();
        // Loading came as far as the first of the two.
        File::create(pins.map("FLOWS")).unwrap();
        let fates = [("FLOWS", Fate::Create), ("ROWS", Fate::Create)].into();
        pins.withdraw(&Decision { fates }).unwrap();
        assert!(!pins.maps().exists() && earlier.exists());
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
