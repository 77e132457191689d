//! The public OCSP endpoint: HTTP/1, ordinary requests directly (`direct`) and the rest over hyper, in front of
//! whatever answers (`Respond`).
//!
//! What it does on the wire, beyond what CONFORMANCE.md (HTTP, lightweight profile) lays down:
//!
//! - `GET` on the bare path is answered 200 with a few lines of text: monitors ask it to see that the
//!   endpoint is up, people to see what it is. Undecodable base64 is malformedRequest, in HTTP 200.
//! - `POST` is answered whatever its Content-Type, anywhere below a configured path.
//! - A request line over [`Settings::max_uri_bytes`] gets 414; a head that does not fit
//!   [`Settings::read_buffer_bytes`] or has more than 100 fields gets 431.
//! - When [`Settings::max_connections`] are open, new ones wait (accepted or in the kernel's queue), none is
//!   refused: each answer then closes its connection, and from three quarters of the limit on, idle
//!   connections are closed after [`Patience::idle_when_crowded`].
//! - On a stop, the listeners take what the kernel has already queued and close; requests under way are
//!   finished with `Connection: close`; idle connections are closed after a last call of 0.1 s.

mod conditional;
mod connection;
mod direct;
pub mod headers;
mod metrics;
pub mod path;
mod service;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use metrics::EndpointMetrics;
pub use path::{BadPrefix, PathPrefix};

use super::listen::{ListenError, listen};
use crate::clock::{SharedClock, Stopwatch};
use crate::responder::Respond;
use crate::shutdown::Shutdown;

/// After a failed accept (no file descriptors, mostly), how long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// After a stop, how long connections are still taken from the kernel's queue.
const LAST_ACCEPTS: Duration = Duration::from_millis(20);

/// How the endpoint listens and what it puts up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Below which paths it answers; the first that fits is taken.
    pub paths: Vec<PathPrefix>,
    /// The longest request body, in octets (413 beyond).
    pub max_body_bytes: usize,
    /// The longest path and query, in octets (414 beyond).
    pub max_uri_bytes: usize,
    /// What one connection may hold of a request head, in octets: 431 beyond, at the latest at twice as
    /// much, as hyper looks only between reads. At least 8,192.
    pub read_buffer_bytes: usize,
    /// How many connections are served at once. Each needs a file descriptor and, while idle, some 2 KB;
    /// 17 KB once hyper serves it.
    pub max_connections: usize,
    /// How long each wait may take.
    pub patience: Patience,
    /// How long requests under way may take after a stop.
    pub drain: Duration,
}

/// How long the endpoint waits for a client, in each phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the next request (or the first).
    pub idle: Duration,
    /// The same while more than three quarters of the connections are taken.
    pub idle_when_crowded: Duration,
    /// From the first octet of a request to the end of its head; 408 beyond.
    pub head: Duration,
    /// For the rest of a body; 408 beyond.
    pub body: Duration,
    /// For the responder; tryLater beyond.
    pub answer: Duration,
    /// For a client to take its answers; the connection is closed beyond.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            idle_when_crowded: Duration::from_secs(5),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8889))],
            paths: vec![PathPrefix::default()],
            max_body_bytes: 10_000,
            max_uri_bytes: 16_384,
            read_buffer_bytes: 32_768,
            max_connections: 10_000,
            patience: Patience::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A listening socket could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A setting has a value that cannot work.
    #[error("the setting `{setting}` {fault}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong with it, and what would be right.
        fault: &'static str,
    },
}

/// The endpoint, listening.
pub struct Endpoint<R> {
    listeners: Vec<TcpListener>,
    shared: Arc<Shared<R>>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the drain time ran out, and were cut.
    pub cut: usize,
}

/// What all connections share.
struct Shared<R> {
    responder: Arc<R>,
    clock: SharedClock,
    metrics: EndpointMetrics,
    settings: Settings,
    protocol: http1::Builder,
    places: Arc<Semaphore>,
    drain: OnceLock<Drain>,
    drain_begins: CancellationToken,
    cut_by_drain: AtomicUsize,
    uptime: Stopwatch,
    /// The moment that `nanos` counts from, one nanosecond earlier.
    epoch: tokio::time::Instant,
}

/// The drain, in [`Shared::nanos`].
#[derive(Clone, Copy, Debug)]
struct Drain {
    began: u64,
    ends: u64,
}

impl<R> Shared<R> {
    /// Nanoseconds since the start; never 0.
    fn nanos(&self) -> u64 {
        u64::try_from(self.uptime.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }

    fn drain(&self) -> Option<Drain> {
        self.drain.get().copied()
    }

    fn begin_drain(&self) {
        let began = self.nanos();
        let patience = u64::try_from(self.settings.drain.as_nanos()).unwrap_or(u64::MAX);
        self.drain.get_or_init(|| Drain { began, ends: began.saturating_add(patience) });
        self.drain_begins.cancel();
    }

    /// Whether so many connections are open that idle ones have to go.
    fn pressed(&self) -> bool {
        self.places.available_permits() < self.settings.max_connections / 4
    }

    /// Whether the place is needed by another connection, or the process is about to stop.
    fn closes_after_answer(&self) -> bool {
        self.places.available_permits() == 0 || self.drain.get().is_some()
    }
}

impl<R: Respond> Endpoint<R> {
    /// Opens the listening sockets. Connections are queued by the kernel until [`Endpoint::serve`].
    ///
    /// # Errors
    /// When an address cannot be bound, or a setting cannot work.
    pub fn bind(
        settings: Settings,
        responder: Arc<R>,
        clock: SharedClock,
        metrics: EndpointMetrics,
    ) -> Result<Self, EndpointError> {
        settings.check()?;
        let listeners = settings
            .listen
            .iter()
            .map(|&address| listen(address, "ocsp.listen"))
            .collect::<Result<_, _>>()?;
        let shared = Shared {
            responder,
            clock,
            metrics,
            protocol: connection::protocol(settings.read_buffer_bytes),
            places: Arc::new(Semaphore::new(settings.max_connections)),
            settings,
            drain: OnceLock::new(),
            drain_begins: CancellationToken::new(),
            cut_by_drain: AtomicUsize::new(0),
            uptime: Stopwatch::start(),
            epoch: tokio::time::Instant::now(),
        };
        Ok(Self { listeners, shared: Arc::new(shared) })
    }

