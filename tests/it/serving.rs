//! The running server: what it shows of news, and how it ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::{CertStatus, CrlReason, Received};

use crate::support::ca::{KeyKind, Leaf};
use crate::support::clients::{self, AskWith};
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};
use crate::support::{eventually, http};

/// Within this, news is visible (CONTRACT: 1 s).
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_revocation_by_another_process_is_visible_within_a_second() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("good.example.org");
    site.import_index();
    site.goodstanding(&["presign"]).ok();
    let server = Server::start(&site);
    let ask = Question::new(&site, &leaf);
    assert_eq!(ask.status(), Some(CertStatus::Good));

    let serial = ["--issuer", ISSUER, "--serial", &leaf.serial, "--reason", "keyCompromise"];
    site.goodstanding(&[&["revoke"], &serial[..]].concat()).ok();
    let done = Stopwatch::start();
    let revoked = eventually("the revocation", SOON, || match ask.status() {
        Some(CertStatus::Revoked(revocation)) => Some(revocation),
        // Between the two it may be unable to say, but not say good and revoked in turns.
        _ => None,
    })
    .0;
    assert_eq!(revoked.reason, Some(CrlReason::KeyCompromise));
    println!("a revocation was visible after {:?}", done.elapsed());
    for _ in 0..20 {
        assert_eq!(ask.status(), Some(CertStatus::Revoked(revoked)), "{}", server.log());
    }
}

#[test]
fn an_answer_stored_by_another_process_is_visible_within_a_second() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("new.example.org");
    let _server = Server::start(&site);
    let ask = Question::new(&site, &leaf);
    assert_eq!(ask.status(), None, "not on record yet");

    site.import_index();
    site.goodstanding(&["presign"]).ok();
    let (_, took) =
        eventually("the new answer", SOON, || (ask.status() == Some(CertStatus::Good)).then_some(()));
    println!("a new answer was visible after {took:?}");
}

#[test]
fn the_server_signs_for_a_certificate_that_has_no_answer_yet() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("unsigned.example.org");
    site.import_index();
    let _server = Server::start(&site);
    let ask = Question::new(&site, &leaf);
    eventually("an answer", Duration::from_secs(20), || {
        (ask.status() == Some(CertStatus::Good)).then_some(())
    });
    eventually("its record", Duration::from_secs(20), || {
        site.explain(&leaf.serial)["answer"].is_object().then_some(())
    });
}

#[test]
fn a_serial_that_was_never_issued_is_unauthorized_and_not_cached() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("never-imported.example.org");
    let _server = Server::start(&site);
    let request = clients::request(&site.ca, &leaf, AskWith::Sha256);
    let reply = http::post(site.ocsp, &request).unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &[0x30, 0x03, 0x0a, 0x01, 0x06][..]));
    let cache = reply.header("cache-control").unwrap_or_default();
    assert!(cache.contains("no-cache") || cache.contains("no-store"), "{cache}");
}

#[test]
fn an_expired_certificate_gets_no_answer_and_costs_no_signature() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue_expired("expired.example.org");
    site.import_index();
    assert_eq!(site.json(&["presign"])["signed"], 0);
    let _server = Server::start(&site);
    let reply = http::post(site.ocsp, &clients::request(&site.ca, &leaf, AskWith::Sha1)).unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &[0x30, 0x03, 0x0a, 0x01, 0x06][..]));
}

#[test]
fn sigterm_finishes_the_request_under_way_and_exits_0() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    let mut server = Server::start(&site);
    let body = clients::request(&site.ca, &pair.good, AskWith::Sha1);

    let mut slow = TcpStream::connect(("127.0.0.1", site.ocsp)).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&body[..10]).unwrap();
    // The head must have been read, or there is no request under way.
    std::thread::sleep(Duration::from_millis(300));
    server.terminate();
    eventually("the end of readiness", Duration::from_secs(5), || {
        (server.readiness() != Some(200)).then_some(())
    });

    slow.write_all(&body[10..]).unwrap();
    let mut reply = Vec::new();
    slow.read_to_end(&mut reply).unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&reply));
    let status = server.wait();
    assert!(status.success(), "{status}\n{}", server.log());
    assert!(TcpStream::connect(("127.0.0.1", site.ocsp)).is_err(), "nobody listens any more");
}

#[test]
fn the_server_starts_without_its_token_and_serves_what_is_stored() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    std::fs::rename(site.path("softhsm/tokens"), site.path("softhsm/gone")).unwrap();
    std::fs::create_dir(site.path("softhsm/tokens")).unwrap();
    let _server = Server::start(&site);
    assert_eq!(Question::new(&site, &pair.good).status(), Some(CertStatus::Good));
}

#[test]
fn the_control_listener_tells_liveness_and_metrics() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    assert_eq!(http::get(site.control, "/livez").unwrap().status, 200);
    assert_eq!(Question::new(&site, &pair.good).status(), Some(CertStatus::Good));
    let metrics = http::get(site.control, "/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("goodstanding_"), "{text}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    // The public listener tells nothing of this.
    let public = http::get(site.ocsp, "/metrics").unwrap();
    assert!(!String::from_utf8_lossy(&public.body).contains("goodstanding_"));
}

#[test]
fn check_accepts_our_own_answers_and_says_what_they_are() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let (url, authority) = (site.url(), site.ca.certificate());
    for (leaf, status) in [(&pair.good, "good"), (&pair.revoked, "revoked")] {
        let files = ["--issuer", authority.to_str().unwrap(), "--cert", leaf.certificate.to_str().unwrap()];
        site.goodstanding(&[&["check", &url], &files[..]].concat()).ok().says(&[status]);
    }
}

/// One certificate's OCSPRequest, asked again and again without a program in between.
struct Question {
    port: u16,
    request: Vec<u8>,
}

impl Question {
    fn new(site: &Site, leaf: &Leaf) -> Self {
        Self { port: site.ocsp, request: clients::request(&site.ca, leaf, AskWith::Sha1) }
    }

    /// The status in the answer; none when the responder cannot say.
    fn status(&self) -> Option<CertStatus> {
        let reply = http::post(self.port, &self.request).unwrap();
        assert_eq!(reply.status, 200);
        Received::decode(&reply.body).ok().map(|answer| answer.responses[0].status)
    }
}
