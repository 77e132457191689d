//! The HTTP side of a check: one connection a request, exactly the octets asked for.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::http::response::Parts;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long connecting and answering may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The largest answer read.
const MAX_OCTETS: usize = 1 << 20;

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

    /// POST, as RFC 6960 appendix A.1 has it.
    pub(super) async fn post(&self, request: &[u8]) -> Result<Reply, String> {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        self.send(Method::POST, path, Full::new(Bytes::copy_from_slice(request))).await
    }

    /// GET of `{path}/{rest}`, `rest` sent as it is.
    pub(super) async fn get(&self, rest: &str) -> Result<Reply, String> {
        self.send(Method::GET, &format!("{}/{rest}", self.path), Full::default()).await
    }

    async fn send(&self, method: Method, path: &str, body: Full<Bytes>) -> Result<Reply, String> {
        let exchange = self.exchange(method, path, body);
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(reply) => reply,
            Err(_) => Err(format!("no answer from {}:{} within {PATIENCE:?}", self.host, self.port)),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Full<Bytes>) -> Result<Reply, String> {
        let place = format!("{}:{}", self.host, self.port);
        let stream = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port))
            .await
            .map_err(|error| format!("cannot connect to {place}: {error}"))?;
        let failed = |error: hyper::Error| format!("{place}: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut request = Request::builder().method(&method).uri(path).header(HOST, &place);
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/ocsp-request");
        }
        let request = request.header(ACCEPT, "application/ocsp-response").body(body);
        let request = request.map_err(|error| format!("cannot ask for {path}: {error}"))?;
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
            let body = Limited::new(body, MAX_OCTETS).collect().await;
            let body = body.map_err(|error| format!("{place}: the answer broke off: {error}"))?.to_bytes();
            Ok(Reply { head, body })
        };
        tokio::pin!(connection);
        tokio::select! {
            reply = answer => reply,
            ended = &mut connection => Err(match ended {
                Ok(()) => format!("{place} closed the connection without an answer"),
                Err(error) => failed(error),
            }),
        }
    }
}
