//! Keeps the metrics served at the address asked for; one that cannot be had is said, and tried again.

use super::telemetry::Telemetry;
use crate::metrics::{self, Exposure};
use std::{future::pending, time::Duration};
use tokio::{task::JoinSet, time::sleep};
use tracing::warn;

/// Between one attempt and the next.
const AGAIN: Duration = Duration::from_secs(5);

/// Serves in `tasks`, and so for as long as they are.
pub(super) fn start(tasks: &mut JoinSet<()>, telemetry: Telemetry, exposure: Exposure) {
    tasks.spawn(async move {
        let mut said = None;
        loop {
            match metrics::serve(telemetry.clone(), exposure).await {
                Ok(_serving) => pending().await,
                Err(problem) => {
                    let text = format!(
                        "{problem}; addresses are given out all the same; give --metrics another address, or `off`"
                    );
                    if said.as_ref() != Some(&text) {
                        warn!("{text}");
                        said = Some(text);
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    });
}
