//! The HTTP side: three paths, plain text, no state.

use super::{Telemetry, snapshot::Maps};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::Mutex, task::AbortHandle};
use tracing::{info, warn};

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

#[derive(Clone)]
struct Shared {
    telemetry: Telemetry,
    /// One scrape at a time: each reads all maps, and several at once would only be slower.
    registry: Arc<Mutex<Arc<Registry>>>,
}

impl Telemetry {
    /// Starts to serve at `address`.
    ///
    /// # Errors
    ///
    /// [`BindError`], when the address is taken or none of this host's.
    pub async fn serve(&self, address: SocketAddr) -> Result<Serving, BindError> {
        let failed = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        info!(%address, "serving /metrics, /healthz and /readyz");
        let registry = self.registry(Maps::new(self.clone()));
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(Shared {
                telemetry: self.clone(),
                registry: Arc::new(Mutex::new(Arc::new(registry))),
            });
        let task = tokio::spawn(async move {
            if let Err(problem) = axum::serve(listener, router).await {
                warn!(%problem, "metrics are no longer served");
            }
        });
        Ok(Serving {
            task: task.abort_handle(),
        })
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let registry = shared.registry.lock().await;
    let scraped = Arc::clone(&registry);
    // Maps are read and text is made for milliseconds on end: not where netlink is waited for.
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        text::encode(&mut text, &scraped).map(|()| text)
    });
    match text.await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the maps cannot be read; see the agent's log\n",
        )
            .into_response(),
    }
}

async fn healthz(State(shared): State<Shared>) -> Response {
    verdict(shared.telemetry.unwell())
}

async fn readyz(State(shared): State<Shared>) -> Response {
    verdict(shared.telemetry.unready())
}

fn verdict(problem: Option<String>) -> Response {
    match problem {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem + "\n").into_response(),
    }
}