    /// Where it listens: the ports that were chosen for settings with port 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `shutdown` stops it, then drains. Returns once every connection is closed, at the
    /// latest when [`Settings::drain`] is over.
    pub async fn serve(self, shutdown: Shutdown) -> Drained {
        let Self { listeners, shared } = self;
        let mut loops = JoinSet::new();
        for listener in listeners {
            loops.spawn(accept_loop(Arc::clone(&shared), listener, shutdown.clone()));
        }
        shutdown.stopped().await;
        shared.begin_drain();
        while loops.join_next().await.is_some() {}
        let all = u32::try_from(shared.settings.max_connections).unwrap_or(u32::MAX);
        // Connections cut themselves when the drain ends; the moment more is for their tasks to run.
        let patience = shared.settings.drain + Duration::from_millis(500);
        let open = |shared: &Shared<R>| shared.settings.max_connections - shared.places.available_permits();
        let closed = shared.places.acquire_many(all);
        let left = match tokio::time::timeout(patience, closed).await {
            Ok(_all_places) => 0,
            Err(_elapsed) => open(&shared),
        };
        Drained { cut: shared.cut_by_drain.load(Ordering::Relaxed) + left }
    }
}

impl Settings {
    /// Checks what no type can: that there is an address, and that the limits leave room for a request.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), EndpointError> {
        let faults = [
            (
                self.listen.is_empty(),
                "ocsp.listen",
                "is empty: name at least one address, such as 127.0.0.1:8889",
            ),
            (self.paths.is_empty(), "ocsp.paths", "is empty: name at least one path; `/` is the root"),
            (
                self.max_body_bytes < 1024,
                "ocsp.max_body_bytes",
                "is too small for an OCSP request: 1024 at least",
            ),
            (
                self.max_uri_bytes < 2048,
                "ocsp.max_uri_bytes",
                "must be 2048 at least (RFC 9110 asks for 8000)",
            ),
            (
                self.read_buffer_bytes < self.max_uri_bytes.max(8192),
                "ocsp.read_buffer_bytes",
                "must be 8192 at least, and not below ocsp.max_uri_bytes",
            ),
            (
                self.max_connections == 0 || self.max_connections > 1_000_000,
                "ocsp.max_connections",
                "must be between 1 and 1000000",
            ),
        ];
        match faults.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, setting, fault)) => Err(EndpointError::Setting { setting, fault }),
            None => Ok(()),
        }
    }
}

async fn accept_loop<R: Respond>(shared: Arc<Shared<R>>, listener: TcpListener, shutdown: Shutdown) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.stopped() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => admit(&shared, stream).await,
            Err(error) => pause_accepting(&shared, &error).await,
        }
    }
    shared.begin_drain();
    // What the kernel has queued was accepted from the client's point of view.
    let end = tokio::time::Instant::now() + LAST_ACCEPTS;
    while let Ok(Ok((stream, _peer))) = tokio::time::timeout_at(end, listener.accept()).await {
        admit(&shared, stream).await;
    }
}

/// Serves a connection in a task of its own, once there is a place for it.
async fn admit<R: Respond>(shared: &Arc<Shared<R>>, stream: TcpStream) {
    let place = match Arc::clone(&shared.places).try_acquire_owned() {
        Ok(place) => place,
        Err(_none_free) => {
            shared.metrics.waited.inc();
            match wait_for_place(shared).await {
                Some(place) => place,
                None => return,
            }
        }
    };
    shared.metrics.accepted.inc();
    shared.metrics.open.inc();
    // Answers are written whole: waiting to fill a segment would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
    }
    let guard = Open { metrics: shared.metrics.clone(), _place: place };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _open = guard;
        connection::serve(shared, stream).await;
    });
}

/// A place for one more connection; `None` when none came free before a drain ended.
async fn wait_for_place<R>(shared: &Shared<R>) -> Option<OwnedSemaphorePermit> {
    let place = Arc::clone(&shared.places).acquire_owned();
    let too_late = async {
        shared.drain_begins.cancelled().await;
        tokio::time::sleep(shared.settings.drain).await;
    };
    tokio::select! {
        biased;
        place = place => place.ok(),
        () = too_late => None,
    }
}

async fn pause_accepting<R>(shared: &Shared<R>, error: &io::Error) {
    let client_left = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if client_left {
        return;
    }
    shared.metrics.accept_errors.inc();
    tracing::warn!(%error, "cannot accept connections on the OCSP endpoint; trying again: raise the limit on open files (`LimitNOFILE`, `ulimit -n`) or lower ocsp.max_connections");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Counts a connection as open for as long as its task lives, however it ends.
struct Open {
    metrics: EndpointMetrics,
    _place: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}
