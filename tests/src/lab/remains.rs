//! What a lab leaves on the machine, and how it is taken away, knowing nothing but the lab's name.
//!
//! Dropping a lab, an interrupt, and the sweep for labs whose process was killed all come down to [`remove`]. A lab's
//! name holds the id of the process that made it, so a sweep never touches a lab that is in use.

use super::Namespace;
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process, slice,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

const PREFIX: &str = "weir-lab-";
const NAMESPACES: &str = "/run/netns";
const PINS: &str = "/sys/fs/bpf";
/// Files here are mounted over `/etc` by `ip netns exec`.
const NAMESPACE_FILES: &str = "/etc/netns";

/// Sweeps, sees to it that an interrupt removes what this process makes, and gives the name of its next lab and that lab's
/// folder, which is there then.
///
/// # Errors
/// When not root, or when the folder cannot be made.
pub fn begin() -> Result<(String, PathBuf)> {
    static LABS: AtomicU32 = AtomicU32::new(1);
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and loads BPF programs: run this as root");
    }
    sweep();
    remove_on_interrupt();
    let name = format!("{PREFIX}{}-{}", process::id(), LABS.fetch_add(1, Ordering::Relaxed));
    let directory = directory(&name);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok((name, directory))
}

/// Where a lab keeps files.
pub fn directory(lab: &str) -> PathBuf {
    env::temp_dir().join(lab)
}

/// Where the agent of a node pins its maps and links.
pub fn pin_directory(lab: &str, node: &str) -> PathBuf {
    Path::new(PINS).join(format!("{lab}-{node}"))
}

/// Folder of files that `ip netns exec` shows in `/etc` to programs in that namespace.
pub fn namespace_files(namespace: &str) -> PathBuf {
    Path::new(NAMESPACE_FILES).join(namespace)
}

/// Removes everything that carries the lab's name: processes in its namespaces, pins, namespaces, files.
///
/// Never fails: it runs on the way out of failures, and what resists is swept by the next lab.
pub fn remove(lab: &str) {
    let _turn = turn();
    remove_in_turn(lab);
}

/// An interrupt and a failing test may both come to remove the same lab. A poisoned lock protects nothing here.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_in_turn(lab: &str) {
    let mine = format!("{lab}-");
    let namespaces = entries(NAMESPACES, &mine);
    end_processes_in(&namespaces);
    for pin in entries(PINS, &mine) {
        remove_folder(&pin);
    }
    for namespace in &namespaces {
        delete_namespace(namespace);
    }
    for files in entries(NAMESPACE_FILES, &mine) {
        remove_folder(&files);
    }
    remove_folder(&directory(lab));
}

/// Removes one namespace of a lab, if it is still there, and what runs in it.
pub(crate) fn remove_namespace(namespace: &Namespace) {
    let _turn = turn();
    let path = namespace.path();
    if path.exists() {
        end_processes_in(slice::from_ref(&path));
        delete_namespace(&path);
    }
}

fn delete_namespace(namespace: &Path) {
    if let Some(name) = namespace.file_name() {
        report(
            "ip netns del",
            process::Command::new("ip").args(["netns", "del"]).arg(name).status(),
        );
    }
}

/// Removes the labs of processes that no longer exist.
pub fn sweep() {
    let _turn = turn();
    // A killed process that nobody has waited for still has an entry, but no program.
    remove_those(|owner| fs::read_link(format!("/proc/{owner}/exe")).is_err());
}

/// When this process ends by itself, its labs are removed: for what is shared by all tests of a program, which no test may
/// drop.
pub(crate) fn remove_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        extern "C" fn remove_mine() {
            let _turn = turn();
            remove_those(|owner| owner == process::id());
        }
        // SAFETY: the function takes nothing, returns nothing, and does not unwind: failures to remove are printed.
        #[expect(unsafe_code, reason = "a C function is called")]
        let result = unsafe { libc::atexit(remove_mine) };
        if result != 0 {
            eprintln!("no room for what is to be done at the exit: it is left to the next lab");
        }
    });
}

/// From now on SIGINT, SIGTERM and SIGHUP remove this process's labs and then end it.
pub fn remove_on_interrupt() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| match wait_for_interrupt() {
            Ok(()) => {
                // Held until the end: what fails because its lab is going away has no more say.
                let _turn = turn();
                remove_those(|owner| owner == process::id());
                process::exit(130);
            }
            Err(error) => eprintln!("signals are not handled, an interrupt leaves the lab behind: {error}"),
        });
    });
}

/// Removes the labs made by processes that `choose` picks by their id.
fn remove_those(choose: impl Fn(u32) -> bool) {
    let places = [
        Path::new(NAMESPACES),
        Path::new(PINS),
        Path::new(NAMESPACE_FILES),
        &env::temp_dir(),
    ];
    let labs = places
        .iter()
        .flat_map(|place| entries(place, PREFIX))
        .filter_map(|path| {
            let mut parts = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('-');
            Some((parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?))
        });
    for (owner, number) in labs.collect::<BTreeSet<_>>() {
        if choose(owner) {
            remove_in_turn(&format!("{PREFIX}{owner}-{number}"));
        }
    }
}

fn wait_for_interrupt() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            Ok(())
        })
}

/// Kills whatever still runs in these namespaces, whoever started it: an nginx worker outlives its killed master.
fn end_processes_in(namespaces: &[PathBuf]) {
    let inodes: BTreeSet<u64> = namespaces
        .iter()
        .filter_map(|path| Some(fs::metadata(path).ok()?.ino()))
        .collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let inside = fs::metadata(entry.path().join("ns/net")).is_ok_and(|meta| inodes.contains(&meta.ino()));
        if inside && id != process::id() {
            // Gone in the meantime is as good.
            let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

fn entries(folder: impl AsRef<Path>, prefix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

pub(crate) fn remove_folder(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", folder.display());
        }
        _ => {}
    }
}

fn report(what: &str, result: std::io::Result<process::ExitStatus>) {
    match result {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{what}: {status}"),
        Err(error) => eprintln!("{what}: {error}"),
    }
}
