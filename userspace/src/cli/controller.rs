//! `weir controller`.

use super::serve::{MetricsAddress, host_name, start_log};
use crate::controller::{self, Settings};
use anyhow::Context;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Controller {
    /// Namespace of the Lease.
    #[arg(long, value_name = "NAME", env = "OPENELB_NAMESPACE", default_value = "weir-system")]
    namespace: String,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "weir-controller")]
    lease: String,
    /// Name among those that would lead; by default the host name, which for a pod is its own.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Where to serve /metrics, /healthz and /readyz; `off` serves nothing.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:9471")]
    metrics: MetricsAddress,
    /// What it logs: a level, or directives such as `weir=debug,warn`.
    #[arg(long, value_name = "FILTER", env = "WEIR_LOG", default_value = "info")]
    log_level: String,
}

impl Controller {
    pub(super) fn run(self) -> anyhow::Result<()> {
        start_log(&self.log_level)?;
        let identity = self.identity.map_or_else(host_name, Ok)?;
        let settings = Settings {
            identity,
            namespace: self.namespace,
            lease: self.lease,
            metrics: self.metrics.0,
        };
        // The election must not wait for a plan.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(controller::run(settings))?;
        Ok(())
    }
}
