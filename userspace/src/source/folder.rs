//! A folder of Kubernetes manifests as a source: what an API server would say, without one.
//!
//! Takes every `*.yaml`, `*.yml` and `*.json` in one folder (not below it), several documents in each; gives the whole
//! [`Cluster`] they describe, with a fault for whatever cannot be used. Bad input costs only itself: the other documents of
//! the file are used, and what the file said before it went bad is kept until it is good again.
//!
//! Does not decide anything about the objects, and does not write to the folder.

mod documents;
mod kinds;
mod merge;
mod watch;

use merge::{FileObjects, merge};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};
use tracing::debug;
use watch::{News, Watch};
use weir_core::model::{Cluster, Condition, ObjectRef, reason};
use weir_crds::{BgpConf, BgpPeer};

/// Why a folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be listed.
    #[error("cannot read the manifests in {}: {cause}; give --manifests a folder that this user may read", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// The folder and what was last read from it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<String, File>,
    /// What they say together.
    manifests: Manifests,
    /// The files that have to be read again; `None` is all.
    unread: Option<BTreeSet<OsString>>,
    watch: Watch,
}

/// What the manifests say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// Everything planning reads, except the previous allocations.
    pub cluster: Cluster,
    /// BgpConfs by name.
    pub bgp_confs: BTreeMap<String, BgpConf>,
    /// BgpPeers by name.
    pub bgp_peers: BTreeMap<String, BgpPeer>,
}

/// One file.
#[derive(Debug, Default)]
struct File {
    /// As last read; `None` if it could not be.
    text: Option<String>,
    objects: FileObjects,
}

impl Folder {
    /// Opens a folder. It may be empty.
    ///
    /// # Errors
    /// If it cannot be listed now; once it was, it may go away and come back.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let watch = Watch::new(path);
        list(path).map_err(|cause| FolderError::Unreadable {
            path: path.into(),
            cause,
        })?;
        Ok(Self {
            path: path.into(),
            files: BTreeMap::new(),
            manifests: Manifests::default(),
            unread: None,
            watch,
        })
    }

    /// Waits until something in the folder may have changed since the last [`Self::read`].
    ///
    /// Several changes in a row are one, because what belongs together may be in several files. Only endpoints and nodes
    /// are not waited with: traffic goes there.
    pub async fn changed(&mut self) {
        loop {
            match self.watch.news().await {
                News::Whole(names) => {
                    let urgent: BTreeSet<_> = names.into_iter().filter(|name| self.read_urgent(name)).collect();
                    if !urgent.is_empty() {
                        self.watch.settled(&urgent);
                        self.unread = Some(BTreeSet::new());
                        return;
                    }
                }
                News::Settled(names) => {
                    self.unread = names;
                    return;
                }
            }
        }
    }

    /// Reads the folder: all of it, or what [`Self::changed`] has found since the last time. Files that are the same as
    /// before are not parsed again.
    pub fn read(&mut self) -> Manifests {
        match self.unread.take() {
            Some(names) if names.is_empty() => return self.manifests.clone(),
            Some(names) => {
                let paths = names.iter().map(|name| self.path.join(name));
                for path in paths.collect::<Vec<_>>() {
                    let last = self.files.remove(&name_of(&path));
                    if is_manifest(&path) {
                        self.read_file(&path, last);
                    }
                }
                self.manifests = merge(self.files.values().map(|file| &file.objects));
            }
            None => self.read_all(),
        }
        self.manifests.clone()
    }

    fn read_all(&mut self) {
        let listed = list(&self.path);
        let fault = listed.as_ref().err().map(|cause| {
            let message = format!(
                "the folder cannot be read: {cause}. What was last read from it is still served; bring it back, or stop the \
                 agent."
            );
            Condition::new(file(&self.path.display().to_string()), "", reason::UNPARSABLE, message)
        });
        if let Ok(paths) = listed {
            let mut before = std::mem::take(&mut self.files);
            for path in paths {
                let last = before.remove(&name_of(&path));
                self.read_file(&path, last);
            }
        }
        self.manifests = merge(self.files.values().map(|file| &file.objects));
        self.manifests.cluster.faults.extend(fault);
    }

    fn read_file(&mut self, path: &Path, last: Option<File>) {
        let name = name_of(path);
        match fs::read(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => debug!("{name} is gone; it is left out"),
            read => {
                let file = last.unwrap_or_default().updated(&name, read);
                self.files.insert(name, file);
            }
        }
    }

    /// Reads a file at once if nothing but endpoints and nodes are others than before; whether that is so.
    fn read_urgent(&mut self, name: &OsStr) -> bool {
        let path = self.path.join(name);
        let name = name_of(&path);
        let Some(last) = self.files.get_mut(&name) else {
            return false;
        };
        let Some(text) = fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return false;
        };
        let objects = documents::parse_file(&name, &text);
        let urgent = objects.is_urgent_after(&last.objects) && self.manifests.replace(&objects);
        if urgent {
            *last = File {
                text: Some(text),
                objects,
            };
        }
        urgent
    }
}

impl File {
    /// The file after reading it again.
    fn updated(self, name: &str, read: io::Result<Vec<u8>>) -> Self {
        let text = read.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
        });
        match text {
            Ok(text) if self.text.as_ref() == Some(&text) => self,
            Ok(text) => {
                let objects = documents::parse_file(name, &text).with_last_good(self.objects);
                Self {
                    text: Some(text),
                    objects,
                }
            }
            Err(cause) => {
                let message = format!("the file cannot be read: {cause}. Make it a readable UTF-8 text.");
                let fault = Condition::new(file(name), "", reason::UNPARSABLE, message);
                let objects = FileObjects {
                    objects: Vec::new(),
                    faults: vec![fault],
                };
                Self {
                    text: None,
                    objects: objects.with_last_good(self.objects),
                }
            }
        }
    }
}

/// What a set of files (path and text) says. Files are taken in the order of their paths, whatever order they are given in.
#[must_use]
pub fn parse(files: &[(String, String)]) -> Manifests {
    let files: BTreeMap<&str, FileObjects> = files
        .iter()
        .map(|(path, text)| (path.as_str(), documents::parse_file(path, text)))
        .collect();
    merge(files.values())
}

/// Paths of the manifests in a folder.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
    paths.retain(|path| is_manifest(path));
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    // Hidden files are editors' and the kubelet's own.
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let named = path
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|it| extension == *it));
    // What cannot be looked at is kept here, so that reading it says why; a pipe or a folder is no manifest.
    named && !hidden && fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

/// A path as conditions name it.
fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// A file, or a place in one, as the object of a condition.
fn file(place: &str) -> ObjectRef {
    ObjectRef::cluster_scoped("File", place)
}

#[cfg(test)]
mod tests;
