//! Noticing that a folder has changed: inotify, with a slow look at names and times as a backstop.
//!
//! The backstop finds what inotify cannot tell (a folder that is deleted and made again, a link to another folder, a file
//! system without inotify), and then the watch is set up anew.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    future::pending,
    io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::debug;

/// Several changes in a row are one.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never falls quiet is read this often.
const NOISY_MOST: u32 = 10;
/// How often the backstop looks.
const BACKSTOP: Duration = Duration::from_secs(2);

/// What a change of a file changes: device, inode, size, and times in nanoseconds.
type State = (u64, u64, u64, i64, i64);
/// That of all entries of a folder, and of itself.
type Fingerprint = BTreeMap<PathBuf, State>;

/// What may have changed.
#[derive(Debug)]
pub(super) enum News {
    /// These files (by their names in the folder) have been written or replaced, and are whole; others may follow.
    Whole(BTreeSet<OsString>),
    /// Nothing has happened for a while; before that these files changed, came or went. `None` is any.
    Settled(Option<BTreeSet<OsString>>),
}

#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    /// Set up when first waited for, as that needs the runtime.
    events: Option<Events>,
    fingerprint: Fingerprint,
    /// What has happened and was not settled yet.
    unsettled: Unsettled,
    /// When the backstop looks next.
    look_at: Instant,
    /// The backstop's look that is under way.
    look: Option<JoinHandle<Fingerprint>>,
}

/// All of it is kept over waits that are given up.
#[derive(Debug, Default)]
struct Unsettled {
    names: BTreeSet<OsString>,
    /// Names are not all that may have changed.
    any: bool,
    /// When it is settled if nothing more happens, and when at the latest.
    quiet: Option<(Instant, Instant)>,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            events: None,
            fingerprint: fingerprint(path),
            unsettled: Unsettled::default(),
            look_at: Instant::now() + BACKSTOP,
            look: None,
        }
    }

    /// Waits for a change since `new`, or since this returned last.
    pub(super) async fn news(&mut self) -> News {
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
                // After the watch is set up, so that nothing falls between the two.
                if let Some(news) = self.compare(fingerprint(&self.path)) {
                    return news;
                }
            }
            let quiet_at = self.unsettled.quiet.map(|(quiet, latest)| quiet.min(latest));
            tokio::select! {
                happened = next(&mut self.events) => if let Some(news) = self.take(happened) {
                    return news;
                },
                () = sleep_until(quiet_at.unwrap_or(self.look_at)), if quiet_at.is_some() => return self.settle(),
                () = sleep_until(self.look_at), if self.look.is_none() => {
                    let path = self.path.clone();
                    self.look = Some(spawn_blocking(move || fingerprint(&path)));
                }
                looked = finished(&mut self.look) => {
                    self.look = None;
                    self.look_at = Instant::now() + BACKSTOP;
                    let news = looked.and_then(|now| self.compare(now));
                    if let Some(news) = news {
                        // Nobody told, so the watch is set up anew.
                        self.events = None;
                        return news;
                    }
                }
            }
        }
    }

    /// These files have been read as they are now.
    pub(super) fn settled(&mut self, names: &BTreeSet<OsString>) {
        self.unsettled.names.retain(|name| !names.contains(name));
        if self.unsettled.names.is_empty() && !self.unsettled.any {
            self.unsettled.quiet = None;
        }
    }

    fn settle(&mut self) -> News {
        let Unsettled { names, any, .. } = std::mem::take(&mut self.unsettled);
        News::Settled((!any).then_some(names))
    }

    fn compare(&mut self, now: Fingerprint) -> Option<News> {
        let differs = now != self.fingerprint;
        self.fingerprint = now;
        self.unsettled.any |= differs;
        differs.then(|| self.settle())
    }

    /// Takes note of what happened; gives the files that can be read at once.
    fn take(&mut self, happened: Happened) -> Option<News> {
        let now = Instant::now();
        let latest = self
            .unsettled
            .quiet
            .map_or(now + NOISY_MOST * QUIET, |(_, latest)| latest);
        self.unsettled.quiet = Some((now + QUIET, latest));
        // A look that began before this would find it again.
        self.look = None;
        self.look_at = now + BACKSTOP;
        let Happened {
            whole,
            mut names,
            any,
            lost,
        } = happened;
        if lost {
            self.events = None;
        }
        names.extend(whole.iter().cloned());
        let changed = names.iter().map(|name| self.path.join(name)).chain([self.path.clone()]);
        for path in changed {
            match state(&path) {
                Some(state) => drop(self.fingerprint.insert(path, state)),
                None => drop(self.fingerprint.remove(&path)),
            }
        }
        self.unsettled.any |= any;
        self.unsettled.names.extend(names);
        (!whole.is_empty()).then_some(News::Whole(whole))
    }
}

/// What happened next; waits forever where nobody tells.
async fn next(events: &mut Option<Events>) -> Happened {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}

/// The outcome of a look, `None` if it failed; waits forever while there is none.
async fn finished(look: &mut Option<JoinHandle<Fingerprint>>) -> Option<Fingerprint> {
    match look {
        Some(look) => look.await.ok(),
        None => pending().await,
    }
}

/// The state of a folder and of what its links point to; empty if it is not there.
fn fingerprint(folder: &Path) -> Fingerprint {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path()).chain([folder.to_owned()]);
    paths
        .filter_map(|path| state(&path).map(|state| (path, state)))
        .collect()
}

fn state(path: &Path) -> Option<State> {
    let metadata = fs::metadata(path).ok()?;
    let nanoseconds = |seconds: i64, part: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(part);
    let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
    let changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
    Some((metadata.dev(), metadata.ino(), metadata.size(), modified, changed))
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

    /// Waits for the next events.
    async fn next(&mut self) -> Happened {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return Happened::lost();
            };
            let read = ready.try_io(|descriptor| Ok(descriptor.get_ref().0.read_events()?));
            match read {
                Err(_would_block) => {}
                Ok(Err(_)) => return Happened::lost(),
                Ok(Ok(events)) => return events.into_iter().collect(),
            }
        }
    }
}

/// What some events tell.
#[derive(Debug, Default)]
struct Happened {
    /// Files that were closed after writing, or moved here.
    whole: BTreeSet<OsString>,
    /// Others that changed, came or went.
    names: BTreeSet<OsString>,
    /// Something that may change any file.
    any: bool,
    /// The folder itself is gone, or can no longer be watched.
    lost: bool,
}

impl Happened {
    fn lost() -> Self {
        Self {
            any: true,
            lost: true,
            ..Self::default()
        }
    }
}

impl FromIterator<InotifyEvent> for Happened {
    fn from_iter<I: IntoIterator<Item = InotifyEvent>>(events: I) -> Self {
        let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
        let written = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
        let mut happened = Self::default();
        for InotifyEvent { mask, name, .. } in events {
            happened.lost |= mask.intersects(gone);
            match name {
                // Files may be links through a hidden one.
                Some(name) if name.as_encoded_bytes().starts_with(b".") => happened.any = true,
                Some(name) if mask.intersects(written) => drop(happened.whole.insert(name)),
                Some(name) => drop(happened.names.insert(name)),
                // The folder itself, or more events than could be kept.
                None => happened.any |= !mask.intersects(AddWatchFlags::IN_ATTRIB),
            }
        }
        happened
    }
}
