//! Clients that go on in the background while a test changes something.

use super::{
    Namespace,
    client::{self, Progress},
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between one request and the next.
const PAUSE: Duration = Duration::from_millis(2);

/// One request after the other: over TCP each with a connection of its own.
#[derive(Debug)]
pub struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

/// What came of [`Requests`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by pod.
    pub answers: BTreeMap<String, usize>,
    /// What went wrong, in order.
    pub failures: Vec<String>,
    /// The longest time between two answers.
    pub longest_gap: Duration,
}

impl Tally {
    /// Number of answers.
    pub fn total(&self) -> usize {
        self.answers.values().sum()
    }
}

impl Requests {
    /// Starts to ask the web servers behind `address` from `namespace`.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Self {
        Self::repeat(namespace, move || Ok(move || client::ask(address)))
    }

    /// Starts to ask the UDP echoes behind `address` from `namespace`, all over one socket: one flow, and one pod.
    pub fn start_udp(namespace: &Namespace, address: SocketAddr) -> Self {
        Self::repeat(namespace, move || {
            let socket = client::udp_socket(address)?;
            Ok(move || client::ask_udp_again(&socket))
        })
    }

    /// Repeats what `prepare` gives, both inside `namespace`.
    fn repeat<A: FnMut() -> Result<client::Answer>>(
        namespace: &Namespace,
        prepare: impl FnOnce() -> Result<A> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (namespace, asked_to_stop) = (namespace.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            namespace.enter()?;
            let mut ask = prepare()?;
            let mut tally = Tally::default();
            let mut last = Instant::now();
            while !asked_to_stop.load(Ordering::Relaxed) {
                match ask() {
                    Ok(answer) => {
                        *tally.answers.entry(answer.pod).or_default() += 1;
                        tally.longest_gap = tally.longest_gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    Err(error) => tally.failures.push(format!("{error:#}")),
                }
                thread::sleep(PAUSE);
            }
            Ok(tally)
        });
        Self { stop, thread }
    }

    /// Stops and tells what came of it.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub fn finish(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        joined(self.thread)
    }
}

/// `count` requests from `namespace`, answers by pod.
///
/// # Errors
/// When one fails.
pub fn spread(namespace: &Namespace, address: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
    namespace.run(|| {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            *answers.entry(client::ask(address)?.pod).or_default() += 1;
        }
        Ok(answers)
    })
}

/// A download that goes on, slowly, until it is finished or dropped, however long that takes.
#[derive(Debug)]
pub struct Download {
    /// The pod that serves it.
    pub pod: String,
    brake: Brake,
    thread: JoinHandle<Result<Vec<u8>>>,
}

/// Slows a download down until it is dropped.
#[derive(Debug)]
struct Brake(Arc<Progress>);

impl Drop for Brake {
    fn drop(&mut self) {
        self.0.hurry();
    }
}

impl Download {
    /// Starts to fetch `path` from whoever serves at `address`; returns when the first bytes are here.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn start(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<Self> {
        // The pod names itself on the connection that the download then uses.
        let (mut connection, pod) = namespace.run(|| {
            let mut connection = client::connect(address)?;
            let pod = client::ask_on(&mut connection)?.pod;
            Ok((connection, pod))
        })?;
        let progress = Arc::new(Progress::slow());
        let (path, brake) = (path.to_owned(), Brake(Arc::clone(&progress)));
        let thread = thread::spawn(move || client::request(&mut connection, &path, &progress));
        let download = Self { pod, brake, thread };
        super::wait::until("the download to begin", || {
            ensure!(download.brake.0.received() > 0, "nothing has come");
            Ok(())
        })?;
        Ok(download)
    }

    /// Whether it is still going on: it is, unless it broke, or the file is small.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Lets the rest come as fast as it can, and returns the file.
    ///
    /// # Errors
    /// When the connection broke or ended early.
    pub fn finish(self) -> Result<Vec<u8>> {
        drop(self.brake);
        joined(self.thread).with_context(|| format!("the download from {}", self.pod))
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
