//! Noticing that a folder has changed: inotify, with a slow look at names and times as a backstop.
//!
//! The backstop finds what inotify cannot tell (a folder that is deleted and made again, a link to another folder, a file
//! system without inotify), and then the watch is set up anew.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};
use tracing::debug;

/// Several changes in a row are one.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never falls quiet is read this often.
const NOISY_MOST: u32 = 10;
/// How often the backstop looks.
const BACKSTOP: Duration = Duration::from_secs(2);

/// What a change of a file changes: device, inode, size, and times in nanoseconds.
type Fingerprint = BTreeMap<PathBuf, (u64, u64, u64, i64, i64)>;

#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    /// Set up when first waited for, as that needs the runtime.
    events: Option<Events>,
    fingerprint: Fingerprint,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            events: None,
            fingerprint: fingerprint(path),
        }
    }

    /// Waits for a change since `new`, or since this returned last.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.events.is_none() {
                self.events = Events::new(&self.path)
                    .inspect_err(|error| {
                        debug!(
                            "no inotify on {}: {error}; it is looked at now and then",
                            self.path.display()
                        )
                    })
                    .ok();
            }
            // After the watch is set up, so that nothing falls between the two.
            let now = fingerprint(&self.path);
            if now != self.fingerprint {
                self.fingerprint = now;
                return;
            }
            let lost = match &mut self.events {
                Some(events) => tokio::select! {
                    lost = events.settle() => lost,
                    () = sleep(BACKSTOP) => fingerprint(&self.path) != self.fingerprint,
                },
                None => {
                    sleep(BACKSTOP).await;
                    true
                }
            };
            if lost {
                self.events = None;
            }
        }
    }
}

/// The state of a folder and of what its links point to; empty if it is not there.
fn fingerprint(folder: &Path) -> Fingerprint {
    let state = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        let nanoseconds = |seconds: i64, part: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(part);
        let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
        Some((
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            modified,
            nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        ))
    };
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .chain([folder.to_owned()])
        .filter_map(|path| state(&path).map(|state| (path, state)))
        .collect()
}

/// An inotify descriptor that tokio can wait for.
#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[derive(Debug)]
struct Events(AsyncFd<Descriptor>);

impl Events {
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let interest = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(path, interest)?;
        // SAFETY: `Descriptor` owns the one descriptor it always returns, and keeps it open until it is dropped.
        #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
        let events = unsafe { AsyncFd::register(Descriptor(inotify)) }?;
        Ok(Self(events))
    }

    /// Waits for events and then until none has come for a while; whether the folder itself is gone.
    async fn settle(&mut self) -> bool {
        let mut lost = self.next().await;
        for _ in 0..NOISY_MOST {
            match timeout(QUIET, self.next()).await {
                Ok(also_lost) => lost |= also_lost,
                Err(_) => break,
            }
        }
        lost
    }

    /// Waits for the next events; whether the folder itself is gone, or can no longer be watched.
    async fn next(&mut self) -> bool {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return true;
            };
            let read = ready.try_io(|descriptor| Ok(descriptor.get_ref().0.read_events()?));
            match read {
                Err(_would_block) => {}
                Ok(Err(_)) => return true,
                Ok(Ok(events)) => {
                    let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
                    return events.iter().any(|event| event.mask.intersects(gone));
                }
            }
        }
    }
}
