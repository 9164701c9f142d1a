//! Answers whoever asks whether this node has endpoints of a Service, at the ports and with the counts of the plan, as
//! kube-proxy does where it runs. A port that another has is left to it, which is a condition, and is tried again.

use super::replace;
use crate::{
    causes::error_text,
    metrics::{Serving, Telemetry, Watched, listen},
};
use axum::{
    Router,
    extract::State,
    http::{
        HeaderName, StatusCode,
        header::{CONNECTION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock, Weak},
};
use tracing::{debug, warn};
use weir_core::{
    model::{Condition, ObjectRef, reason},
    plan::HealthCheck,
};

/// The number of endpoints, for load balancers that weigh nodes by it.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

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
    taken: BTreeMap<u16, (ObjectRef, String)>,
}

/// One port.
#[derive(Debug)]
struct Answered {
    check: Arc<RwLock<HealthCheck>>,
    /// Ends with this.
    _serving: Serving,
}

/// What an answer is made of. A connection may outlive what it was made to ask about.
#[derive(Clone)]
struct Answering {
    check: Weak<RwLock<HealthCheck>>,
    telemetry: Telemetry,
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
        self.answered.retain(|port, _| checks.contains_key(port));
        let mut taken = BTreeMap::new();
        for (port, check) in checks {
            if let Some(answered) = self.answered.get(port) {
                let mut said = answered.check.write().unwrap_or_else(PoisonError::into_inner);
                replace(&mut *said, check.clone());
                continue;
            }
            match self.answer(*port, check).await {
                Ok(answered) => drop(self.answered.insert(*port, answered)),
                Err(problem) => drop(taken.insert(*port, (ObjectRef::service(&check.service), problem))),
            }
        }
        replace(&mut self.taken, taken)
    }

    async fn answer(&self, port: u16, check: &HealthCheck) -> Result<Answered, String> {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = listen(everywhere).await.map_err(|error| error_text(&error))?;
        debug!(port, service = %check.service, "answering health checks");
        let check = Arc::new(RwLock::new(check.clone()));
        let answering = Answering {
            check: Arc::downgrade(&check),
            telemetry: self.telemetry.clone(),
        };
        // At whatever path, as kube-proxy.
        let router = Router::new().fallback(say).with_state(answering);
        let task = tokio::spawn(async move {
            if let Err(problem) = axum::serve(listener, router).await {
                warn!(port, %problem, "health checks are no longer answered");
            }
        });
        Ok(Answered {
            check,
            _serving: Serving::of(&task),
        })
    }

    /// The ports that cannot be had.
    pub(super) fn conditions(&self) -> impl Iterator<Item = Condition> {
        self.taken.iter().map(|(port, (service, problem))| {
            let message = format!(
                "health checks at port {port} are left to whoever has it on this node: {problem}. Where kube-proxy runs, it answers \
                 them, and --health-check-node-ports can be left out; else end what listens there. It is tried again every few \
                 seconds."
            );
            Condition::new(
                service.clone(),
                "spec.healthCheckNodePort",
                reason::HEALTH_CHECK_PORT,
                message,
            )
        })
    }
}

async fn say(State(answering): State<Answering>) -> Response {
    let Some(check) = answering.check.upgrade() else {
        let gone = "the Service is not asked about here any more\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(CONNECTION, "close")], gone).into_response();
    };
    let HealthCheck { service, endpoints } = check.read().unwrap_or_else(PoisonError::into_inner).clone();
    let healthy = answering.telemetry.unready().is_none();
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
