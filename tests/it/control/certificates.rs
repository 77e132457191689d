//! Registering, revoking and looking.

use goodstanding::clock::{Clock, SystemClock, UnixTime};
use goodstanding::ocsp::{CertStatus, CrlReason};
use serde_json::json;

use std::time::Duration;

use crate::support::api::{call, status};
use crate::support::ca::{KeyKind, utf8};
use crate::support::command::sh;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

#[test]
fn a_certificate_is_answered_for_when_the_call_that_registers_it_returns() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    let leaf = site.ca.issue("pem.example.org");
    let pem = std::fs::read(&leaf.certificate).unwrap();
    assert_eq!(status(&site, &leaf), None);
    let register = || call(&site, "POST", "/v1/certificates").body("application/x-pem-file", &pem);
    let reply = register().send();
    // At once: nothing may be left to a poll.
    assert_eq!(status(&site, &leaf), Some(CertStatus::Good));
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, 201, "{text}");
    let serial = leaf.serial.trim_start_matches('0').to_ascii_lowercase();
    let location = reply.header("location").unwrap().to_owned();
    assert!(location.ends_with(&serial), "{location}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["served"], true, "{document}");
    assert_eq!(document["certificate"]["answer"]["state"], "fresh", "{document}");

    let (code, again) = register().made();
    assert_eq!((code, &again["changed"]), (200, &json!(false)), "{again}");
    let (code, shown) = call(&site, "GET", &location).made();
    assert_eq!((code, &shown), (200, &again["certificate"]));
    // What `explain` says of the same certificate is the same.
    let explained = site.explain(&leaf.serial);
    for member in ["issuer", "serial", "status", "version", "not_before", "not_after", "shard"] {
        assert_eq!(shown[member], explained[member], "{member}");
    }
    for member in ["state", "this_update", "due_at", "stale_at", "next_update", "token", "key", "algorithm"] {
        assert_eq!(shown["answer"][member], explained["answer"][member], "{member}");
    }
}

#[test]
fn der_and_json_register_too_and_a_foreign_certificate_does_not() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    let leaf = site.ca.issue("der.example.org");
    let der = site.path("leaf.der");
    sh("openssl", &["x509", "-in", utf8(&leaf.certificate), "-outform", "DER", "-out", utf8(&der)]).ok();
    let post = || call(&site, "POST", "/v1/certificates");
    let (code, _) = post().body("application/pkix-cert", &std::fs::read(&der).unwrap()).made();
    assert_eq!((code, status(&site, &leaf)), (201, Some(CertStatus::Good)));

    let leaf = site.ca.issue("json.example.org");
    let (code, document) = post()
        .json(&json!({
            "issuer": ISSUER,
            "serial": leaf.serial.to_ascii_lowercase(),
            "not_before": "2026-01-01T00:00:00Z",
            "not_after": "2099-01-01T00:00:00+01:00",
        }))
        .made();
    assert_eq!((code, status(&site, &leaf)), (201, Some(CertStatus::Good)), "{document}");
    assert_eq!(document["certificate"]["not_after"], "2098-12-31T23:00:00Z");

    let other = Site::bare(KeyKind::P256);
    let foreign = std::fs::read(other.ca.issue("foreign.example.org").certificate).unwrap();
    let (code, problem) = post().body("application/x-pem-file", &foreign).made();
    assert_eq!(code, 422);
    assert!(problem["detail"].as_str().unwrap().contains("issuer add"), "{problem}");
}

