//! The control listener's socket: plain or TLS, a bounded number of connections, a drain.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::access::{Credentials, CredentialsError, Gate, Peer};
use super::tls::{self, TlsError};
use crate::server::listen::{ListenError, listen};
use crate::shutdown::Shutdown;
use crate::store::audit::Digest;

/// Connections served at once. Operators, a scraper and a load balancer need few.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take over its TLS handshake, over the head of a request, and stay idle
/// between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the control listener listens, and who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where. An address that is not loopback needs `tls` and `credentials_file`.
    pub listen: SocketAddr,
    /// How long requests under way may take after a stop.
    pub drain: Duration,
    /// TLS; plain HTTP without it.
    pub tls: Option<tls::Settings>,
    /// Hashed tokens with their scopes; without it everybody on the machine may do everything.
    pub credentials_file: Option<PathBuf>,
    /// Whether `/metrics` needs no token.
    pub open_metrics: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8890)),
            drain: Duration::from_secs(10),
            tls: None,
            credentials_file: None,
            open_metrics: false,
        }
    }
}

/// The control listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The listening socket could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address can be reached from other machines.
    #[error(
        "the control listener refuses to listen on {address} (setting `control.listen`): whoever reaches it can read and change everything, and {missing}; set that too, or use a loopback address such as 127.0.0.1:8890"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
        /// What there is not.
        missing: &'static str,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system gives no random numbers.
    #[error("the control listener's keys cannot be made: {0}")]
    Random(String),
}

impl Settings {
    /// Refuses an address that other machines reach, unless TLS and credentials are set.
    ///
    /// # Errors
    /// [`ControlError::NotLoopback`], which says what is missing.
    pub fn check(&self) -> Result<(), ControlError> {
        let missing = match (&self.tls, &self.credentials_file) {
            _ if self.listen.ip().to_canonical().is_loopback() => return Ok(()),
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(_)) => "it has no TLS (`control.tls_certificate` and `control.tls_key`)",
            (Some(_), None) => "it has no credentials (`control.credentials_file`)",
            (None, None) => {
                "it has no TLS (`control.tls_certificate` and `control.tls_key`) and no credentials (`control.credentials_file`)"
            }
        };
        Err(ControlError::NotLoopback { address: self.listen, missing })
    }

    /// Reads the credentials, where there is a file of them.
    ///
    /// # Errors
    /// [`CredentialsError`] with every error in it.
    pub fn credentials(&self) -> Result<Option<Credentials>, CredentialsError> {
        self.credentials_file.as_deref().map(Credentials::load).transpose()
    }
}

/// What a reload can change of a listener that listens: its certificate and its credentials.
#[derive(Clone, Debug)]
pub struct Access {
    /// Who may call.
    pub gate: Arc<Gate>,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
}

impl Access {
    /// Reads certificate, key and credentials anew, then puts all of them in force.
    ///
    /// # Errors
    /// [`ControlError`] for what cannot be read; all stays as it was then.
    pub fn reload(&self, settings: &Settings) -> Result<(), ControlError> {
        settings.check()?;
        let credentials = settings.credentials()?;
        let config = settings.tls.as_ref().map(tls::Settings::load).transpose()?;
        if let (Some(tls), Some(config)) = (&self.tls, config) {
            tls.store(config);
        }
        // Whether tokens are asked for at all is decided at the start only: no slip in a file of
        // settings may open a listener that was guarded.
        if !self.gate.is_open() && credentials.is_some() {
            self.gate.replace(credentials);
        }
        Ok(())
    }
}

/// The control listener, listening.
pub struct Control {
    listener: TcpListener,
    drain: Duration,
    access: Access,
}

impl Control {
    /// Reads certificate, key and credentials, and opens the listening socket.
    ///
    /// # Errors
    /// When the address may not be listened on as the settings are, cannot be bound, or a file cannot
    /// be used.
    pub fn bind(settings: &Settings) -> Result<Self, ControlError> {
        settings.check()?;
        let gate = Gate::new(settings.credentials()?, settings.open_metrics).map_err(ControlError::Random)?;
        let tls = settings.tls.as_ref().map(tls::Settings::load).transpose()?;
        if gate.is_open() {
            tracing::warn!(
                listen = %settings.listen,
                "the control listener has no credentials: everybody on this machine can read and change everything; set control.credentials_file to change that"
            );
        }
        let listener = listen(settings.listen, "control.listen")?;
        let tls = tls.map(|config| Arc::new(ArcSwap::new(config)));
        Ok(Self { listener, drain: settings.drain, access: Access { gate: Arc::new(gate), tls } })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Who may call, and the way to change it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Serves `router` until `shutdown` stops it, then finishes what is under way. Returns whether all of it
    /// ended within the drain time.
    pub async fn serve(self, router: Router, shutdown: Shutdown) -> bool {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.stopped() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, address, place)) => {
                    let (router, watcher) = (router.clone(), graceful.watcher());
                    let tls = self.access.tls.as_ref().map(|config| TlsAcceptor::from(config.load_full()));
                    tokio::spawn(async move {
                        let _place = place;
                        match tls {
                            None => {
                                let peer = Peer { address, certificate: None };
                                converse(stream, peer, router, watcher).await;
                            }
                            Some(acceptor) => encrypted(acceptor, stream, address, router, watcher).await,
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections on the control listener; trying again: raise the limit on open files (`LimitNOFILE`, `ulimit -n`)");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        tokio::time::timeout(self.drain, graceful.shutdown()).await.is_ok()
    }
}

/// A connection with TLS.
async fn encrypted(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    match tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(|der| Digest::plain(der).to_string().into());
            converse(stream, Peer { address, certificate }, router, watcher).await;
        }
        Ok(Err(error)) if tls::is_ordinary(&error) => {
            tracing::debug!(%address, %error, "a TLS handshake was broken off");
        }
        Ok(Err(error)) => {
            tracing::warn!(%address, %error, "a TLS handshake with the control listener failed");
        }
        Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
    }
}

/// Serves the requests of one connection.
async fn converse<S>(stream: S, peer: Peer, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a control connection ended in an error");
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}
