//! Clients of the API: where it is, as whom it is asked, and when a connection to it counts as dead.
//!
//! kube's own client leaves it to the kernel to find out that nothing comes back on a connection, which takes a quarter of an
//! hour, and a watch that waits for news never does. These have the kernel ask while nothing is said, and give up soon. Where
//! the API is, tokens (also those in files, which are read again each minute) and certificates are kube's part all the same.

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Builder, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
};
use std::time::Duration;
use tower::ServiceBuilder;

/// A request that is no watch and has no answer by then has none.
const ANSWER: Duration = Duration::from_secs(30);
/// A connection that is not made in this time is not made.
const CONNECT: Duration = Duration::from_secs(5);
/// The other end is dead when it has confirmed nothing for so long.
const SILENCE: Duration = Duration::from_secs(20);

/// Why the API cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Nothing says where the API server is.
    #[error(
        "cannot find out where the Kubernetes API is; set KUBECONFIG, or run in a pod that has a ServiceAccount token"
    )]
    NoConfig(#[source] kube::config::InferConfigError),
    /// What says it cannot be used.
    #[error("cannot use what is known about the Kubernetes API; check the certificates and keys of the kubeconfig")]
    BadConfig(#[source] Box<kube::Error>),
}

/// A client of the API that `KUBECONFIG`, or else the pod's ServiceAccount, leads to, and where that is. It asks once; to ask
/// again is its user's part.
///
/// # Errors
///
/// If neither says how. That the API server cannot be reached is no error.
pub async fn client() -> Result<(Client, String), KubeError> {
    let config = config().await?;
    let server = server(&config);
    Ok((connect(config, SILENCE)?, server))
}

/// The same for a command that asks a few things and ends: it asks again by itself when an API server that has just started, or
/// has much to do, says so (429, 503, 504).
///
/// # Errors
///
/// As [`client`].
pub async fn insisting_client() -> Result<(Client, String), KubeError> {
    let config = config().await?;
    let server = server(&config);
    let client = Client::try_from(config).map_err(|error| KubeError::BadConfig(error.into()))?;
    Ok((client, server))
}

/// The same for requests that are answered soon or not at all; not for watching. What has been sent and is not confirmed
/// after `silence` is given up, by the kernel too: it does not arrive later.
///
/// # Errors
///
/// As [`client`].
pub async fn writing_client(silence: Duration) -> Result<Client, KubeError> {
    let mut config = config().await?;
    config.read_timeout = Some(ANSWER);
    // Not since the last request, which may be long ago.
    config.reset_reader_on_write = true;
    connect(config, silence)
}

async fn config() -> Result<Config, KubeError> {
    let mut config = Config::infer().await.map_err(KubeError::NoConfig)?;
    config.connect_timeout = Some(CONNECT);
    Ok(config)
}

fn server(config: &Config) -> String {
    config.cluster_url.to_string().trim_end_matches('/').to_owned()
}

fn connect(config: Config, silence: Duration) -> Result<Client, KubeError> {
    let bad = |error: kube::Error| KubeError::BadConfig(error.into());
    if config.proxy_url.is_some() {
        // Which kube was built without, and says so.
        return Client::try_from(config).map_err(bad);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    // A small write that waits for the answer to another would wait for the other end's delayed acknowledgement.
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(silence / 2));
    tcp.set_keepalive_interval(Some(silence / 4));
    tcp.set_tcp_user_timeout(Some(silence));
    let tls = config.rustls_https_connector_with_connector(tcp).map_err(bad)?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(bad)?)
        .layer(config.extra_headers_layer().map_err(bad)?)
        .map_err(Box::from)
        .service(Builder::new(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
