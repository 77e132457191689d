//! Requests sent again.

use serde_json::{Value, json};

use crate::support::api::{Call, call};
use crate::support::ca::KeyKind;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

fn register(site: &Site, serial: &str, key: &str) -> Call {
    call(site, "POST", "/v1/certificates").header("Idempotency-Key", key).json(&json!({
        "issuer": ISSUER, "serial": serial, "not_after": "2099-01-01T00:00:00Z",
    }))
}

#[test]
fn a_request_sent_again_gets_its_first_reply_even_from_another_process() {
    let site = Site::new(KeyKind::P256);
    let first = {
        let _server = Server::start(&site);
        let first = register(&site, "0a", "k-1").send();
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
        first
    };
    let _server = Server::start(&site);
    let again = register(&site, "0a", "k-1").send();
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("content-type"), Some("application/json"));
    // With a key of its own it is a new request, and says what is so now.
    let (code, document) = register(&site, "0a", "k-2").made();
    assert_eq!((code, &document["changed"]), (200, &json!(false)));
}

#[test]
fn another_request_with_the_same_key_is_refused_and_not_done() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    assert_eq!(register(&site, "0a", "k-1").made().0, 201);
    let (code, problem) = register(&site, "0b", "k-1").made();
    assert_eq!(code, 422);
    assert!(problem["detail"].as_str().unwrap().contains("new key"), "{problem}");
    assert_eq!(call(&site, "GET", "/v1/certificates/test/0b").made().0, 404);
    assert_eq!(register(&site, "0b", "two words").made().0, 400);
}

#[test]
fn what_failed_may_be_tried_again_with_the_same_key() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    let revoke = || {
        call(&site, "POST", "/v1/certificates/test/0a/revocation")
            .header("Idempotency-Key", "\"r-1\"")
            .json(&json!({ "reason": "superseded" }))
    };
    assert_eq!(revoke().made().0, 404);
    assert_eq!(register(&site, "0a", "k-1").made().0, 201);
    let (code, document): (u16, Value) = revoke().made();
    assert_eq!((code, &document["changed"]), (200, &json!(true)), "{document}");
}
