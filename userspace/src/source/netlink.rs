//! The netlink source: this node's interfaces, and how every other node is reached.
//!
//! Takes the addresses somebody wants to send to; publishes a complete [`Network`] each time anything about it changes,
//! within [`QUIET`] of the kernel saying so. Subscribes before it reads, and reads everything again when the kernel says
//! that messages were lost. Next hops are kept resolved: one without a MAC is asked for each second, one whose MAC has
//! not been confirmed lately is asked again, so that a MAC in use does not go away. It changes nothing else, and knows
//! nothing of plans.

mod features;
mod filters;
mod message;
mod network;
mod query;
mod view;

pub use features::{XdpFeatures, xdp_features};
pub use filters::Filter;
pub use network::{Device, Network, Wanted, XdpState};
pub use query::{Queries, QueryError};
pub use view::Link;

use futures_util::{StreamExt, stream};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, SocketAddr},
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, warn};
use view::{Neighbour, View};

/// Changes that follow each other this closely are published together.
pub const QUIET: Duration = Duration::from_millis(10);
/// A next hop without a MAC is asked for this often.
const RETRY: Duration = Duration::from_secs(1);
/// Routes are looked up and neighbours confirmed this often in any case, in retries.
const CONFIRM_EVERY: u32 = 15;
/// Routes looked up at the same time.
const AT_ONCE: usize = 64;
/// Receive buffer of the socket, so that a burst of changes is not lost.
const BUFFER: usize = 1 << 20;

/// What can go wrong with netlink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The connection ended.
    #[error("the netlink socket was closed")]
    Closed,
}

/// Where the source publishes; nothing until it has spoken once.
pub type Networks = watch::Receiver<Option<Arc<Network>>>;

/// Starts the source on the current runtime; the first [`Network`] appears at once.
///
/// Must be called in the network namespace that is meant.
///
/// # Errors
///
/// [`Error::Socket`].
pub fn start(wanted: watch::Receiver<Wanted>) -> Result<(Networks, Queries), Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (mut connection, _, messages) = new_multicast_connection(&groups).map_err(Error::Socket)?;
    if let Err(error) = connection.socket_mut().socket_mut().set_rx_buf_sz(BUFFER) {
        debug!(%error, "netlink keeps its ordinary buffer");
    }
    tokio::spawn(connection);
    let queries = Queries::open().map_err(Error::Socket)?;
    let (publish, published) = watch::channel(None);
    let source = Source {
        queries: queries.clone(),
        view: View::default(),
        wanted,
        publish,
        routes_stale: true,
        view_stale: true,
        flush_at: None,
    };
    tokio::spawn(source.run(messages));
    Ok((published, queries))
}

struct Source {
    queries: Queries,
    view: View,
    wanted: watch::Receiver<Wanted>,
    publish: watch::Sender<Option<Arc<Network>>>,
    routes_stale: bool,
    /// Messages were lost, and reading everything again has not succeeded yet.
    view_stale: bool,
    flush_at: Option<Instant>,
}

type Messages = stream::BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>;

impl Source {
    async fn run(
        mut self,
        messages: impl stream::Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send + 'static,
    ) {
        let mut messages: Messages = messages.map(|(message, _)| message.payload).boxed();
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = 0_u32;
        self.resync().await;
        loop {
            let flush_at = self.flush_at.unwrap_or_else(Instant::now);
            tokio::select! {
                message = messages.next() => match message {
                    Some(payload) => self.take(payload).await,
                    None => {
                        warn!("{}; interfaces and next hops are no longer followed", Error::Closed);
                        return;
                    }
                },
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.routes_stale = true;
                    self.flush().await;
                }
                () = sleep_until(flush_at), if self.flush_at.is_some() => self.flush().await,
                _ = retry.tick() => {
                    if self.view_stale {
                        self.resync().await;
                    }
                    rounds = rounds.wrapping_add(1);
                    let confirm = rounds.is_multiple_of(CONFIRM_EVERY);
                    if confirm {
                        self.routes_stale = true;
                        self.flush().await;
                    }
                    self.ask(confirm).await;
                }
            }
        }
    }

    /// Takes in one message from the kernel.
    async fn take(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        use RouteNetlinkMessage as Message;
        let message = match payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                debug!("netlink lost messages, reading everything again");
                self.resync().await;
                return;
            }
            _ => return,
        };
        let changed = match message {
            // The kernel does not tell of every route that goes with a link.
            Message::NewLink(message) => message::link(&message).is_some_and(|link| {
                self.routes_stale = true;
                self.view.set_link(link)
            }),
            Message::DelLink(message) if message::is_of_interface(&message) => {
                self.routes_stale = true;
                self.view.remove_link(message.header.index)
            }
            Message::NewNeighbour(message) => {
                message::neighbour(&message).is_some_and(|neighbour| self.view.set_neighbour(neighbour))
            }
            Message::DelNeighbour(message) => {
                let gone = message::neighbour(&message);
                let missed = gone.filter(|neighbour| self.view.remove_neighbour(neighbour));
                if let Some(neighbour) = missed {
                    self.queries.resolve(neighbour.ifindex, neighbour.address).await;
                }
                missed.is_some()
            }
            Message::NewRoute(_) | Message::DelRoute(_) | Message::NewAddress(_) | Message::DelAddress(_) => {
                self.routes_stale = true;
                true
            }
            _ => false,
        };
        if changed && self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + QUIET);
        }
    }

    async fn resync(&mut self) {
        match self.read_all().await {
            Ok((links, neighbours)) => {
                self.view.replace(links, neighbours);
                self.view_stale = false;
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "going on with the former view of the network; trying again"
                );
                self.view_stale = true;
            }
        }
        self.routes_stale = true;
        self.flush().await;
    }

    async fn read_all(&self) -> Result<(Vec<Link>, Vec<Neighbour>), QueryError> {
        Ok((self.queries.links().await?, self.queries.neighbours().await?))
    }

    /// Publishes what is known now, if it differs from what was published.
    async fn flush(&mut self) {
        self.flush_at = None;
        let wanted = self.wanted.borrow_and_update().clone();
        if std::mem::take(&mut self.routes_stale) {
            let queries = &self.queries;
            let routes = stream::iter(wanted.addresses())
                .map(async |address| Some((address, queries.route(address).await?)))
                .buffer_unordered(AT_ONCE)
                .filter_map(async |route| route);
            self.view.set_routes(routes.collect().await);
            self.ask(false).await;
        }
        let network = self.view.network(&wanted);
        self.publish.send_if_modified(|published| {
            let differs = published.as_deref() != Some(&network);
            if differs {
                *published = Some(Arc::new(network));
            }
            differs
        });
    }

    /// Has the kernel resolve next hops: those without a MAC, and with `confirm` those that have not been confirmed.
    async fn ask(&self, confirm: bool) {
        for (ifindex, address) in self.view.to_resolve(confirm) {
            self.queries.resolve(ifindex, address).await;
        }
    }
}
