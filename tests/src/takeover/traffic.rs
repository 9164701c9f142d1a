//! Clients that ask on whatever happens: over new connections one after the other, and over connections they keep.

use super::stage::Served;
use crate::lab::{FAMILIES, Lab, address, client};
use anyhow::Result;
use serde::Serialize;
use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Connections that are kept to each VIP.
const HELD: usize = 10;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two rounds over connections that are kept.
const ROUND: Duration = Duration::from_millis(50);
/// Between two times that the router forgets who has the addresses.
const FORGETS: Duration = Duration::from_millis(100);

/// What clients of one VIP have seen.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// The Service.
    pub service: String,
    /// Requests over new connections.
    pub requests: usize,
    /// Those without an answer.
    pub failed: usize,
    /// The longest time between two answers over new connections.
    pub longest_gap: Duration,
    /// What the last of the failed said.
    pub failure: Option<String>,
    /// Connections that were kept.
    pub held: usize,
    /// Those of them that broke.
    pub broken: usize,
}

/// Clients of all Services; dropping it ends them.
#[derive(Debug)]
pub struct Traffic {
    ends: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Seen>>>,
    router: Option<JoinHandle<Result<()>>>,
}

impl Traffic {
    /// Begins to ask, and lets the router forget again and again who answers for the addresses, so that every moment without
    /// an answer shows.
    ///
    /// # Errors
    /// When a first connection is not made.
    pub fn start(lab: &Lab, services: &[Served]) -> Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let mut traffic = Self {
            ends: ends.clone(),
            clients: Vec::new(),
            router: None,
        };
        for served in services {
            let (served, client, ends) = (served.clone(), lab.client.clone(), ends.clone());
            let held = client.run(|| {
                (0..HELD)
                    .map(|_| client::connect(served.at))
                    .collect::<Result<Vec<_>>>()
            })?;
            traffic.clients.push(thread::spawn(move || {
                client.enter()?;
                Ok(ask_on(&served, held, &ends))
            }));
        }
        let router = lab.router.clone();
        traffic.router = Some(thread::spawn(move || {
            // Not those that are just being asked for: what waits for them would be refused.
            let known = "nud reachable nud stale nud delay nud probe";
            let lines =
                FAMILIES.map(|family| format!("neigh flush to {} dev lan {known}\n", address::vip_network(family)));
            while !ends.load(Ordering::Relaxed) {
                router.ip_batch(&lines.concat())?;
                thread::sleep(FORGETS);
            }
            Ok(())
        }));
        Ok(traffic)
    }

    /// Ends it; gives what was seen, in the order of the Services.
    ///
    /// # Errors
    /// When the lab fails.
    ///
    /// # Panics
    /// When a client has.
    pub fn stop(mut self) -> Result<Vec<Seen>> {
        self.ends.store(true, Ordering::Relaxed);
        let joined = |thread: JoinHandle<_>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let seen = self.clients.drain(..).map(joined).collect();
        if let Some(router) = self.router.take() {
            router.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        seen
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn ask_on(served: &Served, held: Vec<TcpStream>, ends: &AtomicBool) -> Seen {
    let mut seen = Seen {
        service: served.name.clone(),
        requests: 0,
        failed: 0,
        longest_gap: Duration::ZERO,
        failure: None,
        held: held.len(),
        broken: 0,
    };
    let broken = thread::scope(|scope| {
        let kept = scope.spawn(|| keep(held, ends));
        new_connections(served.at, &mut seen, ends);
        kept.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    seen.broken = broken;
    seen
}

fn new_connections(at: SocketAddr, seen: &mut Seen, ends: &AtomicBool) {
    let mut last = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        seen.requests += 1;
        let answer = client::ask(at);
        let now = Instant::now();
        seen.longest_gap = seen.longest_gap.max(now - last);
        match answer {
            Ok(_) => last = now,
            Err(problem) => {
                seen.failed += 1;
                seen.failure = Some(format!("{problem:#}"));
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Asks over each again and again; gives how many broke.
fn keep(mut held: Vec<TcpStream>, ends: &AtomicBool) -> usize {
    let all = held.len();
    while !ends.load(Ordering::Relaxed) {
        held.retain_mut(|connection| client::ask_on(connection).is_ok());
        thread::sleep(ROUND);
    }
    all - held.len()
}
