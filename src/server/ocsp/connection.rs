//! One client's connection: ordinary requests are answered by `direct`, the rest by hyper, and a single lazy
//! timer bounds every wait.
//!
//! hyper's own header timeout makes a timer for each request. Here the phases of a connection are noted in
//! a few atomics; the timer is touched only when it fires or a deadline comes nearer, so a busy keep-alive
//! connection costs no timer work at all.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::Shared;
use super::direct::{Direct, Step};
use super::service;
use crate::responder::Respond;

/// How much of a refused body is read away, so that the refusal reaches a client that is still sending.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);
/// While draining, how long a connection without a request may still begin one.
const LAST_CALL: Duration = Duration::from_millis(100);
/// A moment that the driver has not noted yet.
const UNNOTED: u64 = 0;

/// What a connection is waiting in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Between requests.
    Idle = 0,
    /// Some octets of a request came, its head is not complete.
    Head = 1,
    /// The head is there, the body is not.
    Body = 2,
    /// The answer is being made.
    Answer = 3,
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// No request came.
    Idle,
    /// The head of a request did not come to its end.
    Head,
    /// Its body did not.
    Body,
    /// The answer took too long to make.
    Answer,
    /// The client does not read its answers.
    Write,
    /// The drain time ran out.
    Drain,
}

impl Cut {
    /// The label in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "head",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Write => "write",
            Self::Drain => "drain",
        }
    }
}

/// What the socket, the service and the driver of one connection tell each other. All three run in one
/// task, so the atomics only satisfy `Send` and never contend. Moments are [`Shared::nanos`].
#[derive(Debug)]
pub(super) struct Watch {
    phase: AtomicU8,
    since: AtomicU64,
    write_blocked: AtomicBool,
    expired: AtomicBool,
    unread_body: AtomicBool,
}