#[test]
fn what_is_wrong_with_a_request_is_told_and_changes_nothing() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    let post = || call(&site, "POST", "/v1/certificates");
    let good = json!({ "issuer": ISSUER, "serial": "0a", "not_after": "2099-01-01T00:00:00Z" });
    let with = |name: &str, value: serde_json::Value| {
        let mut document = good.clone();
        document[name] = value;
        document
    };
    for (call, code, said) in [
        (post().json(&with("colour", json!("blue"))), 400, "unknown field `colour`"),
        (post().json(&with("serial", json!("xyz"))), 422, "not hexadecimal digits"),
        (post().json(&with("serial", json!(10))), 400, "expected a string"),
        (post().json(&with("not_after", json!("2099-01-01"))), 400, "RFC 3339"),
        (post().json(&with("not_before", json!("2100-01-01T00:00:00Z"))), 422, "is after not_after"),
        (post().json(&with("issuer", json!("nobody"))), 404, "known are: test"),
        (post().body("application/json", b"{"), 400, "EOF"),
        (post().body("text/plain", b"{}"), 415, "application/pkix-cert"),
        (post(), 415, "no Content-Type"),
        (post().body("application/pkix-cert", b"0\x03\x02\x01\x05"), 422, "no certificate"),
        (post().body("application/x-pem-file", b"hello"), 422, "no PEM block"),
        (post().body("application/json", &vec![b' '; 70_000]), 413, "65536"),
        (post().header("Prefer", "wait=soon").json(&good), 400, "wait=soon"),
        (call(&site, "GET", "/v1/certificates/test/zz"), 400, "not hexadecimal digits"),
        (call(&site, "GET", "/v1/certificates/test/0a"), 404, "register it first"),
        (call(&site, "GET", "/v1/certificates/nobody/0a"), 404, "known are: test"),
        (call(&site, "PUT", "/v1/certificates"), 405, "does not take PUT"),
    ] {
        let (status, problem) = call.made();
        assert_eq!(status, code, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{said}: {problem}");
    }
}

#[test]
fn a_revocation_is_served_when_the_call_that_makes_it_returns() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("revoked.example.org");
    site.import_index();
    site.goodstanding(&["presign"]).ok();
    let _server = Server::start(&site);
    assert_eq!(status(&site, &leaf), Some(CertStatus::Good));
    let path = format!("/v1/certificates/{ISSUER}/{}/revocation", leaf.serial.to_ascii_lowercase());
    let time = SystemClock.now().minus(std::time::Duration::from_secs(60)).to_string();
    let revoke = || call(&site, "POST", &path).json(&json!({ "reason": "keyCompromise", "time": time }));
    let (code, document) = revoke().made();
    let Some(CertStatus::Revoked(revocation)) = status(&site, &leaf) else { panic!("not revoked") };
    assert_eq!(code, 200, "{document}");
    assert_eq!(revocation.reason, Some(CrlReason::KeyCompromise));
    assert_eq!(revocation.time, UnixTime::parse_rfc3339(&time).unwrap());
    assert_eq!((&document["changed"], &document["served"]), (&json!(true), &json!(true)));
    assert_eq!(document["certificate"]["version"], 2);

    let (code, document) = revoke().made();
    assert_eq!((code, &document["changed"]), (200, &json!(false)), "{document}");
    let (code, problem) = call(&site, "POST", &path).json(&json!({ "reason": "superseded" })).made();
    assert_eq!(code, 409);
    assert!(problem["detail"].as_str().unwrap().contains("keyCompromise"), "{problem}");
    for (body, status, said) in [
        (json!({ "time": "2099-01-01T00:00:00Z" }), 422, "in the future"),
        (json!({ "reason": "certificateHold" }), 422, "bars certificateHold"),
        (json!({ "reason": "removeFromCRL" }), 400, "unknown variant"),
        (json!({ "why": "because" }), 400, "unknown field"),
    ] {
        let (code, problem) = call(&site, "POST", &path).json(&body).made();
        assert_eq!(code, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    assert_eq!(call(&site, "DELETE", &path).made().0, 409);
}

#[test]
fn a_hold_is_put_on_and_taken_back() {
    let site = Site::new(KeyKind::P256);
    site.reconfigure("\"web-pki\"", "\"private\"");
    let leaf = site.ca.issue("held.example.org");
    site.import_index();
    let _server = Server::start(&site);
    let path = format!("/v1/certificates/{ISSUER}/{}/revocation", leaf.serial);
    let (code, _) = call(&site, "POST", &path).json(&json!({ "reason": "certificateHold" })).made();
    assert!(matches!(status(&site, &leaf), Some(CertStatus::Revoked(_))));
    assert_eq!(code, 200);
    let (code, document) = call(&site, "DELETE", &path).made();
    assert_eq!((code, status(&site, &leaf)), (200, Some(CertStatus::Good)), "{document}");
    assert_eq!(document["certificate"]["version"], 3);
    assert_eq!(call(&site, "DELETE", &path).body("text/plain", b"x").made().0, 400);
}

#[test]
fn without_its_token_a_change_is_accepted_and_told_to_be_on_its_way() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("waiting.example.org");
    std::fs::rename(site.path("softhsm/tokens"), site.path("softhsm/gone")).unwrap();
    std::fs::create_dir(site.path("softhsm/tokens")).unwrap();
    let _server = Server::start(&site);
    let pem = std::fs::read(&leaf.certificate).unwrap();
    let reply = call(&site, "POST", "/v1/certificates")
        .header("Prefer", "wait=1")
        .body("application/x-pem-file", &pem)
        .send();
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
    let document: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(document["served"], false);
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert_eq!((wait >= 1, &document["eta_seconds"]), (true, &json!(wait)));
    assert!(reply.header("location").is_some());
}

