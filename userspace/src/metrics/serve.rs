//! The HTTP side of whoever is watched, the agent or the controller: three paths, plain text, no state.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use prometheus_client::{encoding::text, registry::Registry};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Mutex,
    task::AbortHandle,
};
use tracing::{info, warn};

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Serving {
    task: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who is watched.
pub trait Watched: Clone + Send + Sync + 'static {
    /// Why it ought to be started again; `None` while it is well.
    fn unwell(&self) -> Option<String>;
    /// Why it does not do yet what it is there for; `None` once it does.
    fn unready(&self) -> Option<String>;
    /// Everything that is exposed; with `openelb`, also by the names that OpenELB has for it.
    fn exposed(&self, openelb: bool) -> Registry;
}

/// Where metrics are served, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Where.
    pub address: SocketAddr,
    /// Whether OpenELB's names are among them.
    pub openelb: bool,
}

#[derive(Clone)]
struct Shared<W> {
    watched: W,
    /// One scrape at a time: each reads all there is, and several at once would only be slower.
    registry: Arc<Mutex<Arc<Registry>>>,
}

/// Starts to serve what `watched` says.
///
/// # Errors
///
/// [`BindError`], when the address is taken or none of this host's.
pub async fn serve<W: Watched>(watched: W, exposure: Exposure) -> Result<Serving, BindError> {
    let Exposure { address, openelb } = exposure;
    let failed = |source| BindError { address, source };
    let listener = listen(address).await.map_err(failed)?;
    info!(%address, "serving /metrics, /healthz and /readyz");
    let registry = Arc::new(Mutex::new(Arc::new(watched.exposed(openelb))));
    let router = Router::new()
        .route("/metrics", get(metrics::<W>))
        .route("/healthz", get(healthz::<W>))
        .route("/readyz", get(readyz::<W>))
        .with_state(Shared { watched, registry });
    let task = tokio::spawn(async move {
        if let Err(problem) = axum::serve(listener, router).await {
            warn!(%problem, "metrics are no longer served");
        }
    });
    Ok(Serving {
        task: task.abort_handle(),
    })
}

/// A listener at `address`. Where that is any of this host's (`::`), also for IPv4, whatever the host's default is
/// (`net.ipv6.bindv6only`), and for IPv4 alone where the host has no IPv6.
///
/// # Errors
///
/// As of the kernel.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() != Ipv6Addr::UNSPECIFIED {
        return TcpListener::bind(address).await;
    }
    let both = || {
        let socket = TcpSocket::new_v6()?;
        setsockopt(&socket, Ipv6V6Only, &false)?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    match both() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

async fn metrics<W: Watched>(State(shared): State<Shared<W>>) -> Response {
    let registry = shared.registry.lock().await;
    let scraped = Arc::clone(&registry);
    // Maps are read and text is made for milliseconds on end: not where anything else is waited for.
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        text::encode(&mut text, &scraped).map(|()| text)
    });
    match text.await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "what is to be told cannot be read; see the log\n",
        )
            .into_response(),
    }
}

async fn healthz<W: Watched>(State(shared): State<Shared<W>>) -> Response {
    verdict(shared.watched.unwell())
}

async fn readyz<W: Watched>(State(shared): State<Shared<W>>) -> Response {
    verdict(shared.watched.unready())
}

fn verdict(problem: Option<String>) -> Response {
    match problem {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem + "\n").into_response(),
    }
}
