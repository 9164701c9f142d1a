//! `weir trace`: what would happen to a packet that has not been sent. The kernel's program decides, over the live maps and
//! without changing any; the explanation is made by the same code here, and has to come to the same.

mod explain;
mod packet;
mod report;

pub use packet::Question;

use crate::{
    apply::bpf::{
        self,
        readings::Readings,
        tracer::{Answer, Tracer},
    },
    monitor::{Format, find_pins},
    store,
};
use report::Explanation;
use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};
use weir_common::verdict::Action;

/// Maps may change between the kernel's answer and ours; then it is asked again.
const ATTEMPTS: usize = 5;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data path.
    #[error("cannot ask the program")]
    Bpf(#[from] bpf::Error),
    /// The report cannot be read.
    #[error(transparent)]
    Report(#[from] store::Error),
    /// No packet is from one family to the other.
    #[error("--from and --to are of two address families")]
    Families,
    /// Output failed.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

/// Prints what would happen to the packet of `question` if it came to this host. A segment that begins nothing goes on where
/// the flow is, if this host has it.
///
/// # Errors
///
/// [`Error`].
pub fn print(
    pin_dir: Option<&Path>,
    state_dir: &Path,
    question: &Question,
    format: Format,
    out: &mut impl Write,
) -> Result<(), Error> {
    if question.from.is_ipv4() != question.to.is_ipv4() {
        return Err(Error::Families);
    }
    let (pin_dir, report) = find_pins(pin_dir, state_dir)?;
    let mut tracer = Tracer::load(&pin_dir)?;
    let mut readings = Readings::open(&pin_dir)?;
    let end = |end: SocketAddr| (end.ip().into(), end.port().to_be_bytes());
    let question = &Question {
        sequence: readings.number(end(question.from), end(question.to)),
        ..*question
    };
    let frame = question.frame();
    let mut explanation = Explanation::new(question);
    for _ in 0..ATTEMPTS {
        readings.forget();
        let answer = tracer.ask(&frame)?;
        explanation = explain::explain(question, &readings, report.as_ref());
        explanation.agrees = agrees(&answer, &explanation);
        explanation.same_code = tracer.same_code();
        explanation.take_answer(&answer);
        if explanation.agrees {
            break;
        }
    }
    let print = |out: &mut dyn Write| -> io::Result<()> {
        match format {
            Format::Text => write!(out, "{explanation}"),
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &explanation)?;
                writeln!(out)
            }
        }
    };
    print(out).map_err(Error::Print)
}

/// Whether the kernel did what was worked out here.
fn agrees(answer: &Answer, explanation: &Explanation) -> bool {
    let Some(worked_out) = &explanation.worked_out else {
        return false;
    };
    let code = match worked_out.verdict.action {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Transmit => 3,
        Action::Redirect(_) => 4,
    };
    answer.code == code && answer.reason == Some(worked_out.verdict.reason) && answer.frame == worked_out.frame
}
