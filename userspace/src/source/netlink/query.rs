//! Questions to the kernel, each with an answer or an error within [`PATIENCE`].
//!
//! They have a socket of their own: on one that also gets notifications, a flood of those drops answers, and whoever
//! waits for one waits for ever.

use super::{
    filters::{self, Filter},
    message,
    network::Device,
    view::{Link, Neighbour, Route},
};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::neighbour::{NeighbourFlags, NeighbourState},
};
use std::{future::Future, io, net::IpAddr, time::Duration};
use tokio::time::timeout;
use tracing::debug;

const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The kernel, or the socket, said no.
    #[error("cannot {what} by netlink")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: rtnetlink::Error,
    },
    /// Silence.
    #[error("netlink does not answer when asked to {0}")]
    Silent(&'static str),
}

/// A socket for questions.
#[derive(Clone, Debug)]
pub struct Queries {
    handle: Handle,
}

impl Queries {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// The system call's.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All interfaces as something to attach to, with what the kernel says about XDP on them now.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn devices(&self) -> Result<Vec<Device>, QueryError> {
        Ok(self.links().await?.iter().map(Link::device).collect())
    }

    /// All interfaces.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn links(&self) -> Result<Vec<Link>, QueryError> {
        let links = self
            .handle
            .link()
            .get()
            .execute()
            .try_filter_map(async |found| Ok(message::link(&found)));
        ask("list the interfaces", links.try_collect()).await
    }

    /// Filters of tc on the way into an interface and on the way out of it, in the order in which they are asked.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn filters(&self, ifindex: u32) -> Result<[Vec<Filter>; 2], QueryError> {
        let disciplines = self.handle.qdisc().get().execute();
        let ours =
            disciplines.try_filter_map(async |found| Ok(filters::discipline(&found, ifindex).map(str::to_owned)));
        let disciplines: Vec<String> = ask("list queueing disciplines", ours.try_collect()).await?;
        let Some(discipline) = disciplines.first() else {
            return Ok([Vec::new(), Vec::new()]);
        };
        let index = i32::try_from(ifindex).unwrap_or(i32::MAX);
        let ingress = self.handle.traffic_filter(index).get().ingress().execute();
        let ingress = ingress.try_filter_map(async |found| Ok(filters::filter(&found)));
        let mut ingress: Vec<Filter> = ask("list tc filters", ingress.try_collect()).await?;
        ingress.sort_by_key(|filter| filter.priority);
        // The kernel would list those of the way in once more.
        if discipline == "ingress" {
            return Ok([ingress, Vec::new()]);
        }
        let egress = self.handle.traffic_filter(index).get().egress().execute();
        let egress = egress.try_filter_map(async |found| Ok(filters::filter(&found)));
        let mut egress: Vec<Filter> = ask("list tc filters", egress.try_collect()).await?;
        egress.sort_by_key(|filter| filter.priority);
        Ok([ingress, egress])
    }

    pub(super) async fn neighbours(&self) -> Result<Vec<Neighbour>, QueryError> {
        let neighbours = self.handle.neighbours().get().execute();
        let neighbours = neighbours.try_filter_map(async |found| Ok(message::neighbour(&found)));
        ask("list the neighbours", neighbours.try_collect()).await
    }

    /// The kernel's own answer to "which way to `address`"; `None` when there is none.
    pub(super) async fn route(&self, address: IpAddr) -> Option<Route> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let query = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .ok()?
            .build();
        let mut answers = Box::pin(self.handle.route().get(query).execute());
        match ask("look up a route", answers.try_next()).await {
            Ok(answer) => message::route(&answer?, address),
            Err(error) => {
                debug!(%address, error = &error as &dyn std::error::Error, "no route");
                None
            }
        }
    }

    /// Has the kernel resolve, or confirm, a neighbour; the outcome comes as a notification.
    pub(super) async fn resolve(&self, ifindex: u32, address: IpAddr) {
        let request = self.handle.neighbours().add(ifindex, address).replace();
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
        if let Err(error) = ask("resolve a neighbour", request.execute()).await {
            debug!(%address, ifindex, error = &error as &dyn std::error::Error, "not resolved");
        }
    }
}

async fn ask<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, QueryError> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|source| QueryError::Refused { what, source }),
        Err(_) => Err(QueryError::Silent(what)),
    }
}
