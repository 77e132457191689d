//! Calls of the control API over a plain socket.

use goodstanding::ocsp::{CertStatus, Received};
use serde_json::Value;

use super::ca::Leaf;
use super::clients;
use super::http::{self, Reply};
use super::site::Site;

/// A call, not made yet.
pub(crate) struct Call {
    port: u16,
    head: String,
    body: Vec<u8>,
}

/// A call of a site's control listener.
pub(crate) fn call(site: &Site, method: &str, path: &str) -> Call {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n", site.control);
    Call { port: site.control, head, body: Vec::new() }
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, media_type: &str, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.header("Content-Type", media_type)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().as_bytes())
    }

    /// Makes it; the reply as it came.
    pub(crate) fn send(self) -> Reply {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, self.body.len());
        http::exchange(self.port, &[head.as_bytes(), &self.body].concat()).unwrap()
    }

    /// Makes it; status and document. An error must be a problem document with the reply's status.
    pub(crate) fn made(self) -> (u16, Value) {
        let reply = self.send();
        let document: Value = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&reply.body)));
        if reply.status >= 400 {
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{document}");
            assert_eq!(document["status"], reply.status, "{document}");
            assert!(document["detail"].is_string(), "{document}");
        }
        (reply.status, document)
    }
}

/// What the OCSP endpoint says of a certificate, without waiting; none when it cannot say.
pub(crate) fn status(site: &Site, leaf: &Leaf) -> Option<CertStatus> {
    let answer = clients::answer(site.ocsp, &site.ca, leaf);
    Received::decode(&answer).ok().map(|answer| answer.responses[0].status)
}
