//! Looking at agents' Leases: a list of them now and then, beside the controller's own work. The core says who is silent by it.

use super::Leading;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::ListParams};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::warn;
use weir_core::controller::{AGENT_LEASES, AgentLease};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);
/// A request that is not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The Leases by node; `None` if they could not be read.
pub(super) type Look = Option<BTreeMap<String, AgentLease>>;

/// Looks for as long as this controller leads; each look is told, also if nothing is new.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: &str,
    mut leading: watch::Receiver<Leading>,
) -> watch::Receiver<Look> {
    let (tell, told) = watch::channel(None);
    let api = Api::<Lease>::namespaced(client.clone(), namespace);
    tasks.spawn(async move {
        let mut failed = false;
        loop {
            if !leading.borrow_and_update().now() {
                if leading.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let look = match timeout(PATIENCE, list(&api)).await {
                Ok(Ok(leases)) => Ok(leases),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            if let Err(problem) = &look
                && !std::mem::replace(&mut failed, true)
            {
                warn!("cannot list the agents' Leases; until then none counts as gone: {problem}");
            }
            failed &= look.is_err();
            tell.send_replace(look.ok());
            sleep(INTERVAL).await;
        }
    });
    told
}

async fn list(api: &Api<Lease>) -> Result<BTreeMap<String, AgentLease>, kube::Error> {
    // As the API server's cache has it: what is a moment old will do.
    let ours = ListParams::default()
        .labels(&format!("{}={}", AGENT_LEASES.0, AGENT_LEASES.1))
        .match_any();
    let leases = api.list(&ours).await?.items.into_iter().filter_map(|lease| {
        let spec = lease.spec?;
        let seconds = u64::try_from(spec.lease_duration_seconds?).ok()?;
        let read = AgentLease {
            resource_version: lease.metadata.resource_version.unwrap_or_default(),
            good_for: Duration::from_secs(seconds),
        };
        Some((spec.holder_identity?, read))
    });
    Ok(leases.collect())
}