impl Watch {
    fn new(now: u64) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(now),
            write_blocked: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            unread_body: AtomicBool::new(false),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Body,
            _ => Phase::Answer,
        }
    }

    fn enter(&self, phase: Phase, since: u64) {
        self.phase.store(phase as u8, Relaxed);
        self.since.store(since, Relaxed);
    }

    /// Whether the client takes no more of its answers for now.
    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
    }

    /// The service has a request; its answer is being made since `now`.
    pub(super) fn answering(&self, now: u64) {
        self.enter(Phase::Answer, now);
        self.expired.store(false, Relaxed);
    }

    /// The service waits for more of the body.
    pub(super) fn wants_body(&self) {
        if self.phase() != Phase::Body {
            self.enter(Phase::Body, UNNOTED);
        }
    }

    /// The service handed its answer over at `now`.
    pub(super) fn answered(&self, now: u64) {
        self.enter(Phase::Idle, now);
    }

    /// Whether the wait of the present phase has run out: the service answers with an error then.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    /// The body was refused before its end.
    pub(super) fn leave_body_unread(&self) {
        self.unread_body.store(true, Relaxed);
    }

    /// When the present wait ends, and how; `now` is asked for only when the phase is new.
    fn deadline<R>(&self, shared: &Shared<R>, now: impl FnOnce() -> u64) -> (u64, Cut) {
        let mut since = self.since.load(Relaxed);
        if since == UNNOTED {
            since = now();
            self.since.store(since, Relaxed);
        }
        let patience = &shared.settings.patience;
        let (wait, cut) = match self.phase() {
            _ if self.write_blocked.load(Relaxed) => (patience.write, Cut::Write),
            Phase::Idle if shared.pressed() => (patience.idle_when_crowded.min(patience.idle), Cut::Idle),
            Phase::Idle => (patience.idle, Cut::Idle),
            Phase::Head => (patience.head, Cut::Head),
            Phase::Body => (patience.body, Cut::Body),
            Phase::Answer => (patience.answer, Cut::Answer),
        };
        let own = since.saturating_add(nanos(wait));
        let Some(drain) = shared.drain() else { return (own, cut) };
        let last_call = since.max(drain.began).saturating_add(nanos(LAST_CALL));
        match cut {
            Cut::Idle => (own.min(last_call).min(drain.ends), Cut::Idle),
            _ if drain.ends < own => (drain.ends, Cut::Drain),
            _ => (own, cut),
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The socket, noting when a request begins and when the client stops reading.
struct Wire {
    stream: TcpStream,
    /// What was read before hyper took over.
    first: Bytes,
    watch: Arc<Watch>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.watch.phase() == Phase::Idle {
            self.watch.enter(Phase::Head, UNNOTED);
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if polled.is_pending() {
            self.watch.write_blocked.store(true, Relaxed);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if polled.is_pending() {
            self.watch.write_blocked.store(true, Relaxed);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket only once everything it had to say is written: a trickle is no progress.
        self.watch.write_blocked.store(false, Relaxed);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The protocol settings every connection shares.
pub(super) fn protocol(read_buffer: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // A client that has sent its request may close its half: it still gets its answer.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(read_buffer);
    builder
}

/// Serves one connection to its end: directly as long as its requests are ordinary, from the first other
/// one on with hyper.
pub(super) async fn serve<R: Respond>(shared: Arc<Shared<R>>, mut stream: TcpStream) {
    let watch = Arc::new(Watch::new(shared.nanos()));
    let mut timer = Timer::new();
    let mut draining = pin!(shared.drain_begins.cancelled());
    let mut listening = false;
    let mut direct = Direct::default();
    let step = poll_fn(|cx| {
        if !listening {
            // Polled once: it leaves this task's waker, and from then on `shared.drain()` tells.
            listening = true;
            let _ = draining.as_mut().poll(cx);
        }
        match direct.poll(cx, &shared, &watch, &mut stream) {
            Step::Wait => {}
            step => return Poll::Ready(Ok(step)),
        }
        let (deadline, cut) = watch.deadline(&shared, || shared.nanos());
        if timer.due(cx, &shared, deadline, cut) { Poll::Ready(Err(cut)) } else { Poll::Pending }
    })
    .await;
    match step {
        Ok(Step::HandOver(first)) => {
            shared.metrics.handed_over.inc();
            // On the heap: few connections come to this, and what hyper needs is large.
            Box::pin(serve_with_hyper(&shared, watch, timer, stream, first)).await;
        }
        Ok(Step::Wait | Step::Closed) => {}
        Err(cut) => count_cut(&shared, cut),
    }
}

fn count_cut<R>(shared: &Shared<R>, cut: Cut) {
    shared.metrics.cut(cut);
    if cut == Cut::Drain {
        shared.cut_by_drain.fetch_add(1, Relaxed);
    }
    tracing::debug!(waiting_in = cut.name(), "a connection was cut");
}

/// Goes on with a connection of which `first` was read and not answered.
async fn serve_with_hyper<R: Respond>(
    shared: &Arc<Shared<R>>,
    watch: Arc<Watch>,
    mut timer: Timer,
    stream: TcpStream,
    first: Bytes,
) {
    watch.enter(Phase::Head, UNNOTED);
    let wire = TokioIo::new(Wire { stream, first, watch: Arc::clone(&watch) });
    let service = {
        let (shared, watch) = (Arc::clone(shared), Arc::clone(&watch));
        service_fn(move |request| service::handle(Arc::clone(&shared), Arc::clone(&watch), request))
    };
    let mut connection = shared.protocol.serve_connection(wire, service);
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let (deadline, cut) = watch.deadline(shared, || shared.nanos());
            if !timer.due(cx, shared, deadline, cut) {
                return Poll::Pending;
            }
            match cut {
                // The service is waiting: it looks at `expired` when polled, and answers.
                Cut::Body | Cut::Answer if !watch.expired() => watch.expired.store(true, Relaxed),
                _ => return Poll::Ready(Err(cut)),
            }
        }
    })
    .await;
    let unread = match &end {
        Ok(done) => done.as_ref().is_err_and(hyper::Error::is_parse) || watch.unread_body.load(Relaxed),
        Err(_) => false,
    };
    let stream = connection.into_parts().io.into_inner().stream;
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            service::count_refusal(&shared.metrics, &error);
            tracing::debug!(%error, "a connection ended in an error");
        }
        Err(cut) => {
            count_cut(shared, cut);
            if cut == Cut::Head {
                service::tell_timeout(&shared.metrics, &stream);
            }
        }
    }
    if unread {
        linger(stream).await;
    }
}

/// The one timer of a connection. It may fire early and be set again; it is never late.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: u64,
    registered: bool,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: u64::MAX, registered: false }
    }

    /// Whether `deadline` has passed; if not, this task is woken when it has, or before.
    fn due<R>(&mut self, cx: &mut Context<'_>, shared: &Shared<R>, deadline: u64, cut: Cut) -> bool {
        if deadline < self.armed {
            self.arm(shared, deadline, cut);
        }
        while !self.registered || self.sleep.is_elapsed() {
            if self.sleep.as_mut().poll(cx).is_pending() {
                self.registered = true;
                break;
            }
            if shared.nanos() >= deadline {
                self.armed = u64::MAX;
                return true;
            }
            self.arm(shared, deadline, cut);
        }
        false
    }

    fn arm<R>(&mut self, shared: &Shared<R>, deadline: u64, cut: Cut) {
        // An idle connection looks up now and then, for when it gets crowded its patience is shorter.
        let look_up = match cut {
            Cut::Idle => shared.nanos().saturating_add(nanos(shared.settings.patience.idle_when_crowded)),
            _ => u64::MAX,
        };
        self.armed = deadline.min(look_up);
        self.registered = false;
        self.sleep.as_mut().reset(shared.epoch + Duration::from_nanos(self.armed));
    }
}

/// Reads away what the client still sends: closing on unread octets would reset the connection, and the
/// answer could be lost with it.
async fn linger(mut stream: TcpStream) {
    let read_away = async {
        // On the heap: an array would be part of every connection's task.
        let mut buffer = vec![0; 4096];
        let mut left = LINGER_BYTES;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // Running out of time only means that the client is cut after all.
    let _ = tokio::time::timeout(LINGER, read_away).await;
}
