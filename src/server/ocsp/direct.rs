//! The ordinary request, answered without hyper: a GET or POST that came whole, and whose answer is ready.
//!
//! That is nearly every request to an OCSP responder, and hyper's share of one (a map of headers, a body
//! as a stream, a service as a future) costs more than everything else in user space. Whatever is not
//! ordinary goes to hyper, untouched, with the connection: a request in pieces, HEAD, HTTP/1.0, chunks,
//! `Expect`, an error of HTTP, an answer that has to be waited for. So nothing is judged here that hyper
//! would judge otherwise: what decides where a request ends is either plain, or not decided here.
//!
//! A connection that waits holds no buffer: each thread reads and writes in its own.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Watch;
use super::headers::{self, CacheText, DATE};
use super::{Shared, conditional, path, service};
use crate::clock::UnixTime;
use crate::responder::{Answer, Outcome, Respond};

/// What one read takes at the most. A request that is longer is hyper's.
const READ: usize = 16 * 1024;
/// Header fields of an ordinary request, at the most.
const FIELDS: usize = 32;
/// Of requests that came in one piece, so many octets are answered in one.
const ANSWERS: usize = 64 * 1024;

/// How the direct part of a connection goes on.
pub(super) enum Step {
    /// Something has to be waited for.
    Wait,
    /// The connection is at its end.
    Closed,
    /// hyper goes on, with these octets that were read.
    HandOver(Bytes),
}

/// What a thread works in, from one request to the next.
struct Desk {
    read: Box<[u8]>,
    /// An OCSPRequest out of a path.
    der: Vec<u8>,
    out: Vec<u8>,
    date: Date,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk {
        read: vec![0; READ].into(),
        der: Vec::new(),
        out: Vec::new(),
        date: Date::default(),
    });
}

/// What a connection has left to do.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// What the client has not taken yet.
    unsent: Bytes,
    then: Then,
}

/// What comes once everything is sent.
#[derive(Debug, Default)]
enum Then {
    #[default]
    Read,
    Close,
    HandOver(Bytes),
}

/// A request as it stands in what was read.
struct Plain<'r, 'h> {
    path: &'r str,
    /// The body of a POST; none for a GET.
    body: Option<&'r [u8]>,
    fields: &'h [httparse::Header<'r>],
    is_conditional: bool,
    closes: bool,
    /// Octets of it.
    length: usize,
}

impl Direct {
    /// Reads, answers and writes as far as it goes.
    pub(super) fn poll<R: Respond>(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared<R>,
        watch: &Watch,
        stream: &mut TcpStream,
    ) -> Step {
        loop {
            while !self.unsent.is_empty() {
                match Pin::new(&mut *stream).poll_write(cx, &self.unsent) {
                    Poll::Ready(Ok(0) | Err(_)) => return Step::Closed,
                    Poll::Ready(Ok(written)) => {
                        self.unsent = self.unsent.slice(written..);
                        watch.set_write_blocked(!self.unsent.is_empty());
                    }
                    Poll::Pending => {
                        watch.set_write_blocked(true);
                        return Step::Wait;
                    }
                }
            }
            match std::mem::take(&mut self.then) {
                Then::Read => {}
                Then::HandOver(octets) => return Step::HandOver(octets),
                Then::Close => {
                    // A client that is gone already makes no difference.
                    let _ = Pin::new(&mut *stream).poll_shutdown(cx);
                    return Step::Closed;
                }
            }
            let step = DESK.with_borrow_mut(|desk| self.read(cx, shared, watch, stream, desk));
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Reads once, answers what came, and writes it; none to go on.
    fn read<R: Respond>(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared<R>,
        watch: &Watch,
        stream: &mut TcpStream,
        desk: &mut Desk,
    ) -> Option<Step> {
        let mut buffer = ReadBuf::new(&mut desk.read);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return Some(Step::Wait),
            Poll::Ready(Err(_)) => return Some(Step::Closed),
            Poll::Ready(Ok(())) => {}
        }
        let length = buffer.filled().len();
        let mut rest = &desk.read[..length];
        if rest.is_empty() {
            return Some(Step::Closed);
        }
        desk.out.clear();
        while !rest.is_empty() {
            let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELDS];
            let answered = plain(rest, &mut fields, shared.settings.max_body_bytes)
                .filter(|_| desk.out.len() < ANSWERS)
                .and_then(|request| {
                    let closes = request.closes || shared.closes_after_answer();
                    answer(shared, watch, &request, closes, &mut desk.der, &mut desk.date, &mut desk.out)?;
                    Some((request.length, closes))
                });
            match answered {
                Some((_, true)) => {
                    self.then = Then::Close;
                    break;
                }
                Some((length, false)) => rest = &rest[length..],
                None => {
                    self.then = Then::HandOver(Bytes::copy_from_slice(rest));
                    break;
                }
            }
        }
        if desk.out.is_empty() {
            return None;
        }
        let written = match Pin::new(&mut *stream).poll_write(cx, &desk.out) {
            Poll::Ready(Ok(0) | Err(_)) => return Some(Step::Closed),
            Poll::Ready(Ok(written)) => written,
            Poll::Pending => 0,
        };
        if written < desk.out.len() {
            watch.set_write_blocked(true);
            self.unsent = Bytes::copy_from_slice(&desk.out[written..]);
        }
        None
    }
}

