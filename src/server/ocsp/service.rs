//! One request: from its head and body to the response, conformance table H and L9–L12.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, EXPIRES, HeaderMap, HeaderValue, LAST_MODIFIED,
    RETRY_AFTER,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;

use super::connection::Watch;
use super::headers::CacheHeaders;
use super::metrics::EndpointMetrics;
use super::{Shared, conditional, path};
use crate::responder::{Answer, Outcome, Respond};

/// OCSP errors carry a status and nothing else (RFC 6960 section 4.2.1).
const MALFORMED_REQUEST: &[u8] = &[0x30, 0x03, 0x0a, 0x01, 0x01];
const TRY_LATER: &[u8] = &[0x30, 0x03, 0x0a, 0x01, 0x03];

const OCSP_RESPONSE: HeaderValue = HeaderValue::from_static("application/ocsp-response");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// Seconds after which tryLater may have passed: the live budget is refilled, the token mended.
pub(super) const SOON: HeaderValue = HeaderValue::from_static("5");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");

const GREETING: &str = "This is an OCSP responder (RFC 6960), and it is up.\n\
    Ask it with GET {path}/{base64 of an OCSPRequest} or with POST, for example:\n\
    openssl ocsp -issuer issuer.pem -cert certificate.pem -url http://this.address/\n";

/// An HTTP error and what it says. Everything that OCSP has an error for is an OCSP error in HTTP 200
/// instead (H10): clients report any other status as a transport failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NotHere,
    Method,
    Timeout,
    TooLarge,
    UriTooLong,
    BrokenBody,
}

impl Refusal {
    const fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::NotHere => (StatusCode::NOT_FOUND, "There is no OCSP responder at this path.\n"),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "An OCSP responder answers GET, HEAD and POST.\n")
            }
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive.\n"),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request is larger than any OCSP request answered here.\n",
            ),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "The request is too long for GET: use POST.\n"),
            Self::BrokenBody => (StatusCode::BAD_REQUEST, "The request body broke off or cannot be read.\n"),
        }
    }
}

/// Answers one request. Never fails: whatever is wrong is said in the response.
pub(super) async fn handle<R: Respond>(
    shared: Arc<Shared<R>>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let began = shared.nanos();
    watch.answering(began);
    let (head, body) = request.into_parts();
    let mut headers = head.headers;
    let has_body = !body.is_end_stream();
    let made = make(&shared, &watch, &head.method, &head.uri, body).await;
    let now = shared.nanos();
    let (status, body) = match made {
        Ok(Made::Answer(answer)) => {
            let took = std::time::Duration::from_nanos(now.saturating_sub(began));
            shared.metrics.answered(&head.method, &answer, took);
            write_answer(&shared, &head.method, &mut headers, answer)
        }
        Ok(Made::Greeting) => {
            headers.clear();
            headers.insert(CONTENT_TYPE, TEXT);
            headers.insert(CACHE_CONTROL, NO_STORE);
            (StatusCode::OK, Bytes::from_static(GREETING.as_bytes()))
        }
        Err(refusal) => {
            if has_body {
                watch.leave_body_unread();
            }
            write_refusal(&shared, &mut headers, refusal)
        }
    };
    if shared.closes_after_answer() {
        headers.insert(CONNECTION, CLOSE);
    }
    watch.answered(now);
    // The request's header map becomes the response's: hyper keeps it from request to request, so that in
    // the long run none is allocated.
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

enum Made {
    Answer(Answer),
    Greeting,
}

async fn make<R: Respond>(
    shared: &Shared<R>,
    watch: &Watch,
    method: &Method,
    uri: &hyper::Uri,
    body: Incoming,
) -> Result<Made, Refusal> {
    let get = match *method {
        Method::GET | Method::HEAD => true,
        Method::POST => false,
        _ => return Err(Refusal::Method),
    };
    let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if length > shared.settings.max_uri_bytes {
        return Err(Refusal::UriTooLong);
    }
    let rest = path::locate(uri.path(), &shared.settings.paths).ok_or(Refusal::NotHere)?;
    if !get {
        let body = read_body(shared, watch, body).await?;
        return Ok(Made::Answer(respond(shared, watch, &body).await));
    }
    if rest.is_empty() {
        return Ok(Made::Greeting);
    }
    Ok(Made::Answer(match path::decode(rest) {
        Some(request) => respond(shared, watch, &request).await,
        None => error_answer(MALFORMED_REQUEST, Outcome::Malformed),
    }))
}

/// Asks the responder, and answers tryLater in its place when it takes too long.
async fn respond<R: Respond>(shared: &Shared<R>, watch: &Watch, request: &[u8]) -> Answer {
    let mut answer = pin!(shared.responder.respond(request));
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Pending if watch.expired() => Poll::Ready(error_answer(TRY_LATER, Outcome::TryLater)),
        polled => polled,
    })
    .await
}

