//! `goodstanding check`, pointed at our own responder and at OpenSSL's.

use serde_json::Value;
use tempfile::TempDir;

use super::asker::{Asker, serial};
use crate::control_experiment::OpenSslResponder;
use crate::support::ca::{KeyKind, Leaf, TestCa, utf8};
use crate::support::command::run;
use crate::support::free_port;
use crate::support::server::Server;
use crate::support::site::{Site, document};

/// What the checker says, and its exit status.
fn check(site: &Site, url: &str, ca: &TestCa, leaf: &Leaf, preset: &str) -> (Value, i32) {
    let authority = ca.certificate();
    let files = ["--issuer", utf8(&authority), "--cert", utf8(&leaf.certificate), "--preset", preset];
    let ran = run(site.command().args([&["--json", "check", url], &files[..]].concat()));
    (document(&ran), ran.code())
}

/// The requirements with this verdict.
fn those<'r>(report: &'r Value, verdict: &str) -> Vec<&'r str> {
    let lines = report["lines"].as_array().unwrap().iter();
    let those = lines.filter(|line| line["verdict"] == verdict);
    those.map(|line| line["requirement"].as_str().unwrap()).collect()
}

fn finds_no_failure(preset: &str, changes: &[(&str, &str)], not_applicable: &[&str]) {
    let site = Site::new(KeyKind::P256);
    let text = changes.iter().fold(site.default_configuration(), |text, (old, new)| {
        assert!(text.contains(old), "{old:?} is not in the configuration");
        text.replace(old, new)
    });
    site.configure(&text);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    Asker::new(&site).until_live(serial(&pair.good));
    for (leaf, status) in [(&pair.good, "good"), (&pair.revoked, "revoked")] {
        let (report, code) = check(&site, &site.url(), &site.ca, leaf, preset);
        let failed: Vec<&Value> =
            report["lines"].as_array().unwrap().iter().filter(|line| line["verdict"] == "failed").collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!((report["status"].as_str(), code), (Some(status), 0));
        assert_eq!(those(&report, "not_applicable"), not_applicable, "{report:#}");
    }
}

#[test]
fn the_checker_finds_no_failure_of_ours_under_the_web_pki_preset() {
    finds_no_failure(
        "web-pki",
        &[],
        &[
            "the validity is at most 7 days",
            "the validity is at most twelve months",
            "revoked for never issued: on hold since 1970, extended-revoke",
            "a nonce of 16 to 32 octets is echoed",
            "an answer with a nonce is for no cache",
        ],
    );
}

#[test]
fn the_checker_finds_no_failure_of_ours_under_the_microsoft_preset() {
    let changes = [
        ("preset = \"web-pki\"", "preset = \"microsoft\""),
        ("[control]", "unknown_serial = \"unknown\"\nnonce = \"echo\"\n[control]"),
    ];
    finds_no_failure(
        "microsoft",
        &changes,
        &[
            "the validity is at most twelve months",
            "no record is answered unauthorized",
            "revoked for never issued: on hold since 1970, extended-revoke",
            "an error got by GET is not to be cached",
        ],
    );
}

#[test]
fn the_checker_finds_no_failure_of_ours_under_the_private_preset() {
    let changes = [
        ("preset = \"web-pki\"", "preset = \"private\""),
        ("validity = \"7d\"", "validity = \"30d\""),
        ("refresh = \"3d12h\"", "refresh = \"10d\""),
        (
            "[control]",
            "unknown_serial = \"revoked\"\nnonce = \"echo\"\nresponder_id = \"by-name\"\n[control]",
        ),
    ];
    finds_no_failure(
        "private",
        &changes,
        &[
            "the responder is named by key",
            "the validity is from 8 hours to 10 days",
            "the validity is at most 7 days",
            "the validity is at most twelve months",
            "no record is answered unauthorized",
            "nothing is on hold",
            "an error got by GET is not to be cached",
        ],
    );
}

/// B10.
#[test]
fn the_checker_finds_no_failure_of_ours_under_the_sub_ca_preset() {
    let changes = [
        ("preset = \"web-pki\"", "preset = \"sub-ca\""),
        ("validity = \"7d\"", "validity = \"300d\""),
        ("refresh = \"3d12h\"", "refresh = \"90d\""),
    ];
    finds_no_failure(
        "sub-ca",
        &changes,
        &[
            "the validity is from 8 hours to 10 days",
            "the validity is at most 7 days",
            "revoked for never issued: on hold since 1970, extended-revoke",
            "a nonce of 16 to 32 octets is echoed",
            "an answer with a nonce is for no cache",
        ],
    );
}

#[test]
fn the_checker_finds_what_openssls_responder_lacks() {
    let dir = TempDir::new().unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let ca = TestCa::new(dir.path(), KeyKind::P256, &url);
    let leaf = ca.issue("good.example.org");
    let _responder = OpenSslResponder::start(&ca, port);
    let site = Site::bare(KeyKind::P256);
    let (report, code) = check(&site, &url, &ca, &leaf, "web-pki");
    assert_eq!((report["status"].as_str(), code), (Some("good"), 1), "{report:#}");
    let (passed, failed) = (those(&report, "passed"), those(&report, "failed"));
    for lacking in [
        "Cache-Control has max-age, public, no-transform, must-revalidate",
        "ETag is strong",
        "Expires is nextUpdate",
        // The CA of this test has no digitalSignature, and openssl ocsp does not mind.
        "the signer may sign for the issuer",
        "a nonce of 0 or over 128 octets is malformed",
        // It waits for the rest of what is no request, and ends at others.
        "what is no request is answered malformedRequest",
    ] {
        assert!(failed.contains(&lacking), "{lacking:?} is not in {failed:#?}");
    }
    for right in [
        "the signature verifies with the named signer's key",
        "the CertID asked for is the one answered, hash included",
        "Content-Type is application/ocsp-response",
        "a random serial number is never good",
        "hash parameters NULL and absent are the same",
        "every CertID in one request is answered",
    ] {
        assert!(passed.contains(&right), "{right:?} is not in {passed:#?}");
    }
}

#[test]
fn the_checker_says_at_once_that_nobody_answers() {
    let site = Site::bare(KeyKind::P256);
    let leaf = site.ca.issue("good.example.org");
    let (report, code) =
        check(&site, &format!("http://127.0.0.1:{}", free_port()), &site.ca, &leaf, "web-pki");
    assert_eq!(code, 1);
    assert_eq!(report["status"], Value::Null);
    let failed = those(&report, "failed");
    assert!(failed.contains(&"GET and POST are answered"), "{failed:?}");
}
