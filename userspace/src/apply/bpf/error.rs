//! What can go wrong between the agent and the kernel, each with what to do about it.

use super::layout::Mismatch;
use std::{io, path::PathBuf};

/// An error of the BPF applier.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary was built before the kernel half.
    #[error("this binary holds no eBPF object; build it with `cargo xtask build-ebpf`, then build weir again")]
    NoObject,
    /// The embedded object is damaged.
    #[error("the embedded eBPF object cannot be read")]
    Object(#[source] aya_obj::ParseError),
    /// The process may not do what the agent does.
    #[error("missing capability {}; run as root or grant it (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed)", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// The kernel lacks something we rely on.
    #[error("kernel {found} is too old; upgrade the kernel to {needed} or newer")]
    KernelTooOld {
        /// The running release.
        found: String,
        /// The oldest supported one.
        needed: &'static str,
    },
    /// Pins need a BPF file system.
    #[error(
        "{} is not on a BPF file system, so nothing pinned there would outlive the agent; mount one with \
         `mount -t bpf bpf /sys/fs/bpf` or choose another --pin-dir (in a container: mount the host's /sys/fs/bpf)",
        .0.display()
    )]
    NotBpffs(PathBuf),
    /// A file system operation failed.
    #[error("cannot {what} {}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system call's error.
        source: io::Error,
    },
    /// Two agents would undo each other's work.
    #[error("another weir already uses {}; stop it first, or give this one its own --pin-dir and --state-dir", .0.display())]
    PinDirInUse(PathBuf),
    /// Nothing to ask.
    #[error("no map {map} is pinned in {}; start `weir run`, or name the folder of pins of one that has run", .pin_dir.display())]
    NoDataPath {
        /// The folder of pins.
        pin_dir: PathBuf,
        /// The map that is missing.
        map: &'static str,
    },
    /// Samples have one reader.
    #[error("another `weir monitor` reads the samples of {}; end it first", .0.display())]
    Monitored(PathBuf),
    /// Pins of a layout version that this agent does not know.
    #[error(
        "{} holds maps of layout version {found}, this weir has version {ours} and cannot take them over; start a newer \
         weir, or run `weir run --detach --pin-dir {}` first: it removes them, and forwarding stops until the new agent \
         has started",
        .pin_dir.display(), .pin_dir.display()
    )]
    OtherVersion {
        /// The folder of pins.
        pin_dir: PathBuf,
        /// The version found.
        found: String,
        /// Ours.
        ours: u32,
    },
    /// Flows that an earlier agent pinned, or somebody else in their place.
    #[error(
        "the flows pinned at {} are in no form that any weir has used, so they cannot be taken over; run `weir run --detach \
         --pin-dir {}` first: it removes the pins, and forwarding stops until the new agent has started",
        .path.display(), .pin_dir.display()
    )]
    FormerMap {
        /// The pin.
        path: PathBuf,
        /// The folder of pins.
        pin_dir: PathBuf,
    },
    /// Pins of our version that are not ours.
    #[error(
        "pinned map {} in {} has {} {}, this weir needs {}; run `weir run --detach --pin-dir {}` first: it removes the \
         pins, and forwarding stops until the new agent has started",
        .mismatch.map, .pin_dir.display(), .mismatch.what, .mismatch.pinned, .mismatch.wanted, .pin_dir.display()
    )]
    Mismatch {
        /// The folder of pins.
        pin_dir: PathBuf,
        /// What differs.
        mismatch: Mismatch,
    },
    /// The filter of a kernel without tcx could not be put in its place.
    #[error("cannot put the tc filter of interface {interface} in its place: {cause}")]
    Clsact {
        /// The interface.
        interface: String,
        /// Why.
        cause: String,
    },
    /// aya could not load the object.
    #[error("the kernel refused the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    /// aya could not load or find a program.
    #[error("cannot load program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object has no such program.
    #[error("the eBPF object has no program {0}; build it again with `cargo xtask build-ebpf`")]
    NoProgram(&'static str),
    /// The object has no such map.
    #[error("the eBPF object has no map {0}; build it again with `cargo xtask build-ebpf`")]
    NoMap(&'static str),
    /// The object was built from other sources than this binary.
    #[error("map {map} of the eBPF object has values of {found} bytes, this weir expects {expected}; build both again")]
    ValueSize {
        /// Which map.
        map: &'static str,
        /// Bytes in the object.
        found: u32,
        /// Bytes here.
        expected: usize,
    },
    /// A map operation failed.
    #[error("cannot {what} map {map}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// On which map.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A map could not be read, many values at once.
    #[error("cannot read map {map}")]
    Read {
        /// Which map.
        map: &'static str,
        /// The system call's error.
        source: io::Error,
    },
    /// An array could not be mapped into memory.
    #[error("cannot map {map} into memory")]
    Mmap {
        /// Which map.
        map: &'static str,
        /// The system call's error.
        source: io::Error,
    },
    /// A write beyond the end of a map.
    #[error("index {index} is beyond map {map} of {entries} entries")]
    OutOfBounds {
        /// Which map.
        map: &'static str,
        /// The index.
        index: u32,
        /// The map's capacity.
        entries: u32,
    },
    /// The kernel half's log cannot be read.
    #[error("cannot read the log of the eBPF programs")]
    Log(#[source] aya_log::Error),
    /// Fragments that come before their first cannot be brought back.
    #[error("cannot follow the fragments that wait for their first")]
    Held(#[source] io::Error),
    /// A capacity that the maps cannot have.
    #[error("--{flag} {value} is not a power of two between {least} and {most}")]
    Capacity {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: u32,
        /// The smallest sensible value.
        least: u32,
        /// The largest possible value.
        most: u32,
    },
}

impl Error {
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    pub(super) fn map(what: &'static str, map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map {
            what,
            map,
            source: Box::new(source),
        }
    }
}
