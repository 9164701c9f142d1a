//! `weir migrate check` and `weir cleanup`.

use crate::{status::Format, takeover};
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what would be otherwise if Weir took over from OpenELB in the cluster that KUBECONFIG leads to. Changes nothing; fails if
    /// something is to be seen to before.
    Check {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

impl Migrate {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let What::Check { output } = self.what;
        takeover::run(takeover::check(output))
    }
}

#[derive(Debug, Args)]
pub(super) struct Cleanup {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Namespace of the controllers' Lease.
    #[arg(long, value_name = "NAME", env = "OPENELB_NAMESPACE", default_value = "weir-system")]
    namespace: String,
    /// Name of the controllers' Lease.
    #[arg(long, value_name = "NAME", default_value = "weir-controller")]
    lease: String,
    /// For how long the API server may take to answer one request, in seconds.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    timeout: u16,
}

impl Cleanup {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let leaving = takeover::Leaving {
            dry_run: self.dry_run,
            namespace: self.namespace,
            lease: self.lease,
            timeout: Duration::from_secs(self.timeout.into()),
        };
        takeover::run(takeover::cleanup(&leaving))
    }
}
