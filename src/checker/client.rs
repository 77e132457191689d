//! The HTTP side of a check: one connection a request, exactly the octets asked for.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST};
use hyper::http::response::Parts;
use hyper::{Method, Request, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long connecting and answering may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The largest answer read.
const MAX_OCTETS: usize = 1 << 20;

/// The type of requests (RFC 6960 appendix A.1).
const REQUEST_TYPE: &str = "application/ocsp-request";

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) head: Parts,
    pub(super) body: Bytes,
}

impl Reply {
    /// A header's value as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The directives of Cache-Control.
    pub(super) fn directives(&self) -> Vec<&str> {
        self.header("cache-control").unwrap_or_default().split(',').map(str::trim).collect()
    }
}

/// A request over HTTP.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    version: Version,
    /// What follows the URL's path, sent as it is.
    rest: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Ask {
    fn new(method: Method, rest: String, body: Bytes) -> Self {
        Self { method, version: Version::HTTP_11, rest, headers: Vec::new(), body }
    }

    /// POST, as RFC 6960 appendix A.1 has it.
    pub(super) fn post(request: &[u8]) -> Self {
        Self::post_as(request, Some(REQUEST_TYPE))
    }

    /// POST with a Content-Type of its own, or none.
    pub(super) fn post_as(request: &[u8], content_type: Option<&str>) -> Self {
        let ask = Self::new(Method::POST, String::new(), Bytes::copy_from_slice(request));
        match content_type {
            Some(content_type) => ask.with(CONTENT_TYPE.as_str(), content_type),
            None => ask,
        }
    }

    /// GET of `{path}/{rest}`.
    pub(super) fn get(rest: &str) -> Self {
        Self::new(Method::GET, format!("/{rest}"), Bytes::new())
    }

    /// With a header.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With another method.
    pub(super) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// In HTTP/1.0.
    pub(super) fn http_1_0(mut self) -> Self {
        self.version = Version::HTTP_10;
        self
    }
}

/// The responder being checked.
#[derive(Clone, Debug)]
pub(super) struct Target {
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// From an http URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{url:?}: OCSP is served over plain HTTP; give an http:// URL"));
        }
        let host = uri.host().ok_or_else(|| format!("{url:?} names no host"))?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Asks, and waits for the whole answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Reply, String> {
        match tokio::time::timeout(PATIENCE, self.exchange(ask)).await {
            Ok(reply) => reply,
            Err(_) => Err(format!("no answer from {}:{} within {PATIENCE:?}", self.host, self.port)),
        }
    }

    async fn exchange(&self, ask: Ask) -> Result<Reply, String> {
        let place = format!("{}:{}", self.host, self.port);
        let path = format!("{}{}", self.path, ask.rest);
        let path = if path.is_empty() { "/" } else { &path };
        let mut request = Request::builder()
            .method(ask.method)
            .version(ask.version)
            .uri(path)
            .header(HOST, &place)
            .header(CONNECTION, "close")
            .header(ACCEPT, "application/ocsp-response");
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        // Made before connecting: some responders do not survive a connection without a request.
        let request = request.body(Full::new(ask.body));
        let request = request.map_err(|error| format!("cannot ask for {path}: {error}"))?;
        let stream = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port))
            .await
            .map_err(|error| format!("cannot connect to {place}: {error}"))?;
        let failed = |error: hyper::Error| format!("{place}: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
            let body = Limited::new(body, MAX_OCTETS).collect().await;
            let body = body.map_err(|error| format!("{place}: the answer broke off: {error}"))?.to_bytes();
            Ok(Reply { head, body })
        };
        tokio::pin!(connection, answer);
        // The connection may end with the last octet of the answer, before the answer is put together.
        tokio::select! {
            biased;
            reply = &mut answer => reply,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(failed(error)),
            },
        }
    }
}
