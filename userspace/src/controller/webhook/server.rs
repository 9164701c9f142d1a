//! The server: TLS with the certificate of the moment, one path for each webhook.

use super::{
    ADMIT, CONVERT,
    answer::{Answering, admit, convert},
    certificates::Bundle,
};
use crate::metrics::listen;
use axum::{Router, extract::DefaultBodyLimit, routing::post, serve::Listener};
use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};
use tracing::{debug, info, warn};

/// Between one attempt to listen and the next.
const AGAIN: Duration = Duration::from_secs(5);
/// Who has not greeted by then is hung up on.
const GREETING: Duration = Duration::from_secs(10);
/// Connections that may be greeting at once.
const GREETINGS: usize = 256;
/// The largest question: the API server has all objects of a kind converted at once.
const LARGEST: usize = 64 << 20;

/// Serves for ever. An address that cannot be had is said, and tried again.
pub(super) async fn serve(address: SocketAddr, mut bundle: watch::Receiver<Option<Bundle>>, answering: Answering) {
    let resolver = Arc::new(Resolver::default());
    let config = match tls(Arc::clone(&resolver)) {
        Ok(config) => Arc::new(config),
        Err(error) => return warn!("no webhooks are served: {error}"),
    };
    // Nobody is let in before there is something to greet with.
    while !resolver.take(&bundle.borrow_and_update()) {
        if bundle.changed().await.is_err() {
            return;
        }
    }
    let router = Router::new()
        .route(ADMIT, post(admit))
        .route(CONVERT, post(convert))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(answering);
    let mut said = None;
    let listener = loop {
        match listen(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                let text = format!("cannot serve webhooks at {address}: {error}");
                if said.as_ref() != Some(&text) {
                    warn!("{text}; it is tried again; give --webhook another address, or --no-webhook");
                    said = Some(text);
                }
                sleep(AGAIN).await;
            }
        }
    };
    info!(%address, "serving webhooks");
    let mut tasks = JoinSet::new();
    let greeted = Greeted::start(&mut tasks, listener, TlsAcceptor::from(config));
    tasks.spawn(async move {
        if let Err(error) = axum::serve(greeted, router).await {
            warn!("webhooks are no longer served: {error}");
        }
    });
    while bundle.changed().await.is_ok() {
        resolver.take(&bundle.borrow_and_update());
    }
}

fn tls(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    // HTTP/1.1 alone, which is what is spoken where nothing is agreed on.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Ok(config)
}

/// The certificate of the moment.
#[derive(Debug, Default)]
struct Resolver {
    key: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Resolver {
    /// Takes another certificate, if it can be used; whether there is one now.
    fn take(&self, bundle: &Option<Bundle>) -> bool {
        let mut key = self.key.write().unwrap_or_else(PoisonError::into_inner);
        match bundle.as_ref().map(certified).transpose() {
            Ok(Some(new)) => *key = Some(Arc::new(new)),
            Ok(None) => {}
            Err(error) => warn!("the webhooks' certificate cannot be used: {error}"),
        }
        key.is_some()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn certified(bundle: &Bundle) -> Result<CertifiedKey, rustls::Error> {
    let unreadable = |error| rustls::Error::General(format!("{error}"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bundle.certificate).collect();
    let key = PrivateKeyDer::from_pem_slice(&bundle.key).map_err(unreadable)?;
    CertifiedKey::from_der(chain.map_err(unreadable)?, key, &ring::default_provider())
}

/// Connections whose greeting is over; those that take long, or fail, keep nobody waiting.
struct Greeted {
    local: io::Result<SocketAddr>,
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Greeted {
    fn start(tasks: &mut JoinSet<()>, listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let local = listener.local_addr();
        let (tell, connections) = mpsc::channel(GREETINGS);
        let room = Arc::new(Semaphore::new(GREETINGS));
        tasks.spawn(async move {
            while let Ok(place) = Arc::clone(&room).acquire_owned().await {
                let (stream, from) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of files, most likely; some will be closed.
                        debug!("cannot accept a connection: {error}");
                        sleep(AGAIN).await;
                        continue;
                    }
                };
                let (tell, greeting) = (tell.clone(), acceptor.accept(stream));
                tokio::spawn(async move {
                    match timeout(GREETING, greeting).await {
                        Ok(Ok(stream)) => drop(tell.send((stream, from)).await),
                        Ok(Err(error)) => debug!("{from} cannot be talked to: {error}"),
                        Err(_) => debug!("{from} does not greet"),
                    }
                    drop(place);
                });
            }
        });
        Self { local, connections }
    }
}

impl Listener for Greeted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}
