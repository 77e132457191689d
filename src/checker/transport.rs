//! How it is asked: paths, methods, conditions, HTTP/1.0.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hyper::{Method, StatusCode};

use super::answers::in_path;
use super::client::{Ask, Reply};
use super::requests::{self, NOBODYS, Parameters};
use super::{Check, Seen, rules};
use crate::ocsp::{CertId, HashAlgorithm};

/// A request whose base64 has this many characters at the least (H1).
const LONG: usize = 2_048;

impl Check<'_> {
    /// The spelling of the request with the most characters that clients spell in different ways.
    fn most_special(&self) -> (CertId, Vec<u8>) {
        let variants = [HashAlgorithm::Sha256, HashAlgorithm::Sha1].into_iter().flat_map(|hash| {
            [Parameters::Null, Parameters::Absent].map(|parameters| {
                let cert_id = self.cert_id(hash);
                let request = requests::request(&[requests::cert_id(&cert_id, parameters)], &[]);
                (cert_id, request)
            })
        });
        let special = |(_, request): &(CertId, Vec<u8>)| {
            let text = STANDARD.encode(request);
            let has = |octet| usize::from(text.contains(octet));
            (has('+') + has('/') + has('='), text.matches(['+', '/']).count())
        };
        let plain = || {
            let cert_id = self.cert_id(HashAlgorithm::Sha1);
            let request = requests::request(&[requests::cert_id(&cert_id, Parameters::Null)], &[]);
            (cert_id, request)
        };
        variants.max_by_key(special).unwrap_or_else(plain)
    }

    /// Every way in which clients write a request into a path.
    pub(super) async fn paths(&mut self) {
        if self.status.is_none() || !self.book.has_passed(rules::BOTH_METHODS) {
            return;
        }
        let (cert_id, request) = self.most_special();
        let raw = STANDARD.encode(&request);
        let encoded = in_path(&request);
        let lower = raw.replace('+', "%2b").replace('/', "%2f").replace('=', "%3d");
        let spellings = [
            ("GET %2B %2F %3D", encoded.clone()),
            ("GET %2b %2f %3d", lower),
            ("GET raw base64", raw.clone()),
            ("GET //", format!("/{encoded}")),
            ("GET ///", format!("//{encoded}")),
            ("GET // raw base64", format!("/{raw}")),
        ];
        for (question, path) in spellings {
            let agrees = self.agrees(&self.ask(Ask::get(&path)).await, &cert_id);
            self.book.result(rules::PATHS, question, agrees);
        }
        let lenient = [
            ("GET base64url", URL_SAFE.encode(&request), raw.contains(['+', '/'])),
            ("GET without padding", raw.trim_end_matches('=').to_owned(), raw.ends_with('=')),
        ];
        for (question, path, differs) in lenient {
            if !differs {
                let why = "the request's base64 is spelt the same either way";
                self.book.skip(rules::BASE64, question, why);
                continue;
            }
            match self.agrees(&self.ask(Ask::get(&path)).await, &cert_id) {
                Ok(status) => self.book.hold(rules::BASE64, question, true, status),
                Err(error) => {
                    self.book.skip(rules::BASE64, question, format!("{error}; nothing asks for it"))
                }
            }
        }
        let mut padding = Vec::new();
        let long = loop {
            padding.resize(padding.len() + 64, 0x5a);
            let extension = requests::extension(NOBODYS, false, &padding);
            let request = requests::request(&[requests::cert_id(&cert_id, Parameters::Null)], &[extension]);
            if STANDARD.encode(&request).len() >= LONG {
                break request;
            }
        };
        let agrees = self.agrees(&self.ask(Ask::get(&in_path(&long))).await, &cert_id);
        self.book.result(rules::LONG_GET, "GET 2,048 characters", agrees);
    }

    /// Methods, types, conditions and versions.
    pub(super) async fn http(&mut self) {
        if self.status.is_none() {
            return;
        }
        let cert_id = self.cert_id(HashAlgorithm::Sha1);
        let request = requests::request(&[requests::cert_id(&cert_id, Parameters::Null)], &[]);
        let types = [
            ("none", None),
            ("with charset", Some("application/ocsp-request; charset=utf-8")),
            ("text/plain", Some("text/plain")),
        ];
        for (name, content_type) in types {
            let question = format!("POST, type {name}");
            match self.agrees(&self.ask(Ask::post_as(&request, content_type)).await, &cert_id) {
                Ok(status) => self.book.hold(rules::POST_TYPES, &question, true, status),
                Err(error) => {
                    self.book.skip(
                        rules::POST_TYPES,
                        &question,
                        format!("{error}; RFC 6960 A.1 asks clients for the type"),
                    );
                }
            }
        }
        for (question, ask) in [
            ("GET HTTP/1.0", Ask::get(&in_path(&request)).http_1_0()),
            ("POST HTTP/1.0", Ask::post(&request).http_1_0()),
        ] {
            let reply = self.target.ask(ask).await;
            let result = self.agrees(&Seen::read(&reply), &cert_id).and_then(|_| match &reply {
                Ok(reply) if reply.header("transfer-encoding").is_some() => Err("chunked".to_owned()),
                Ok(reply) if reply.header("content-length").is_none() => Err("no Content-Length".to_owned()),
                _ => Ok("Content-Length".to_owned()),
            });
            self.book.result(rules::HTTP_1_0, question, result);
        }
        let reply = self.target.ask(Ask::post(&request).method(Method::PUT)).await;
        match &reply {
            Ok(reply) if reply.head.status == StatusCode::METHOD_NOT_ALLOWED => {
                let allow = reply.header("allow");
                self.book.hold(rules::ALLOW, "PUT", allow.is_some(), allow.unwrap_or("405 without Allow"));
            }
            Ok(reply) if reply.head.status.is_success() => {
                self.book.hold(rules::ALLOW, "PUT", false, format!("HTTP {}", reply.head.status));
            }
            Ok(reply) => {
                self.book.skip(
                    rules::ALLOW,
                    "PUT",
                    format!("HTTP {}: refused another way", reply.head.status),
                );
            }
            Err(error) => self.book.skip(rules::ALLOW, "PUT", error.clone()),
        }
        let path = in_path(&request);
        if let Ok(get) = self.target.ask(Ask::get(&path)).await
            && get.head.status == 200
        {
            self.head(&path, &get).await;
            self.conditions(&path, &get).await;
        }
    }

    async fn head(&mut self, path: &str, get: &Reply) {
        let result = match self.target.ask(Ask::get(path).method(Method::HEAD)).await {
            Err(error) => Err(error),
            Ok(head) if head.head.status != 200 => Err(format!("HTTP {}", head.head.status)),
            Ok(head) => {
                let same = ["content-type", "content-length", "etag", "expires", "last-modified"];
                match same.into_iter().find(|name| head.header(name) != get.header(name)) {
                    Some(other) => Err(format!("{other} is {}", head.header(other).unwrap_or("left out"))),
                    None => Ok("the same".to_owned()),
                }
            }
        };
        self.book.result(rules::HEAD, "HEAD", result);
    }

    async fn conditions(&mut self, path: &str, get: &Reply) {
        let mut conditions = Vec::new();
        if let Some(etag) = get.header("etag") {
            let weak = etag.trim_start_matches("W/");
            conditions.push(("if-none-match", etag.to_owned()));
            conditions.push(("if-none-match", format!("\"x\", W/{weak}")));
            conditions.push(("if-none-match", "*".to_owned()));
        }
        if let Some(modified) = get.header("last-modified") {
            conditions.push(("if-modified-since", modified.to_owned()));
        }
        if conditions.is_empty() {
            let why = "answers have neither ETag nor Last-Modified";
            self.book.skip(rules::NOT_MODIFIED, "GET, conditional", why);
        }
        for (name, value) in conditions {
            let question = format!("{name}: {value}");
            let result = match self.target.ask(Ask::get(path).with(name, &value)).await {
                Err(error) => Err(error),
                Ok(reply) if reply.head.status != StatusCode::NOT_MODIFIED => {
                    Err(format!("HTTP {}", reply.head.status))
                }
                Ok(reply) => match ["etag", "cache-control", "expires", "date"]
                    .into_iter()
                    .find(|name| get.header(name).is_some() && reply.header(name).is_none())
                {
                    Some(missing) => Err(format!("304 without {missing}")),
                    None => Ok("304".to_owned()),
                },
            };
            self.book.result(rules::NOT_MODIFIED, &question, result);
        }
    }
}
