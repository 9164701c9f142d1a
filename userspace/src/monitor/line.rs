//! One sample as one line.

use super::frame::{self, Contents};
use crate::report::Report;
use nix::{
    net::if_::if_indextoname,
    time::{ClockId, clock_gettime},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use weir_common::{
    abi::{Address, Sample, sampled},
    verdict::Reason,
};

/// What numbers and addresses are called, as the agent last reported.
#[derive(Debug)]
pub struct Names {
    backends: BTreeMap<SocketAddr, String>,
    tunnel_port: u16,
    /// From the kernel's monotonic clock to time since 1970.
    epoch: Duration,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Seconds since 1970.
    pub time: f64,
    /// `pass`, `drop`, `transmit`, `redirect`, or `leaves` on the way out.
    pub verdict: &'static str,
    /// Name of the reason.
    pub reason: &'static str,
    /// Interface it came in by, or leaves by.
    pub interface: String,
    /// Interface it is redirected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// Bytes of the frame, after the verdict.
    pub length: u32,
    /// Source, without a port where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// Destination, after the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// Protocol, or EtherType of what is not IP.
    pub protocol: String,
    /// TCP flags.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub flags: String,
    /// Nodes at the ends of the tunnel around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<[IpAddr; 2]>,
    /// The VIP, of what is delivered here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<SocketAddr>,
    /// The backend, with its Service and node if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

impl Names {
    /// As `report` has them; numbers and addresses alone without one.
    #[must_use]
    pub fn new(report: Option<Report>) -> Self {
        let clock = |id| clock_gettime(id).map_or(Duration::ZERO, Duration::from);
        let mut names = Self {
            backends: BTreeMap::new(),
            tunnel_port: report.as_ref().map_or(6081, |report| report.tunnel_port),
            epoch: clock(ClockId::CLOCK_REALTIME).saturating_sub(clock(ClockId::CLOCK_MONOTONIC)),
        };
        for frontend in report.iter().flat_map(|report| &report.frontends) {
            for backend in &frontend.backends {
                let name = format!("{} on {}", frontend.service, backend.node);
                names
                    .backends
                    .entry(SocketAddr::new(backend.address, backend.port))
                    .or_insert(name);
            }
        }
        names
    }

    /// Every socket that a sample is from or to.
    #[must_use]
    pub fn ends(&self, sample: &Sample) -> Vec<SocketAddr> {
        let mut ends: Vec<SocketAddr> = vip(sample).into_iter().collect();
        if let Contents::Ip { packet, .. } = frame::read(sample, self.tunnel_port) {
            ends.extend([packet.source, packet.destination]);
        }
        ends
    }

    /// The line of a sample.
    #[must_use]
    pub fn line(&self, sample: &Sample) -> Line {
        let reason = Reason::ALL.get(sample.reason as usize);
        let mut line = Line {
            time: (self.epoch + Duration::from_nanos(sample.time)).as_secs_f64(),
            verdict: match sample.action {
                sampled::PASS => "pass",
                sampled::DROP => "drop",
                sampled::TRANSMIT => "transmit",
                sampled::REDIRECT => "redirect",
                _ => "leaves",
            },
            reason: reason.map_or("unknown", |reason| reason.name()),
            interface: interface(sample.ifindex),
            out: (sample.out != 0).then(|| interface(sample.out)),
            length: sample.length,
            source: None,
            destination: None,
            protocol: String::new(),
            flags: String::new(),
            tunnel: None,
            vip: vip(sample),
            backend: None,
        };
        match frame::read(sample, self.tunnel_port) {
            Contents::Ip { packet, tunnel } => {
                line.source = Some(packet.source);
                line.destination = Some(packet.destination);
                line.protocol = frame::protocol_name(packet.protocol);
                line.flags = frame::flag_names(packet.flags);
                line.tunnel = tunnel.map(|tunnel| [tunnel.from, tunnel.to]);
                let delivered = line.vip.map(|_| packet.destination);
                line.backend = tunnel
                    .map(|tunnel| tunnel.backend)
                    .or(delivered)
                    .map(|backend| self.name(backend));
            }
            Contents::Other(0x0806) => line.protocol = "ARP".to_owned(),
            Contents::Other(ethertype) => line.protocol = format!("EtherType {ethertype:#06x}"),
            Contents::Unreadable => line.protocol = "unreadable".to_owned(),
        }
        line
    }

    fn name(&self, backend: SocketAddr) -> String {
        match self.backends.get(&backend) {
            Some(name) => format!("{backend} ({name})"),
            None => backend.to_string(),
        }
    }
}

fn vip(sample: &Sample) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(sample.vip_port);
    (sample.vip != Address::UNSPECIFIED).then(|| SocketAddr::new(sample.vip.into(), port))
}

fn interface(index: u32) -> String {
    if_indextoname(index).map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time as u64 % 86_400;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let within = self.time % 60.0;
        write!(
            f,
            "{hours:02}:{minutes:02}:{within:09.6} {:<8} {:<22} {} {} B",
            self.verdict, self.reason, self.interface, self.length
        )?;
        if let (Some(source), Some(destination)) = (self.source, self.destination) {
            write!(f, " {} -> {}", End(source), End(destination))?;
        }
        write!(f, " {}", self.protocol)?;
        if !self.flags.is_empty() {
            write!(f, " {}", self.flags)?;
        }
        if let Some(vip) = self.vip {
            write!(f, ", sent to {vip}")?;
        }
        if let Some([from, to]) = self.tunnel {
            write!(f, ", tunnel {from} -> {to}")?;
        }
        if let Some(backend) = &self.backend {
            write!(f, ", backend {backend}")?;
        }
        if let Some(out) = &self.out {
            write!(f, ", out of {out}")?;
        }
        Ok(())
    }
}

/// A socket, without the port that a protocol lacks.
struct End(SocketAddr);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == 0 {
            write!(f, "{}", self.0.ip())
        } else {
            write!(f, "{}", self.0)
        }
    }
}
