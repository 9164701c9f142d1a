//! Answers whoever asks whether this node has endpoints of a Service, at the ports and with the counts of the plan, as
//! kube-proxy does where it runs. A port that another has is left to it, which is a condition, and is tried again.

use super::replace;
use crate::{
    causes::error_text,
    metrics::{Telemetry, listen},
};
use axum::{
    http::{
        HeaderName, StatusCode,
        header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, ErrorKind},
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tracing::debug;
use weir_core::{
    model::{Condition, ObjectRef, reason},
    plan::HealthCheck,
};

/// The number of endpoints, for load balancers that weigh nodes by it.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Who asks is done within this, or is let go.
const ASKING: Duration = Duration::from_secs(2);
/// So many may ask at one port at a time; others wait. Anybody who reaches the node may, and each takes a descriptor that the
/// agent's own work needs, too.
const AT_ONCE: usize = 128;
/// Between two attempts to take a connection, if none can be taken.
const AGAIN: Duration = Duration::from_millis(100);

/// By port.
type ByPort = BTreeMap<u16, HealthCheck>;

/// Where it is answered, and where it cannot be.
#[derive(Debug)]
pub(super) struct HealthChecks {
    /// Whether it is to be answered at all.
    wanted: bool,
    telemetry: Telemetry,
    answered: BTreeMap<u16, Answered>,
    /// Ports that cannot be had, with the Service and why.
    taken: BTreeMap<u16, Untaken>,
}

/// A port that cannot be had: for whom, whether another process has it, and in the kernel's words.
#[derive(Debug, PartialEq, Eq)]
struct Untaken {
    service: ObjectRef,
    in_use: bool,
    problem: String,
}

/// One port.
#[derive(Debug)]
struct Answered {
    check: Arc<RwLock<HealthCheck>>,
    task: JoinHandle<()>,
}

impl Answered {
    /// Returns when the port is free again.
    async fn end(mut self) {
        self.task.abort();
        // However it has ended, its listener is gone.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthChecks {
    /// Answers nothing yet, and never if that is not `wanted`. Whether the node is well is said by `telemetry`.
    pub(super) const fn new(wanted: bool, telemetry: Telemetry) -> Self {
        Self {
            wanted,
            telemetry,
            answered: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// Answers `checks` and nothing else; tries again what could not be had. Whether [`Self::conditions`] are others now.
    /// Needs a runtime.
    pub(super) async fn follow(&mut self, checks: &ByPort) -> bool {
        if !self.wanted {
            return false;
        }
        for (_, answered) in self.answered.extract_if(.., |port, _| !checks.contains_key(port)) {
            answered.end().await;
        }
        let mut taken = BTreeMap::new();
        for (port, check) in checks {
            if let Some(answered) = self.answered.get(port) {
                let mut said = answered.check.write().unwrap_or_else(PoisonError::into_inner);
                replace(&mut *said, check.clone());
                continue;
            }
            match self.answer(*port, check).await {
                Ok(answered) => drop(self.answered.insert(*port, answered)),
                Err(error) => {
                    let untaken = Untaken {
                        service: ObjectRef::service(&check.service),
                        in_use: error.kind() == ErrorKind::AddrInUse,
                        problem: error_text(&error),
                    };
                    taken.insert(*port, untaken);
                }
            }
        }
        replace(&mut self.taken, taken)
    }

    async fn answer(&self, port: u16, check: &HealthCheck) -> io::Result<Answered> {
        let listener = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await?;
        debug!(port, service = %check.service, "answering health checks");
        let check = Arc::new(RwLock::new(check.clone()));
        let task = tokio::spawn(serve(listener, Arc::clone(&check), self.telemetry.clone()));
        Ok(Answered { check, task })
    }

    /// The ports that cannot be had.
    pub(super) fn conditions(&self) -> impl Iterator<Item = Condition> {
        self.taken.iter().map(|(port, untaken)| {
            let problem = &untaken.problem;
            let message = if untaken.in_use {
                format!(
                    "health checks at port {port} are left to whoever has it on this node: {problem}. Where kube-proxy runs, it \
                     answers them, and --health-check-node-ports can be left out; else end what listens there. It is tried again \
                     every few seconds."
                )
            } else {
                format!(
                    "health checks at port {port} are not answered on this node: {problem}. Take the cause away; it is tried again \
                     every few seconds."
                )
            };
            Condition::new(
                untaken.service.clone(),
                "spec.healthCheckNodePort",
                reason::HEALTH_CHECK_PORT,
                message,
            )
        })
    }
}

/// Answers until it is dropped, and with it whoever still asks.
async fn serve(listener: TcpListener, check: Arc<RwLock<HealthCheck>>, telemetry: Telemetry) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        while asking.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; some will be closed.
                debug!("cannot accept a connection: {error}");
                sleep(AGAIN).await;
                continue;
            }
        };
        let (check, telemetry) = (Arc::clone(&check), telemetry.clone());
        asking.spawn(async move {
            // At whatever path, as kube-proxy. Once for each connection, so that none outlives what it was made to ask about.
            let answer = service_fn(|_| {
                let answer = say(&check, &telemetry);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Who breaks off, or takes too long, has no answer.
            drop(timeout(ASKING, connection).await);
            drop(place);
        });
    }
}

fn say(check: &RwLock<HealthCheck>, telemetry: &Telemetry) -> Response {
    let HealthCheck { service, endpoints } = check.read().unwrap_or_else(PoisonError::into_inner).clone();
    let healthy = telemetry.forwards();
    let status = if healthy && endpoints > 0 {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, endpoints.to_string()),
    ];
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": healthy,
    });
    (status, headers, body.to_string()).into_response()
}
