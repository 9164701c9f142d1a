//! SYNs from made-up clients, for the time of an event.

use crate::{
    lab::{Lab, address, frames::Wire},
    packets::frames::{Ip, Link, Tcp, flag},
};
use anyhow::{Context, Result};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Where the made-up clients are: networks for benchmarks (RFC 2544, RFC 5180), which the router swallows.
const SOURCES: [&str; 2] = ["198.18.0.0/15", "2001:2::/48"];
/// Between two bursts.
const TICK: Duration = Duration::from_millis(2);
/// A flood ends by itself, whoever forgets it.
const LONGEST: Duration = Duration::from_secs(300);

/// A running flood; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Flood {
    /// Sends `rate` SYNs a second to `targets`, over all nodes in turn, as a router with ECMP would.
    ///
    /// # Errors
    /// When the LAN cannot be reached.
    pub fn start(lab: &Lab, targets: Vec<SocketAddr>, rate: u32) -> Result<Self> {
        for network in SOURCES {
            lab.router.output(&format!("ip route replace blackhole {network}"))?;
        }
        let wire = Wire::of_stranger(lab)?;
        let macs = lab
            .nodes
            .iter()
            .map(|node| address::node_mac_bytes(node.number))
            .collect::<Vec<_>>();
        let stop = Arc::new(AtomicBool::new(false));
        let asked_to_stop = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let mut sent = 0_u64;
            while !asked_to_stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
                let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                while sent < due {
                    let target = targets[sent as usize % targets.len()];
                    // A dead node's cable takes nothing, and that is part of the event.
                    let _ = wire.send(&syn(sent, target, macs[sent as usize / targets.len() % macs.len()]));
                    sent += 1;
                }
                thread::sleep(TICK);
            }
            Ok(sent)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it and gives the number of SYNs.
    ///
    /// # Errors
    /// When it has failed.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the flood has been stopped before")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // On the way out of another failure.
            let _ = thread.join();
        }
    }
}

/// SYN number `number`, from a client and port that no other of the flood has.
fn syn(number: u64, target: SocketAddr, node: [u8; 6]) -> Vec<u8> {
    // An odd factor: neighbours in number are far apart, and none meets another.
    let scattered = (number as u32).wrapping_mul(0x9e37_79b1);
    let [a, b, c, d] = scattered.to_be_bytes();
    let source: IpAddr = match target.ip() {
        IpAddr::V4(_) => Ipv4Addr::new(198, 18 + (a & 1), b, c).into(),
        IpAddr::V6(_) => Ipv6Addr::new(
            0x2001,
            2,
            0,
            0,
            0,
            0,
            u16::from_be_bytes([a, b]),
            u16::from_be_bytes([c, d]),
        )
        .into(),
    };
    let port = 1024 + (u16::from_be_bytes([d, a]) % 60_000);
    let segment = Tcp::new(port, target.port(), flag::SYN);
    Link::between(address::STRANGER_MAC, node).carry(&Ip::between(source, target.ip()).carry(&segment))
}
