//! The control listener: health, metrics and a page for people; the API is merged in beside them.
//!
//! It is for operators and their machines, on a socket of its own, and only on loopback: TLS and
//! credentials are what would let it leave the machine.

pub mod health;
mod page;
pub mod problem;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use health::{Check, Readiness};
pub use problem::Problem;

use super::listen::{ListenError, listen};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Connections served at once. Operators, a scraper and a load balancer need few.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take over the head of a request, and stay idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the control listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where; loopback only.
    pub listen: SocketAddr,
    /// How long requests under way may take after a stop.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8890)), drain: Duration::from_secs(10) }
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
        "the control listener refuses to listen on {0} (setting `control.listen`): whoever reaches it can read and change everything, and it has no TLS and no credentials on that address; use a loopback address such as 127.0.0.1:8890, and SSH or a proxy that authenticates to reach it from elsewhere"
    )]
    NotLoopback(SocketAddr),
}

/// Refuses every address that is not loopback.
///
/// # Errors
/// [`ControlError::NotLoopback`], which says what to use instead.
pub fn require_loopback(address: SocketAddr) -> Result<(), ControlError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(ControlError::NotLoopback(address)) }
}

/// What the built-in pages read.
#[derive(Clone)]
struct Sources {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    shutdown: Shutdown,
}

/// `/`, `/livez`, `/readyz`, `/metrics`, the routes of `api`, and problem documents for all else.
pub fn router(
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
    shutdown: Shutdown,
    api: Router,
) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/livez", get(health::live))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .with_state(Sources { metrics, readiness, shutdown })
        .merge(api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn ready(State(sources): State<Sources>) -> Response {
    health::report(sources.readiness.as_ref(), sources.shutdown.is_stopped())
}

async fn render_metrics(State(sources): State<Sources>) -> Response {
    match sources.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a metric family cannot be written");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                .detail("A metric family cannot be written; the log says more.")
                .into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND)
        .detail(format!("There is nothing at {}; / lists what there is.", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED)
        .detail(format!("{} does not take {method}; the Allow header says what it takes.", uri.path()))
}

/// The control listener, listening.
pub struct Control {
    listener: TcpListener,
    drain: Duration,
}

impl Control {
    /// Opens the listening socket.
    ///
    /// # Errors
    /// When the address is not loopback, or cannot be bound.
    pub fn bind(settings: &Settings) -> Result<Self, ControlError> {
        require_loopback(settings.listen)?;
        let listener = listen(settings.listen, "control.listen")?;
        Ok(Self { listener, drain: settings.drain })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
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
                Ok((stream, place)) => {
                    let service = TowerToHyperService::new(router.clone());
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_TIMEOUT)
                        .serve_connection(TokioIo::new(stream), service);
                    let connection = graceful.watch(connection);
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a control connection ended in an error");
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

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}
