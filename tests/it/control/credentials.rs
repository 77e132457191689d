//! Tokens and their scopes on the running listener.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::api::call;
use crate::support::ca::KeyKind;
use crate::support::command::{run, sh};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

/// `credential new`: the token, with the entry appended to the file.
pub(super) fn credential(site: &Site, name: &str, scopes: &str, more: &[&str]) -> String {
    let made = site.json(&[&["credential", "new", "--name", name, "--scope", scopes], more].concat());
    let file = site.path("credentials.toml");
    let text = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{text}\n{}", made["credential"].as_str().unwrap())).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

/// A site whose control listener asks for tokens.
pub(super) fn guarded() -> Site {
    let site = Site::new(KeyKind::P256);
    let file = format!("[control]\ncredentials_file = \"{}\"", site.path("credentials.toml").display());
    fs::write(site.path("credentials.toml"), "").unwrap();
    site.reconfigure("[control]", &file);
    site
}

#[test]
fn each_call_needs_a_token_with_its_scope_and_the_probes_need_none() {
    let site = guarded();
    let certificates = credential(&site, "ra-1", "certificates", &[]);
    let revoke = credential(&site, "desk", "revoke,read", &[]);
    let admin = credential(&site, "root", "admin", &[]);
    let _server = Server::start(&site);
    let body = json!({ "issuer": ISSUER, "serial": "0a", "not_after": "2099-01-01T00:00:00Z" });
    let register = || call(&site, "POST", "/v1/certificates").json(&body);
    let look = || call(&site, "GET", "/v1/certificates/test/0a");
    let take = || call(&site, "POST", "/v1/certificates/test/0a/revocation").json(&json!({}));

    for probe in ["/livez", "/readyz"] {
        assert_eq!(call(&site, "GET", probe).send().status, 200, "{probe}");
    }
    for path in ["/", "/metrics", "/openapi.json", "/v1/certificates/test/0a"] {
        let reply = call(&site, "GET", path).send();
        assert_eq!(reply.status, 401, "{path}");
        assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer "));
        assert_eq!(call(&site, "GET", path).bearer(&certificates).send().status, 403, "{path}");
    }
    assert_eq!(register().made().0, 401);
    assert_eq!(register().bearer(&revoke).made().0, 403);
    assert_eq!(register().bearer(&certificates).made().0, 201);
    assert_eq!(look().bearer(&revoke).made().0, 200);
    assert_eq!(take().bearer(&certificates).made().0, 403);
    let (_, problem) = take().bearer(&certificates).made();
    assert_eq!(problem["scope"], "revoke");
    assert_eq!(take().bearer(&revoke).made().0, 200);
    assert_eq!(look().bearer(&admin).made().0, 200);
    assert_eq!(call(&site, "GET", "/metrics").bearer(&revoke).send().status, 200);
    assert_eq!(call(&site, "GET", "/").bearer(&revoke).send().status, 200);

    let log = site.goodstanding(&["audit", "export"]).ok().out();
    assert!(log.contains("credential ra-1 from 127.0.0.1") && log.contains("credential desk from"), "{log}");
}

#[test]
fn guesses_are_slowed_down_and_a_rate_is_kept() {
    let site = guarded();
    let token = credential(&site, "ra-1", "read", &["--rate", "20"]);
    let _server = Server::start(&site);
    let look = |token: &str| call(&site, "GET", "/openapi.json").bearer(token).send();
    assert_eq!(look(&token).status, 200);
    let codes: Vec<u16> = (0..13).map(|_| look("gs1.ra-1.wrong").status).collect();
    assert_eq!(codes[..10], [401; 10]);
    assert!(codes[10..].contains(&429), "{codes:?}");
    let codes: Vec<u16> = (0..25).map(|_| look(&token).status).collect();
    assert_eq!(codes[..15], [200; 15], "a wrong token of a neighbour stops nobody");
    assert_eq!(codes[24], 429);
    assert!(look(&token).header("retry-after").is_some());
}

#[test]
fn a_token_that_is_taken_out_of_the_file_ends_with_the_reload() {
    let site = guarded();
    let token = credential(&site, "ra-1", "read", &[]);
    let server = Server::start(&site);
    let look = || call(&site, "GET", "/openapi.json").bearer(&token).send().status;
    assert_eq!(look(), 200);
    // One with an error in it changes nothing.
    fs::write(site.path("credentials.toml"), "[[credential]]\nname = 5\n").unwrap();
    server.hang_up();
    eventually("the complaint", Duration::from_secs(10), || {
        server.log().contains("not reloaded").then_some(())
    });
    assert_eq!(look(), 200);
    fs::write(site.path("credentials.toml"), "").unwrap();
    server.hang_up();
    eventually("the end of the token", Duration::from_secs(10), || (look() == 401).then_some(()));
}

#[test]
fn a_page_of_somebody_else_gets_nothing_from_an_open_listener() {
    let site = Site::new(KeyKind::P256);
    let server = Server::start(&site);
    assert!(server.log().contains("everybody on this machine"), "{}", server.log());
    let body = json!({ "issuer": ISSUER, "serial": "0a", "not_after": "2099-01-01T00:00:00Z" });
    let foreign = call(&site, "POST", "/v1/certificates").header("Origin", "https://example.org").json(&body);
    assert_eq!(foreign.made().0, 403);
    let out = sh(
        "curl",
        &["-s", "-H", "Host: rebound.example", &format!("http://127.0.0.1:{}/openapi.json", site.control)],
    );
    assert!(out.ok().out().contains("DNS rebinding"));
    assert_eq!(call(&site, "POST", "/v1/certificates").json(&body).made().0, 201);
}

#[test]
fn config_check_tells_what_is_wrong_with_the_listener() {
    let site = Site::new(KeyKind::P256);
    let check = |site: &Site| run(site.command().args(["config", "check"]));
    site.reconfigure(&format!("listen = \"127.0.0.1:{}\"", site.control), "listen = \"0.0.0.0:8890\"");
    check(&site).exits(2).says(&["control.tls_certificate", "control.credentials_file", "toml:6:"]);
    site.reconfigure("[control]", "[control]\ntls_key = \"key.pem\"");
    check(&site).exits(2).says(&["both tls_certificate and tls_key"]);
    fs::write(site.path("bad.toml"), "[[credential]]\nname = \"a\"\nhash = \"plain\"\nscopes = []\n")
        .unwrap();
    site.reconfigure("[control]", "[control]\ncredentials_file = \"bad.toml\"");
    check(&site).exits(3).says(&["bad.toml:3", "hash of \"a\""]);
}
