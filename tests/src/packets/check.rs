//! Running a case and comparing what came out with what the table says.

use super::cases::{Case, Step};
use super::host::no_flows;
use super::image::Image;
use super::runner::{Outcome, Program, Runner};
use super::world;
use anyhow::{Context, ensure};
use std::fmt::Write;
use std::time::{Duration, Instant};
use weir_common::abi::Row;
use weir_common::verdict::{Action, Reason};

/// What no case takes, on the slowest of machines.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a case is tried that pauses came between.
const ATTEMPTS: usize = 5;

/// Brings the tables to where the case's frame meets them: empty, then the case's steps.
pub fn prepare(runner: &mut dyn Runner, image: &Image, case: &Case) -> anyhow::Result<()> {
    for (index, &row) in image.rows.iter().enumerate() {
        runner.set_row(index as u32, row)?;
    }
    runner.restore(&no_flows())?;
    if case.fresh {
        runner.forget_limits()?;
    }
    for step in &case.before {
        match step {
            Step::Frame(program, frame) => {
                runner.run(*program, frame)?;
            }
            Step::Row {
                port,
                family,
                protocol,
                current,
                previous,
            } => {
                let index = world::FRONTENDS
                    .iter()
                    .position(|frontend| frontend.port == *port)
                    .context("no such port")?;
                let id = |target: Option<world::Target>| target.map_or(0, |target| target.id(*family, *protocol));
                let row = Row {
                    current: id(*current),
                    previous: id(*previous),
                };
                runner.set_row(world::row_index(index, *family, *protocol), row)?;
            }
            Step::Later(ticks) => {
                let flows = runner.flows()?.aged(*ticks);
                runner.restore(&flows)?;
            }
        }
    }
    Ok(())
}

/// Runs the case; the error says what differs.
pub fn run(runner: &mut dyn Runner, image: &Image, case: &Case) -> anyhow::Result<Outcome> {
    prepare(runner, image, case)?;
    let outcome = runner.run(case.program, &case.frame)?;
    compare(case, &outcome, runner.sees_interfaces())?;
    Ok(outcome)
}

fn compare(case: &Case, outcome: &Outcome, sees_interfaces: bool) -> anyhow::Result<()> {
    let expected = format!("{:?} because of {}", case.action, case.reason.name());
    let found = format!("{:?} because of {}", outcome.action, outcome.reason.name());
    let same_action = match (case.action, outcome.action) {
        (Action::Redirect(_), Action::Redirect(0)) => !sees_interfaces,
        (expected, found) => expected == found,
    };
    // What a dropped frame looks like is nobody's business, except that it must not be half rewritten.
    let (mut wanted, mut got) = (case.expected.clone(), outcome.frame.clone());
    if let Some(l3) = case.outer {
        blank_entropy(&mut wanted, l3);
        check_entropy(&got, l3)?;
        blank_entropy(&mut got, l3);
    }
    ensure!(
        same_action && case.reason == outcome.reason && wanted == got,
        "expected {expected}, found {found}\n{}",
        difference(&wanted, &got)
    );
    Ok(())
}

/// The outer source port is of the dynamic range, and the flow label is in use (RFC 6438).
fn check_entropy(frame: &[u8], l3: usize) -> anyhow::Result<()> {
    let Some(&first) = frame.get(l3) else { return Ok(()) };
    let l4 = l3 + if first >> 4 == 6 { 40 } else { 20 };
    let port = frame
        .get(l4..l4 + 2)
        .map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
    ensure!(port >= 0xc000, "outer source port {port} is not of the dynamic range");
    if first >> 4 == 6 {
        let label = frame
            .get(l3 + 1..l3 + 4)
            .map_or(0, |b| u32::from_be_bytes([0, b[0] & 0x0f, b[1], b[2]]));
        ensure!(label != 0, "the outer flow label is zero");
    }
    Ok(())
}

/// Blanks what a flow's hash decides in an outer header at `l3`: UDP source port, IPv6 flow label.
pub(super) fn blank_entropy(frame: &mut [u8], l3: usize) {
    let Some(&first) = frame.get(l3) else { return };
    let l4 = l3 + if first >> 4 == 6 { 40 } else { 20 };
    if first >> 4 == 6
        && let Some([a, b, c]) = frame.get_mut(l3 + 1..l3 + 4)
    {
        (*a, *b, *c) = (*a & 0xf0, 0, 0);
    }
    if let Some(port) = frame.get_mut(l4..l4 + 2) {
        port.fill(0);
    }
}

/// Two frames side by side, 16 bytes a line, differing lines marked.
#[must_use]
pub fn difference(wanted: &[u8], got: &[u8]) -> String {
    let mut text = format!("expected {} bytes, found {}\n", wanted.len(), got.len());
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x} "))
    };
    for at in (0..wanted.len().max(got.len())).step_by(16) {
        let line = |frame: &[u8]| {
            frame
                .get(at..)
                .map_or(Vec::new(), |rest| rest.iter().take(16).copied().collect())
        };
        let (left, right): (Vec<u8>, Vec<u8>) = (line(wanted), line(got));
        let mark = if left == right { ' ' } else { '*' };
        let _ = writeln!(text, "{mark} {at:4}  {:48}| {}", hex(&left), hex(&right));
    }
    text
}

/// The host's outcome and the kernel's are the same.
pub fn same(name: &str, program: Program, input: &[u8], host: &Outcome, kernel: &Outcome) -> anyhow::Result<()> {
    let host = host.clone().comparable();
    ensure!(
        host == *kernel,
        "{name} ({program:?}): the host says {:?} because of {}, the kernel {:?} because of {}\ninput (left is the \
         input, right the host's output)\n{}host (left) and kernel (right)\n{}",
        host.action,
        host.reason.name(),
        kernel.action,
        kernel.reason.name(),
        difference(input, &host.frame),
        difference(&host.frame, &kernel.frame),
    );
    Ok(())
}

/// Whether a case fills the flow table: which of its flows then gives way depends on the time, and the kernel has its own.
#[must_use]
pub fn depends_on_time(case: &Case) -> bool {
    const FLOOD: usize = 100;
    case.before.len() >= FLOOD
}

/// What `attempt` gives when the machine does not stand still during it: time-outs and limits are of real time, and a
/// paused machine lets them pass between two packets.
///
/// # Errors
/// Those of an attempt that took less than [`PAUSE`], or of the last of [`ATTEMPTS`].
pub fn unpaused(mut attempt: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    for _ in 1..ATTEMPTS {
        let begun = Instant::now();
        let result = attempt();
        if result.is_ok() || begun.elapsed() < PAUSE {
            return result;
        }
    }
    attempt()
}

/// Whether a packet passed for this reason was edited.
#[must_use]
pub fn rewrites(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Local | Reason::Decapsulated | Reason::EgressReply | Reason::IcmpError
    )
}
