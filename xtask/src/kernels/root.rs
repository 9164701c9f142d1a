//! A guest's file system: tools of this machine with their libraries, the modules, the job.

use super::{archive::Archive, artefacts::Artefacts, fetch::Kernel, steps::Step};
use crate::process::find;
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

/// What the tests call.
const TOOLS: [&str; 7] = ["ip", "tc", "nsenter", "bpftool", "ethtool", "nginx", "tcpdump"];
const INIT: &str = include_str!("init.sh");
/// Where the modules of a device are options: bonding would make a device by itself, dummy too.
const MODULE_OPTIONS: &str = "options bonding max_bonds=0\noptions dummy numdummies=0\n";

type Disk = Archive<BufWriter<File>>;

/// Writes the initial RAM disk of `kernel` to `file`.
pub(super) fn write(kernel: &Kernel, artefacts: &Artefacts, steps: &[Step], file: &Path) -> Result<()> {
    let to = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut archive = Archive::new(BufWriter::new(to))?;
    for folder in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "root",
        "var/log/nginx",
        "var/lib/nginx",
    ] {
        archive.folder(folder)?;
    }
    archive.link("/var/run", "../run")?;
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("/etc/group", 0o644, b"root:x:0:\n")?;
    archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
    archive.file("/etc/modprobe.conf", 0o644, MODULE_OPTIONS.as_bytes())?;
    archive.file("/init", 0o755, INIT.as_bytes())?;
    let lines: String = steps.iter().map(|step| step.line()).collect();
    archive.file("/steps", 0o644, lines.as_bytes())?;

    let busybox = find("busybox").context("no busybox")?;
    program(&mut archive, &busybox, Path::new("/bin/busybox"))?;
    // The kernel calls it when a device of a new kind is made.
    archive.link("/sbin/modprobe", "../bin/busybox")?;
    for tool in TOOLS {
        let path = find(tool).with_context(|| format!("no {tool}"))?;
        program(&mut archive, &path, &path)?;
    }
    for (name, path) in &artefacts.files {
        program(&mut archive, path, &Path::new("/job").join(name))?;
    }
    let modules = kernel.folder.join("lib");
    folder(&mut archive, &modules, Path::new("/lib"))?;
    archive.finish()
}

/// A file with the libraries it is linked to.
fn program(archive: &mut Disk, from: &Path, to: &Path) -> Result<()> {
    archive.copy(from, to)?;
    for library in libraries(from)? {
        if !archive.has(&library) {
            archive.copy(&library, &library)?;
        }
    }
    Ok(())
}

/// What `ldd` finds; nothing for what is no program or linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().flat_map(str::split_whitespace);
    Ok(words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect())
}

fn folder(archive: &mut Disk, from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            folder(archive, &path, &target)?;
        } else {
            archive.copy(&path, target)?;
        }
    }
    Ok(())
}
