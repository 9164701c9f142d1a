//! The initial RAM disk: files in the kernel's cpio format ("newc", Documentation/driver-api/early-userspace/buffer-format.rst).

use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs,
    io::{Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// Folders that are links on Debian; what is named through them goes where they lead.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// An archive being written; a path is written once.
#[derive(Debug)]
pub(super) struct Archive<W: Write + Seek> {
    to: W,
    entries: BTreeSet<PathBuf>,
}

impl<W: Write + Seek> Archive<W> {
    /// An archive with the top folders of a Debian system.
    pub(super) fn new(to: W) -> Result<Self> {
        let mut archive = Self {
            to,
            entries: BTreeSet::new(),
        };
        for folder in MERGED {
            archive.folder(Path::new("/usr").join(folder))?;
            archive.entry(Path::new(folder), LINK, format!("usr/{folder}").as_bytes())?;
        }
        Ok(archive)
    }

    /// An empty folder, and those above it.
    pub(super) fn folder(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.folders(&inside(path.as_ref()))
    }

    /// A file with these permissions.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: &[u8]) -> Result<()> {
        self.below_folders(path.as_ref(), FILE | mode, content)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: impl AsRef<Path>, target: &str) -> Result<()> {
        self.below_folders(path.as_ref(), LINK, target.as_bytes())
    }

    /// A copy of a file out here, links followed.
    pub(super) fn copy(&mut self, from: &Path, path: impl AsRef<Path>) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(path, mode, &content)
    }

    /// Whether there is something at `path`.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.entries.contains(&inside(path.as_ref()))
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        Ok(self.to.flush()?)
    }

    fn below_folders(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let path = inside(path);
        if let Some(parent) = path.parent() {
            self.folders(parent)?;
        }
        self.entry(&path, mode, content)
    }

    fn folders(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<_> = path.ancestors().filter(|path| *path != Path::new("")).collect();
        above.reverse();
        above.into_iter().try_for_each(|path| self.entry(path, FOLDER, &[]))
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        if !self.entries.insert(path.to_owned()) {
            return Ok(());
        }
        let name = path.to_str().context("a path that is not text")?;
        let inode = self.entries.len();
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        write!(
            self.to,
            "070701{inode:08x}{mode:08x}{owner:08x}{owner:08x}{links:08x}{time:08x}{size:08x}{none:08x}{none:08x}\
             {none:08x}{none:08x}{name_size:08x}{none:08x}{name}\0",
            owner = 0,
            time = 0,
            none = 0,
            size = content.len(),
            name_size = name.len() + 1,
        )?;
        self.pad()?;
        self.to.write_all(content)?;
        self.pad()
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) -> Result<()> {
        let over = self.to.stream_position()? % 4;
        if over > 0 {
            self.to.write_all(&[0; 3][..4 - over as usize])?;
        }
        Ok(())
    }
}

/// The path as the archive names it: without the first slash, and not through a link.
fn inside(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if MERGED.iter().any(|folder| path.starts_with(folder)) {
        return Path::new("usr").join(path);
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn entries_are_aligned_and_folders_come_first() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(Cursor::new(&mut bytes)).unwrap();
        archive.file("/lib/x86/one", 0o644, b"12345").unwrap();
        assert!(archive.has("/usr/lib/x86/one") && archive.has("/lib/x86"));
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let names: Vec<&str> = read(&bytes);
        assert_eq!(names[0], "usr");
        let at = |name| names.iter().position(|found| *found == name).unwrap();
        assert!(at("usr/lib/x86") < at("usr/lib/x86/one"));
        assert_eq!(*names.last().unwrap(), "TRAILER!!!");
    }

    /// Names in order, by a reader of its own.
    fn read(bytes: &[u8]) -> Vec<&str> {
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |number: usize| {
                let digits = str::from_utf8(&bytes[at + 6 + number * 8..][..8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            names.push(str::from_utf8(&bytes[at + 110..][..name_size - 1]).unwrap());
            let content = (at + 110 + name_size).next_multiple_of(4);
            at = (content + size).next_multiple_of(4);
        }
        names
    }
}
