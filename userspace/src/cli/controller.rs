//! `weir controller`.

use super::serve::{MetricsAddress, host_name, start_log};
use crate::controller::{self, Settings};
use anyhow::Context;
use clap::Args;
use weir_core::model::Rules;

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
    /// The spec.loadBalancerClass of Services that are Weir's without an annotation.
    #[arg(long, value_name = "NAME", default_value = "openelb")]
    class: String,
    /// Give addresses to Services that name no class and have no annotation, too.
    #[arg(long)]
    adopt_all: bool,
    /// Take addresses of the default Eip when those bound to a Service's namespace are full.
    #[arg(long)]
    fall_back_to_default: bool,
    /// Let Services keep what they have of an Eip that is being deleted; it is gone when none has anything of it.
    #[arg(long)]
    hold_eips_in_use: bool,
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
            rules: Rules {
                class: self.class,
                adopt_all: self.adopt_all,
                fall_back_to_default: self.fall_back_to_default,
                hold_eips_in_use: self.hold_eips_in_use,
            },
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
