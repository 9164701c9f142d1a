//! The client's side: a number of connections held open, and a request over each in turn, on one thread.

use super::asking::{Asking, Order};
use crate::lab::Namespace;
use anyhow::{Context, Result, anyhow};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

/// A connection without an answer for this long is broken. TCP has sent the request again some six times by then.
pub const LIMIT: Duration = Duration::from_secs(15);

/// How many connections, where to, and how fast.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// VIPs and ports, used in turn.
    pub targets: Vec<SocketAddr>,
    /// Number of connections.
    pub connections: usize,
    /// Requests per second over all of them.
    pub rate: u32,
}

/// What happened since the connections were last made whole.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Connections there were.
    pub connections: usize,
    /// Those that broke.
    pub broken: Vec<Broken>,
    /// Requests that were answered, and rightly.
    pub answers: u64,
    /// Segments the client's ends sent again.
    pub retransmissions: u64,
}

/// A connection that broke.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Where it led.
    pub target: SocketAddr,
    /// The client's end.
    pub client: SocketAddr,
    /// The pod that served it.
    pub pod: String,
    /// How it ended.
    pub cause: Cause,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// By a RST.
    Reset,
    /// By a FIN.
    Closed,
    /// No answer for [`LIMIT`].
    Silent,
    /// Another pod answered.
    WrongPod,
    /// Not the answer to the request.
    WrongAnswer,
    /// Any other error of the socket.
    Failed(String),
}

impl Census {
    /// How many connections ended how.
    #[must_use]
    pub fn causes(&self) -> BTreeMap<Cause, usize> {
        let mut causes = BTreeMap::new();
        for broken in &self.broken {
            *causes.entry(broken.cause.clone()).or_default() += 1;
        }
        causes
    }
}

/// Open connections with traffic; dropping it closes them.
#[derive(Debug)]
pub struct Connections {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Connections {
    /// Opens them from namespace `client`, and returns when each has had an answer.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn open(client: &Namespace, wanted: Wanted) -> Result<Self> {
        let (orders, received) = channel();
        let client = client.clone();
        let thread = thread::spawn(move || {
            client.enter()?;
            Asking::new(wanted)?.run(&received)
        });
        let mut connections = Self {
            orders: Some(orders),
            thread: Some(thread),
        };
        connections.mend()?;
        Ok(connections)
    }

    /// Opens new connections in the places of broken ones, and begins to count anew once each has had an answer.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn mend(&mut self) -> Result<()> {
        self.order(Order::Mend)
    }

    /// Waits until each connection has answered a request made after this call, or is broken, and gives what happened
    /// since the last [`Self::mend`].
    ///
    /// # Errors
    /// When the client fails; broken connections are no failure.
    pub fn census(&mut self) -> Result<Census> {
        self.order(Order::Count)
    }

    fn order<T>(&mut self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T> {
        let (answer, answered): (_, Receiver<T>) = channel();
        let orders = self.orders.as_ref().context("the client has ended")?;
        // If it cannot be sent, there is no answer either.
        let _ = orders.send(order(answer));
        answered.recv().map_err(|_| self.end())
    }

    /// Why the thread ended before it was asked to.
    fn end(&mut self) -> anyhow::Error {
        self.orders = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error.context("the client of the connections"),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => anyhow!("the client of the connections has ended"),
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its failure has been told to whoever waited for an answer.
            let _ = thread.join();
        }
    }
}
