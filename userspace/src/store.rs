//! Files that are there whole or not at all: JSON, replaced in one step, in a folder that one agent has for itself.

use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {what} {}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Two agents would overwrite each other's files.
    #[error("another weir already uses {}; stop it first, or give this one its own --state-dir and --pin-dir", .0.display())]
    InUse(PathBuf),
    /// The contents are not what they should be.
    #[error("{} is not readable as JSON of this version", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where it fails.
        source: serde_json::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Whether a file must survive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before this returns.
    Synced,
    /// Whenever the kernel writes it.
    Lazy,
}

/// Makes `folder` and takes the lock that keeps a second agent out of it. It is free again when the value is dropped, or
/// its process dies.
///
/// # Errors
///
/// [`Error::InUse`] when somebody else has it; [`Error::File`].
pub fn lock(folder: &Path) -> Result<Flock<File>, Error> {
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(failed("create", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => Error::InUse(folder.to_owned()),
        errno => failed("lock", &path)(errno.into()),
    })
}

/// Replaces the file at `path` by `value`, making its folder if need be.
///
/// # Errors
///
/// [`Error`]; the former file is then untouched.
pub fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let fresh = path.with_extension("new");
    let file = File::create(&fresh).map_err(failed("create", &fresh))?;
    // What is told of thousands of Services has tens of megabytes: it is never there as one text.
    let mut out = BufWriter::new(file);
    serde_json::to_writer(&mut out, value).map_err(|error| failed("write", &fresh)(error.into()))?;
    let file = out
        .into_inner()
        .map_err(|error| failed("write", &fresh)(error.into_error()))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(failed("write", &fresh))?;
    }
    fs::rename(&fresh, path).map_err(failed("replace", path))?;
    if durability == Durability::Synced {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("write", folder))?;
    }
    Ok(())
}

/// Reads the file at `path`; `None` when there is none.
///
/// # Errors
///
/// [`Error`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed("read", path))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| Error::Format {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("weir-store-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_is_written_comes_back() {
        let folder = folder("back");
        let path = folder.join("deep").join("file.json");
        assert!(read::<Vec<u32>>(&path).unwrap().is_none());
        write(&path, &vec![1, 2], Durability::Synced).unwrap();
        write(&path, &vec![3], Durability::Lazy).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let folder = folder("lock");
        let first = lock(&folder).unwrap();
        let refusal = lock(&folder).unwrap_err().to_string();
        assert!(
            refusal.contains(&*folder.to_string_lossy()) && refusal.contains("--state-dir"),
            "{refusal}"
        );
        drop(first);
        drop(lock(&folder).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_file() {
        let folder = folder("nonsense");
        let path = folder.join("file.json");
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, "{").unwrap();
        let error = read::<Vec<u32>>(&path).unwrap_err();
        assert!(error.to_string().contains("file.json"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