#[test]
fn an_expired_certificate_is_registered_and_gets_no_answer() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue_expired("over.example.org");
    let _server = Server::start(&site);
    let pem = std::fs::read(&leaf.certificate).unwrap();
    let (code, document) =
        call(&site, "POST", "/v1/certificates").body("application/x-pem-file", &pem).made();
    assert_eq!((code, &document["served"]), (201, &json!(false)), "{document}");
    assert!(document["eta_seconds"].is_null());
}

#[test]
fn what_stands_in_the_way_of_an_answer_is_told_by_the_server_and_by_explain() {
    let site = Site::bare(KeyKind::P256);
    let ca = site.ca.certificate();
    site.goodstanding(&["issuer", "add", "--name", ISSUER, "--certificate", utf8(&ca)]).ok();
    let leaf = site.ca.issue("held.example.org");
    site.import_index();
    let unasked = site.explain(&leaf.serial);
    assert_eq!(unasked["signing"], serde_json::Value::Null);
    assert!(unasked["signing_unknown"].as_str().unwrap().contains("nobody can be reached"), "{unasked}");
    let text = site.goodstanding(&["explain", "--issuer", ISSUER, "--serial", &leaf.serial]).ok();
    assert!(text.out().contains("only the running server knows: nobody can be reached"), "{}", text.out());

    // There is no responder: the whole issuer is on hold.
    let _server = Server::start(&site);
    let path = format!("/v1/certificates/{ISSUER}/{}", leaf.serial.to_ascii_lowercase());
    let shown = eventually("the hold", Duration::from_secs(20), || {
        let (_, shown) = call(&site, "GET", &path).made();
        shown["signing"]["issuer_on_hold"].is_object().then_some(shown)
    })
    .0;
    let hold = &shown["signing"]["issuer_on_hold"];
    assert!(hold["reason"].as_str().unwrap().contains("responder"), "{shown}");
    assert!(UnixTime::parse_rfc3339(hold["next_try"].as_str().unwrap()).is_ok(), "{shown}");
    let own = &shown["signing"]["quarantine"];
    assert!(own["failures"].as_u64().unwrap() >= 1 && own["since"].is_string(), "{shown}");
    let told = site.explain(&leaf.serial);
    assert_eq!(told["signing"]["issuer_on_hold"]["reason"], hold["reason"], "{told}");
    assert_eq!(told["signing_unknown"], serde_json::Value::Null);
    let text = site.goodstanding(&["explain", "--issuer", ISSUER, "--serial", &leaf.serial]).ok();
    assert!(text.out().contains("nothing of its issuer is signed (since "), "{}", text.out());
}
