//! `weir controller`.

use super::serve::{MetricsAddress, host_name, start_log};
use crate::controller::{self, FailurePolicy, Settings, Url, WebhookSettings};
use anyhow::Context;
use clap::Args;
use std::net::SocketAddr;
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
    /// Serve metrics by OpenELB's names, too; see docs/metrics.md.
    #[arg(long)]
    openelb_metrics: bool,
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
    /// Where to serve the webhooks that the API server asks about Eips, and for BGP objects of v1alpha1.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:9443")]
    webhook: SocketAddr,
    /// Name of the Service, in the namespace of the Lease, whose port 443 leads there.
    #[arg(long, value_name = "NAME", default_value = "weir-controller")]
    webhook_service: String,
    /// Where the API server finds the webhooks of a controller that runs outside of the cluster, instead of the Service.
    #[arg(long, value_name = "https://HOST:PORT")]
    webhook_url: Option<Url>,
    /// What becomes of writes of Eips while no controller answers: they are made, and what is wrong is said later, or refused.
    #[arg(long, value_enum, default_value_t)]
    webhook_failure_policy: FailurePolicy,
    /// Serve no webhooks, and have the API server ask none.
    #[arg(long, conflicts_with_all = ["webhook_url", "webhook_failure_policy"])]
    no_webhook: bool,
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
            metrics: self.metrics.exposure(self.openelb_metrics),
            rules: Rules {
                class: self.class,
                adopt_all: self.adopt_all,
                fall_back_to_default: self.fall_back_to_default,
                hold_eips_in_use: self.hold_eips_in_use,
            },
            webhook: (!self.no_webhook).then_some(WebhookSettings {
                address: self.webhook,
                service: self.webhook_service,
                url: self.webhook_url,
                policy: self.webhook_failure_policy,
            }),
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
