//! `weir monitor`: what the programs decide, packet by packet, as it happens. Nothing is sampled while nobody asks.

pub mod frame;
mod line;

use crate::{
    apply::bpf::{self, samples::Samples},
    report::{self, Report},
    store,
};
use clap::ValueEnum;
use line::Names;
use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use weir_common::{abi::Sample, verdict::Reason};

/// How often the request for samples is renewed.
const RENEW: Duration = Duration::from_secs(1);
/// How often the ring buffer is looked into; it has room for a sample each 12 us of this time.
const LOOK: Duration = Duration::from_millis(10);

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A line of JSON; field names are stable.
    Json,
}

/// What to show.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of how many packets one is sampled.
    pub every: u32,
    /// Only verdicts for this reason.
    pub reason: Option<Reason>,
    /// Only packets to or from this VIP.
    pub vip: Option<VipFilter>,
    /// End after so many.
    pub count: Option<u64>,
    /// How to print.
    pub format: Format,
}

/// An address, with a port or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipFilter {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for VipFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self {
                address: socket.ip(),
                port: Some(socket.port()),
            });
        }
        let address = text
            .parse()
            .map_err(|_| "not an address, such as 10.10.1.2 or [2001:db8::2]:80".to_owned())?;
        Ok(Self { address, port: None })
    }
}

impl VipFilter {
    fn takes(&self, socket: SocketAddr) -> bool {
        socket.ip() == self.address && self.port.is_none_or(|port| port == socket.port())
    }
}

/// The reason with this name.
///
/// # Errors
///
/// A sentence with the names there are.
pub fn parse_reason(name: &str) -> Result<Reason, String> {
    let found = Reason::ALL.iter().find(|reason| reason.name() == name).copied();
    found.ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        format!("no such reason; there are {}", names.join(", "))
    })
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data path.
    #[error("cannot ask the programs; is there a data path, and of this version?")]
    Bpf(#[from] bpf::Error),
    /// The report cannot be read.
    #[error(transparent)]
    Report(#[from] store::Error),
    /// Waiting failed.
    #[error("cannot wait for samples")]
    Wait(#[source] io::Error),
    /// Output failed.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

/// Where the pins are: `chosen`, or what the agent with `state_dir` reported, or the usual place.
///
/// # Errors
///
/// [`store::Error`].
pub fn find_pins(chosen: Option<&Path>, state_dir: &Path) -> Result<(PathBuf, Option<Report>), store::Error> {
    let report = report::read(state_dir)?;
    let pin_dir = chosen
        .map(Path::to_owned)
        .or_else(|| report.as_ref().map(|report| report.pin_dir.clone()));
    Ok((pin_dir.unwrap_or_else(|| PathBuf::from(bpf::pins::DEFAULT)), report))
}

/// Prints samples until enough are shown, or SIGINT or SIGTERM.
///
/// # Errors
///
/// [`Error`].
pub async fn run(pin_dir: Option<&Path>, state_dir: &Path, wanted: &Wanted, out: &mut impl Write) -> Result<(), Error> {
    let (pin_dir, report) = find_pins(pin_dir, state_dir)?;
    let names = Names::new(report);
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Wait)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Wait)?;
    let mut samples = Samples::start(&pin_dir, wanted.every)?;
    let (mut renew, mut look) = (interval(RENEW), interval(LOOK));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = wanted.count;
    loop {
        tokio::select! {
            _ = look.tick() => {
                while let Some(sample) = samples.take() {
                    if left == Some(0) {
                        return Ok(());
                    }
                    if !is_wanted(wanted, &names, &sample) {
                        continue;
                    }
                    match print(wanted.format, &names, &sample, out) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                        printed => printed.map_err(Error::Print)?,
                    }
                    left = left.map(|left| left.saturating_sub(1));
                }
                if left == Some(0) {
                    return Ok(());
                }
            }
            _ = renew.tick() => samples.renew()?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

fn is_wanted(wanted: &Wanted, names: &Names, sample: &Sample) -> bool {
    wanted.reason.is_none_or(|reason| sample.reason == reason as u32)
        && wanted
            .vip
            .is_none_or(|vip| names.ends(sample).into_iter().any(|end| vip.takes(end)))
}

fn print(format: Format, names: &Names, sample: &Sample, out: &mut impl Write) -> io::Result<()> {
    let line = names.line(sample);
    match format {
        Format::Text => writeln!(out, "{line}")?,
        Format::Json => {
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)?;
        }
    }
    out.flush()
}