fn error_answer(der: &'static [u8], outcome: Outcome) -> Answer {
    Answer { body: Bytes::from_static(der), cache: None, outcome, is_stale: false }
}

/// The whole body. One that came in a single piece, which is nearly every one, is not copied.
async fn read_body<R>(shared: &Shared<R>, watch: &Watch, mut body: Incoming) -> Result<Bytes, Refusal> {
    let limit = shared.settings.max_body_bytes;
    if body.size_hint().lower() > limit as u64 {
        return Err(Refusal::TooLarge);
    }
    let mut whole = Bytes::new();
    let mut pieces: Vec<u8> = Vec::new();
    let mut waited = false;
    loop {
        if body.is_end_stream() {
            break;
        }
        let frame = poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending if watch.expired() => Poll::Ready(Err(Refusal::Timeout)),
            Poll::Pending => {
                waited = true;
                watch.wants_body();
                Poll::Pending
            }
        })
        .await?;
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else { return Err(Refusal::BrokenBody) };
        let Ok(piece) = frame.into_data() else { continue }; // trailers say nothing to us
        if whole.len() + pieces.len() + piece.len() > limit {
            return Err(Refusal::TooLarge);
        }
        if whole.is_empty() && pieces.is_empty() {
            whole = piece;
        } else {
            pieces.extend_from_slice(&std::mem::take(&mut whole));
            pieces.extend_from_slice(&piece);
        }
    }
    if waited {
        watch.answering(shared.nanos());
    }
    Ok(if pieces.is_empty() { whole } else { pieces.into() })
}

/// The Cache-Control of an answer that no cache keeps. N5: made for one client, or L12: an error.
pub(super) const fn uncached(outcome: Outcome) -> HeaderValue {
    match outcome {
        Outcome::Stored | Outcome::Live => NO_STORE,
        _ => NO_CACHE,
    }
}

/// Puts the headers of an answer in place of the request's, which are read for their conditions first.
fn write_answer<R>(
    shared: &Shared<R>,
    method: &Method,
    headers: &mut HeaderMap,
    answer: Answer,
) -> (StatusCode, Bytes) {
    let Some(facts) = answer.cache else {
        headers.clear();
        headers.insert(CONTENT_TYPE, OCSP_RESPONSE);
        headers.insert(CACHE_CONTROL, uncached(answer.outcome));
        if answer.outcome == Outcome::TryLater {
            headers.insert(RETRY_AFTER, SOON);
        }
        return (StatusCode::OK, answer.body);
    };
    let cache = CacheHeaders::new(&facts, shared.clock.now());
    let held = *method != Method::POST
        && !headers.is_empty()
        && conditional::not_modified(headers, cache.etag.as_bytes(), facts.this_update);
    headers.clear();
    headers.insert(ETAG, cache.etag);
    headers.insert(EXPIRES, cache.expires);
    headers.insert(CACHE_CONTROL, cache.cache_control);
    headers.insert(LAST_MODIFIED, cache.last_modified);
    if held {
        shared.metrics.not_modified();
        return (StatusCode::NOT_MODIFIED, Bytes::new());
    }
    headers.insert(CONTENT_TYPE, OCSP_RESPONSE);
    (StatusCode::OK, answer.body)
}

fn write_refusal<R>(shared: &Shared<R>, headers: &mut HeaderMap, refusal: Refusal) -> (StatusCode, Bytes) {
    let (status, text) = refusal.parts();
    shared.metrics.http_error(status);
    headers.clear();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(CACHE_CONTROL, NO_STORE);
    match refusal {
        Refusal::Method => {
            headers.insert(ALLOW, METHODS);
        }
        Refusal::Timeout | Refusal::TooLarge | Refusal::BrokenBody => {
            headers.insert(CONNECTION, CLOSE);
        }
        Refusal::NotHere | Refusal::UriTooLong => {}
    }
    (status, Bytes::from_static(text.as_bytes()))
}

/// Tells a client that its request took too long to arrive. hyper has nothing to say at that point, so the
/// bytes go straight to the socket; a client that cannot take them at once is cut without.
pub(super) fn tell_timeout(metrics: &EndpointMetrics, stream: &TcpStream) {
    const TIMEOUT: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\ncache-control: no-store\r\n\r\n";
    if stream.try_write(TIMEOUT).is_ok_and(|written| written == TIMEOUT.len()) {
        metrics.http_error(StatusCode::REQUEST_TIMEOUT);
    }
}

/// Counts the answers that hyper gives by itself to what it cannot read as HTTP.
pub(super) fn count_refusal(metrics: &EndpointMetrics, error: &hyper::Error) {
    if error.is_parse_too_large() {
        metrics.http_error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    } else if error.is_parse() {
        metrics.http_error(StatusCode::BAD_REQUEST);
    }
}
