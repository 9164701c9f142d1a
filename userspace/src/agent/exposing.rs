//! Keeps the metrics served at the address asked for. One that cannot be had is a condition, and is tried again.

use crate::{
    causes::error_text,
    metrics::{self, Exposure, Serving, Telemetry},
};
use weir_core::model::{Condition, ObjectRef};

/// Where and what is to be served, and what became of it.
#[derive(Debug)]
pub struct Exposing {
    node: String,
    /// `None` when nothing is to be served.
    wanted: Option<Exposure>,
    serving: Option<Serving>,
    problem: Option<String>,
}

impl Exposing {
    /// For `node`; not yet served.
    #[must_use]
    pub const fn new(node: String, wanted: Option<Exposure>) -> Self {
        Self {
            node,
            wanted,
            serving: None,
            problem: None,
        }
    }

    /// Serves what `telemetry` tells, unless it is served. Whether [`Self::condition`] is another now.
    pub async fn ensure(&mut self, telemetry: &Telemetry) -> bool {
        let (None, Some(wanted)) = (&self.serving, self.wanted) else {
            return false;
        };
        let problem = match metrics::serve(telemetry.clone(), wanted).await {
            Ok(serving) => {
                self.serving = Some(serving);
                None
            }
            Err(problem) => Some(error_text(&problem)),
        };
        let changed = self.problem != problem;
        self.problem = problem;
        changed
    }

    /// What is wrong.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        let problem = self.problem.as_ref()?;
        let message = format!(
            "{problem}. Services are served all the same, and it is tried again every few seconds; give --metrics another \
             address, or `off`."
        );
        let object = ObjectRef::cluster_scoped("Node", &self.node);
        Some(Condition::new(object, "--metrics", "MetricsNotServed", message))
    }
}