/// The request that `octets` begin with, if it is an ordinary one and whole.
fn plain<'r, 'h>(
    octets: &'r [u8],
    fields: &'h mut [std::mem::MaybeUninit<httparse::Header<'r>>],
    longest_body: usize,
) -> Option<Plain<'r, 'h>> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(octets, fields).ok()?;
    let httparse::Status::Complete(head) = parsed else { return None };
    let (method, target) = (request.method?, request.path?);
    let fields: &'h [httparse::Header<'r>] = request.headers;
    if request.version != Some(1) || !target.starts_with('/') {
        return None;
    }
    let mut body = None;
    let (mut closes, mut is_conditional) = (false, false);
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            14 if is("content-length") => {
                if body.is_some() {
                    return None;
                }
                body = Some(content_length(field.value)?);
            }
            10 if is("connection") => {
                if field.value.eq_ignore_ascii_case(b"close") {
                    closes = true;
                } else if !field.value.eq_ignore_ascii_case(b"keep-alive") {
                    return None;
                }
            }
            13 if is("if-none-match") => is_conditional = true,
            17 if is("if-modified-since") => is_conditional = true,
            17 if is("transfer-encoding") => return None,
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            _ => {}
        }
    }
    let body = match (method, body) {
        ("GET", None) => None,
        ("POST", Some(length)) if length <= longest_body => Some(octets[head..].get(..length)?),
        _ => return None,
    };
    let length = head + body.map_or(0, <[u8]>::len);
    Some(Plain { path: target, body, fields, is_conditional, closes, length })
}

/// Writes the answer to a request; none, and nothing written, where hyper has to see to it.
fn answer<R: Respond>(
    shared: &Shared<R>,
    watch: &Watch,
    request: &Plain<'_, '_>,
    closes: bool,
    der: &mut Vec<u8>,
    date: &mut Date,
    out: &mut Vec<u8>,
) -> Option<()> {
    let began = shared.nanos();
    let rest = path::locate(request.path, &shared.settings.paths)?;
    let asked = match request.body {
        // That of a POST is not looked into, so it must be no more than a path.
        Some(body) => request.path.bytes().all(path::is_plain).then_some(body)?,
        // What is no base64 may be a query, or not even a path.
        None if rest.is_empty() || request.path.len() > shared.settings.max_uri_bytes => return None,
        None => path::decode_into(rest, der).map(|()| &der[..])?,
    };
    let answer = shared.responder.respond_at_once(asked)?;
    let now = shared.nanos();
    let method = if request.body.is_some() { Method::POST } else { Method::GET };
    shared.metrics.answered(&method, &answer, Duration::from_nanos(now.saturating_sub(began)));
    write(shared, request, &answer, closes, date, out);
    watch.answered(now);
    Some(())
}

/// Writes what hyper would have written: the same fields in the same order.
fn write<R>(
    shared: &Shared<R>,
    request: &Plain<'_, '_>,
    answer: &Answer,
    closes: bool,
    date: &mut Date,
    out: &mut Vec<u8>,
) {
    let now = shared.clock.now();
    let mut put = |part: &[u8]| out.extend_from_slice(part);
    let mut body = &answer.body[..];
    if let Some(facts) = &answer.cache {
        let cache = CacheText::new(facts, now);
        let held = request.body.is_none() && request.is_conditional && {
            let values = |name: &'static str| {
                let of = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
                request.fields.iter().filter(of).map(|field| field.value)
            };
            let (tags, dates) = (values("if-none-match"), values("if-modified-since"));
            conditional::holds(tags, dates, cache.etag(), facts.this_update)
        };
        put(if held { b"HTTP/1.1 304 Not Modified\r\netag: " } else { b"HTTP/1.1 200 OK\r\netag: " });
        put(cache.etag());
        put(b"\r\nexpires: ");
        put(cache.expires());
        put(b"\r\ncache-control: ");
        put(cache.cache_control());
        put(b"\r\nlast-modified: ");
        put(cache.last_modified());
        if held {
            shared.metrics.not_modified();
            body = &[];
        } else {
            put(b"\r\ncontent-type: application/ocsp-response");
        }
    } else {
        put(b"HTTP/1.1 200 OK\r\ncontent-type: application/ocsp-response\r\ncache-control: ");
        put(service::uncached(answer.outcome).as_bytes());
        if answer.outcome == Outcome::TryLater {
            put(b"\r\nretry-after: ");
            put(service::SOON.as_bytes());
        }
    }
    if closes {
        put(b"\r\nconnection: close");
    }
    if !body.is_empty() {
        put(b"\r\ncontent-length: ");
        put(headers::decimal(body.len() as u64, &mut [0; headers::DIGITS]));
    }
    put(b"\r\ndate: ");
    put(date.at(now));
    put(b"\r\n\r\n");
    put(body);
}

/// The Date of this second.
struct Date {
    text: [u8; DATE],
    of: UnixTime,
}

impl Default for Date {
    fn default() -> Self {
        Self { text: headers::date(UnixTime::EPOCH), of: UnixTime::EPOCH }
    }
}

impl Date {
    fn at(&mut self, now: UnixTime) -> &[u8] {
        if now != self.of {
            *self = Self { text: headers::date(now), of: now };
        }
        &self.text
    }
}

/// A Content-Length in its only form: digits, and few of them.
fn content_length(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 7 {
        return None;
    }
    text.iter()
        .try_fold(0, |number, &digit| digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0')))
}
