//! What an agent serves at `/metrics`, as a monitoring system reads it.

use super::{Node, client, wait};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};

/// Where an agent serves unless told otherwise.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9470);

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Scrapes the agent of `node`.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub fn of(node: &Node) -> Result<Self> {
        let body = get(node, "/metrics")?;
        Ok(Self {
            text: String::from_utf8(body)?,
        })
    }

    /// The sum of all samples of `name` whose labels contain each of `labels` (`reason="tunnel"`).
    ///
    /// # Errors
    /// When there is no such sample.
    pub fn sum(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let found: Vec<f64> = self
            .samples(name)
            .filter(|(of, _)| labels.iter().all(|label| of.contains(label)))
            .map(|(_, value)| value.parse().with_context(|| format!("{name}: {value}")))
            .collect::<Result<_>>()?;
        anyhow::ensure!(!found.is_empty(), "no {name} with {labels:?} in\n{}", self.text);
        Ok(found.iter().sum())
    }

    /// Labels and value of each sample of `name`.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
        })
    }
}

/// The body at `path` of the agent of `node`, which reports before it serves, so one that refuses connections is asked again.
///
/// # Errors
/// When it does not answer with 200.
pub fn get(node: &Node, path: &str) -> Result<Vec<u8>> {
    node.namespace.run(|| {
        let mut connection = wait::until("the agent's server", || client::connect(ADDRESS))?;
        client::get_on(&mut connection, path)
    })
}
