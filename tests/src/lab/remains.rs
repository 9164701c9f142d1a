//! What a lab leaves on the machine, and how it is taken away, knowing nothing but the lab's name.
//!
//! Dropping a lab, an interrupt, and the sweep for labs whose process was killed all come down to [`remove`]. A lab's
//! name holds the id of the process that made it, so a sweep never touches a lab that is in use.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
};

const PREFIX: &str = "weir-lab-";
const NAMESPACES: &str = "/run/netns";
const PINS: &str = "/sys/fs/bpf";
/// Files here are mounted over `/etc` by `ip netns exec`.
const NAMESPACE_FILES: &str = "/etc/netns";

/// Name of lab number `number` of this process.
pub fn lab_name(number: u32) -> String {
    format!("{PREFIX}{}-{number}", process::id())
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
        if let Some(name) = namespace.file_name() {
            report(
                "ip netns del",
                process::Command::new("ip").args(["netns", "del"]).arg(name).status(),
            );
        }
    }
    for files in entries(NAMESPACE_FILES, &mine) {
        remove_folder(&files);
    }
    remove_folder(&directory(lab));
}

/// Removes the labs of processes that no longer exist.
pub fn sweep() {
    let _turn = turn();
    // A killed process that nobody has waited for still has an entry, but no program.
    remove_those(|owner| fs::read_link(format!("/proc/{owner}/exe")).is_err());
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

fn remove_folder(folder: &Path) {
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
