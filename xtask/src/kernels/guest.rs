//! One kernel under qemu, from boot to its end.

use super::{artefacts::Artefacts, fetch::Kernel, report::Outcome, root, steps::Progress, steps::Step};
use crate::{
    process::{find, say},
    workspace,
};
use anyhow::{Context, Result};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// Of memory, in MiB; taken only when used.
const MEMORY: &str = "2048";
/// Of the kernel's own messages, shown when a guest does not come to its end.
const LAST_LINES: usize = 40;

/// Kills what it holds, if that still runs, and waits for it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots `kernel`, runs `steps` and shows what they print, each line after the kernel's series.
pub(super) fn run(kernel: &Kernel, artefacts: &Artefacts, steps: &[Step], limit: Duration) -> Result<Outcome> {
    let start = Instant::now();
    let folder = workspace::target().join("kernels/job").join(&kernel.series);
    fs::create_dir_all(&folder)?;
    let (disk, console) = (folder.join("initrd"), folder.join("console.log"));
    root::write(kernel, artefacts, steps, &disk)?;
    say(format!("booting {}", kernel.version));
    let mut machine = Machine(qemu(kernel, &disk, &console)?.spawn().context("cannot start qemu")?);
    let stdout = machine.0.stdout.take().context("qemu has no stdout")?;
    let (send, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let mut progress = Progress::default();
    let in_time = read(&lines, &mut progress, start + limit, &kernel.series);
    drop(machine);
    let outcome = Outcome::of(kernel, progress, steps, start.elapsed());
    if let Some(what) = outcome.unfinished() {
        let why = if in_time { "the guest died" } else { "the time was over" };
        say(format!(
            "kernel {}: {why} before {what} had ended; its last words:\n{}",
            kernel.version,
            last_words(&console)
        ));
    }
    fs::remove_file(&disk)?;
    Ok(outcome)
}

/// Whether the output came to its end before `deadline`.
fn read(lines: &Receiver<String>, progress: &mut Progress, deadline: Instant, series: &str) -> bool {
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if progress.read(&line) {
                    println!("{series:5}| {line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// The clock is the HPET: how fast the TSC runs is guessed at boot, and on a busy machine the guess makes a guest's minute pass in
/// ten seconds. One thread for both processors: with two, a kernel dies now and then while it patches its own code. The hypervisor of
/// the machine is left alone, so that it works the same everywhere.
fn qemu(kernel: &Kernel, disk: &Path, console: &Path) -> Result<Command> {
    let program = find("qemu-system-x86_64").context("no qemu-system-x86_64")?;
    let mut command = Command::new("setpriv");
    // It must not outlive us.
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"]);
    command.args([
        "-m",
        MEMORY,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.arg("-kernel").arg(kernel.folder.join("vmlinuz"));
    command.arg("-initrd").arg(disk);
    command.args([
        "-append",
        "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=unstable clocksource=hpet \
         no_timer_check random.trust_cpu=on",
    ]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.args(["-serial", "stdio"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

fn last_words(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
