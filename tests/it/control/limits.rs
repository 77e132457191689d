//! Registrations and orders, refusals, and the webhook of step-ca.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use goodstanding::clock::{Clock, SystemClock, UnixTime};
use goodstanding::ocsp::CertStatus;
use ring::hmac;
use serde_json::{Value, json};

use super::credentials::guarded;
use crate::support::api::{Call, call, status};
use crate::support::ca::{KeyKind, utf8};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site, root};

/// A site with one of the shipped profiles.
fn limited(site: &Site, profile: &str) {
    let file = root().join("config/limits").join(profile);
    let text = fs::read_to_string(site.path("goodstanding.toml")).unwrap();
    site.configure(&format!("{text}[limits]\nprofile = \"{}\"\nhelp = \"{HELP}\"\n", file.display()));
}

/// The deployment's own page about its limits.
const HELP: &str = "https://ca.example/limits";

/// A process that does not sign has no guard: what refuses are the nominal limits alone.
const UNGUARDED: [&str; 2] = ["--role", "ocsp,control"];

fn order(site: &Site, names: &[&str]) -> Call {
    call(site, "POST", "/v1/orders").json(&json!({ "account": "acct-17", "identifiers": names }))
}

fn document(reply: &crate::support::http::Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// A parameter of a RateLimit or RateLimit-Policy header.
fn parameter(reply: &crate::support::http::Reply, header: &str, name: &str) -> u64 {
    let header = reply.header(header).unwrap();
    let of = |part: &str| part.trim().strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    header.split([';', ',']).find_map(of).unwrap_or_else(|| panic!("no {name} in {header}"))
}

/// S3.
#[test]
fn an_orders_certificate_is_answered_for_when_the_call_that_hands_it_in_returns() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "current.toml");
    let _server = Server::start(&site);
    let reply = order(&site, &["shop.example.org"]).send();
    let accepted = document(&reply);
    assert_eq!(reply.status, 201, "{accepted}");
    assert!(reply.header("ratelimit").unwrap().starts_with('"'), "{:?}", reply.header("ratelimit"));
    assert!(parameter(&reply, "ratelimit", "r") > 0 && parameter(&reply, "ratelimit", "t") <= 604_800);
    assert!(reply.header("ratelimit-policy").unwrap().contains(";w=604800"));
    let place = reply.header("location").unwrap().to_owned();
    assert_eq!(place, format!("/v1/orders/{}", accepted["id"]));
    let (code, shown) = call(&site, "GET", &place).made();
    assert_eq!((code, &shown["state"]), (200, &json!("reserved")), "{shown}");

    let leaf = site.ca.issue("shop.example.org");
    let pem = fs::read(&leaf.certificate).unwrap();
    let hand_in =
        || call(&site, "POST", &format!("{place}/certificate")).body("application/x-pem-file", &pem);
    let reply = hand_in().send();
    assert_eq!(status(&site, &leaf), Some(CertStatus::Good));
    let delivered = document(&reply);
    assert_eq!(reply.status, 201, "{delivered}");
    assert_eq!((&delivered["served"], &delivered["late"]), (&json!(true), &json!(false)));
    assert_eq!(hand_in().made().0, 200, "handing in again changes nothing");
    let (_, shown) = call(&site, "GET", &place).made();
    assert_eq!(shown["state"], "issued", "{shown}");
    assert_eq!(call(&site, "DELETE", &place).made().0, 409);

    let other = site.ca.issue("other.example.org");
    let other = fs::read(&other.certificate).unwrap();
    let twice = call(&site, "POST", &format!("{place}/certificate")).body("application/x-pem-file", &other);
    assert_eq!(twice.made().0, 409);
    let (code, limits) = call(&site, "GET", "/v1/limits?domain=example.org").made();
    assert_eq!(code, 200);
    assert!(limits.to_string().contains(&leaf.serial.trim_start_matches('0').to_lowercase()), "{limits}");
    let log = site.goodstanding(&["audit", "export"]).ok().out();
    for action in ["order.accept", "order.commit", "certificate.register"] {
        assert!(log.contains(&format!("\"action\":\"{action}\"")), "{action}: {log}");
    }
}

#[test]
fn a_certificate_with_other_names_than_its_order_is_refused_and_the_order_holds_its_places() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "two-tier.toml");
    let _server = Server::start_with(&site, &UNGUARDED);
    let (_, accepted) = order(&site, &["shop.example.org", "www.example.org"]).made();
    let place = format!("/v1/orders/{}", accepted["id"]);
    let leaf = site.ca.issue("shop.example.org");
    let pem = fs::read(&leaf.certificate).unwrap();
    let hand_in = |place: &str| {
        call(&site, "POST", &format!("{place}/certificate")).body("application/x-pem-file", &pem)
    };
    let (code, problem) = hand_in(&place).made();
    assert_eq!((code, &problem["missing"]), (422, &json!(["www.example.org"])), "{problem}");
    assert_eq!(problem["surplus"], json!([]), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("It lacks: www.example.org.") && detail.contains("holds its places"), "{detail}");
    // Nothing came of it: no certificate, no commit, the place is held.
    let serial = leaf.serial.trim_start_matches('0').to_ascii_lowercase();
    assert_eq!(call(&site, "GET", &format!("/v1/certificates/{ISSUER}/{serial}")).made().0, 404);
    let (_, shown) = call(&site, "GET", &place).made();
    assert_eq!((&shown["state"], &shown["certificate"]), (&json!("reserved"), &json!(null)), "{shown}");
    // The certificate's own order takes it.
    let (_, own) = order(&site, &["SHOP.example.org"]).made();
    let own = format!("/v1/orders/{}", own["id"]);
    assert!(matches!(hand_in(&own).made().0, 201 | 202));
    assert_eq!(call(&site, "DELETE", &place).made().0, 200);
}

/// After a migration: what the former software issued is known, and its renewal is one.
#[test]
fn certificates_that_were_imported_or_registered_are_renewed_past_the_limits() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "two-tier.toml");
    let (imported, registered) = (site.ca.issue("old.example.org"), site.ca.issue("older.example.org"));
    let path = utf8(&imported.certificate);
    let report = site.json(&["import", "certs", path]);
    assert_eq!((&report["added"], &report["remembered"]), (&json!(1), &json!(1)), "{report}");
    let again = site.json(&["import", "certs", path]);
    assert_eq!((&again["unchanged"], &again["remembered"]), (&json!(1), &json!(0)), "{again}");
    let _server = Server::start_with(&site, &UNGUARDED);
    let pem = fs::read(&registered.certificate).unwrap();
    for _ in 0..2 {
        let reply = call(&site, "POST", "/v1/certificates").body("application/x-pem-file", &pem).send();
        assert!(matches!(reply.status, 200..=202), "{}", document(&reply));
    }
    // Both count, as they were issued just now: of three in two hours there is one left.
    assert_eq!(order(&site, &["new.example.org"]).made().0, 201);
    let (code, refusal) = order(&site, &["newer.example.org"]).made();
    assert_eq!((code, &refusal["count"]), (429, &json!(3)), "{refusal}");
    for name in ["old.example.org", "older.example.org"] {
        let (code, renewal) = order(&site, &[name]).made();
        assert_eq!((code, &renewal["renewal"]), (201, &json!(true)), "{renewal}");
    }
}

/// S1, S3.
#[test]
fn the_sixth_certificate_of_a_week_is_refused_with_everything_that_people_can_act_on() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "2016-01.toml");
    let _server = Server::start_with(&site, &UNGUARDED);
    for number in 0..5 {
        let reply = order(&site, &[&format!("n{number}.example.org")]).send();
        assert_eq!(reply.status, 201, "{}", document(&reply));
    }
    let before = SystemClock.now();
    let reply = order(&site, &["n6.example.org"]).send();
    let refusal = document(&reply);
    assert_eq!((reply.status, reply.header("content-type")), (429, Some("application/problem+json")));
    assert_eq!(refusal["type"], "urn:ietf:params:acme:error:rateLimited");
    assert_eq!(
        (&refusal["count"], &refusal["effective"], &refusal["nominal"]),
        (&json!(5), &json!(5), &json!(5))
    );
    assert_eq!((&refusal["key"], &refusal["period_seconds"]), (&json!("example.org"), &json!(604_800)));
    assert_eq!(refusal["counted"].as_array().unwrap().len(), 5, "{refusal}");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(refusal["retry_after"], wait);
    let at = UnixTime::parse_rfc3339(refusal["retry_at"].as_str().unwrap()).unwrap();
    assert!(at.since(before).as_secs().abs_diff(wait) <= 2, "{at} in {wait} s");
    let detail = refusal["detail"].as_str().unwrap();
    for piece in ["5", "example.org", "7 days", refusal["retry_at"].as_str().unwrap()] {
        assert!(detail.contains(piece), "{piece}: {detail}");
    }
    // The operator's page, and nobody else's.
    assert_eq!(reply.header("link").unwrap(), format!("<{HELP}>; rel=\"help\""));
    assert!(detail.ends_with(&format!("see {HELP}")), "{detail}");
    assert_eq!(parameter(&reply, "ratelimit", "r"), 0);
    assert!(parameter(&reply, "ratelimit", "t") <= wait, "{:?}", reply.header("ratelimit"));
    assert!(reply.header("ratelimit-policy").unwrap().contains("q=5;w=604800"));
    // Another domain is another matter, and a place given up is free.
    let (code, accepted) = order(&site, &["a.example.net"]).made();
    assert_eq!(code, 201);
    assert_eq!(call(&site, "DELETE", &format!("/v1/orders/{}", accepted["id"])).made().0, 200);
}

#[test]
fn too_many_registrations_from_an_address_are_refused_in_the_known_words() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "2016-01.toml");
    let _server = Server::start_with(&site, &UNGUARDED);
    let register = |ip: &str| call(&site, "POST", "/v1/registrations").json(&json!({ "ip": ip }));
    for _ in 0..10 {
        assert_eq!(register("192.0.2.7").made().0, 201);
    }
    let (code, refusal) = register("192.0.2.7").made();
    assert_eq!(code, 429);
    assert_eq!(refusal["title"], format!("too many registrations for this IP: see {HELP}"));
    assert_eq!(register("192.0.2.8").made().0, 201);
    assert_eq!(register("nowhere").made().0, 422);
    assert_eq!(call(&site, "GET", "/v1/limits?ip=nowhere").made().0, 422);
    assert_eq!(call(&site, "GET", "/v1/limits?colour=blue").made().0, 400);
    assert_eq!(call(&site, "GET", "/v1/orders/999999").made().0, 404);
}

#[test]
fn an_order_sent_again_with_its_key_holds_one_place() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "2016-01.toml");
    let _server = Server::start_with(&site, &UNGUARDED);
    let again = || order(&site, &["n.example.org"]).header("Idempotency-Key", "o-1").send();
    let first = again();
    for _ in 0..9 {
        let reply = again();
        assert_eq!((reply.status, reply.header("idempotency-replayed")), (201, Some("true")));
        assert_eq!(reply.body, first.body);
    }
}

/// S5: a guard that knows of no token what it carries lets a quarter of the limits pass.
#[test]
fn a_refusal_for_capacity_says_so_beside_its_acme_type() {
    let site = Site::new(KeyKind::P256);
    limited(&site, "2016-01.toml");
    site.good_and_revoked();
    fs::rename(site.path("softhsm/tokens"), site.path("softhsm/gone")).unwrap();
    fs::create_dir(site.path("softhsm/tokens")).unwrap();
    let _server = Server::start(&site);
    let (_, capacity) = call(&site, "GET", "/v1/capacity").made();
    assert_eq!(capacity["pressure"]["state"], "blind", "{capacity}");
    assert_eq!(order(&site, &["a.example.org"]).made().0, 201);
    let reply = order(&site, &["b.example.org"]).send();
    let refusal = document(&reply);
    assert_eq!((reply.status, &refusal["cause"]), (429, &json!("tightened")), "{refusal}");
    assert_eq!(refusal["type"], "urn:ietf:params:acme:error:rateLimited");
    let kind = refusal["capacity"]["type"].as_str().unwrap();
    assert!(kind.ends_with("#temporary-reduced-capacity"), "{kind}");
    assert_eq!((&refusal["nominal"], &refusal["effective"]), (&json!(5), &json!(1)));
    assert_eq!(refusal["capacity"]["state"], "blind");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(parameter(&reply, "ratelimit", "t") <= wait);
}

/// `serve --role signer`, which listens nowhere.
struct SignerProcess(Child);

impl SignerProcess {
    fn start(site: &Site) -> Self {
        let log = fs::File::create(site.path("signer.log")).unwrap();
        let mut command = site.command();
        command.args(["serve", "--role", "signer"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for SignerProcess {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes every answer so much older that its legal deadline is `left` away.
fn age_answers(site: &Site, left: i64) {
    let deadline = SystemClock.now().0 + left;
    let statement = format!(
        "UPDATE answer SET next_update = {deadline} - 345600 + next_update - this_update, this_update = {deadline} - 345600"
    );
    let path = site.path("goodstanding.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

/// S5: the signer's token is away, and its first answer will be stale in less than half the slack.
#[test]
fn a_limiter_in_a_process_of_its_own_follows_the_guard_of_the_one_that_signs() {
    let site = Site::new(KeyKind::P256);
    let text = fs::read_to_string(site.path("goodstanding.toml")).unwrap();
    site.configure(&format!("{text}[capacity]\nlease = \"1m\"\n"));
    limited(&site, "two-tier.toml");
    site.good_and_revoked();
    let bench = ["hsm", "bench", "--algorithm", "p256", "--sessions", "2", "--seconds", "0.2"];
    site.goodstanding(&bench).ok();
    fs::rename(site.path("softhsm/tokens"), site.path("softhsm/gone")).unwrap();
    fs::create_dir(site.path("softhsm/tokens")).unwrap();
    age_answers(&site, 24_300);
    let capacity = || call(&site, "GET", "/v1/capacity").made().1;

    let _limiter = Server::start_with(&site, &["--role", "control"]);
    assert_eq!(capacity()["pressure"]["multiplier"], 1.0, "no guard has ever reported");
    let signer = SignerProcess::start(&site);
    let (told, _) = eventually("the guard's word", Duration::from_secs(60), || {
        let told = capacity();
        (told["pressure"]["multiplier"].as_f64().unwrap() < 1.0).then_some(told)
    });
    let multiplier = told["pressure"]["multiplier"].as_f64().unwrap();
    assert!((0.4..0.6).contains(&multiplier), "{told}");
    assert_eq!((&told["lever"], &told["tokens"][0]["name"]), (&json!("throttle"), &json!("hsm-a")), "{told}");

    assert_eq!(order(&site, &["a.example.org"]).made().0, 201);
    let (code, refusal) = order(&site, &["b.example.org"]).made();
    assert_eq!((code, &refusal["cause"]), (429, &json!("tightened")), "{refusal}");
    assert_eq!((&refusal["nominal"], &refusal["effective"]), (&json!(3), &json!(1)), "{refusal}");
    assert!(refusal["capacity"]["utilisation"].is_number(), "{refusal}");
    // The command line tells the same.
    let forecast = refusal["capacity"]["forecast"].as_str().unwrap();
    let show = ["limits", "show", "--domain", "example.org"];
    site.goodstanding(&show).ok().says(&[
        "signing capacity is short: limits that follow it are at",
        "signing is behind",
        "utilisation ",
        &format!("forecast: {forecast}"),
        "expected to ease at 20",
        "1 of 1 (nominally 3)",
    ]);
    let shown = site.json(&show);
    let same = shown["pressure"]["multiplier"].as_f64().unwrap() - multiplier;
    assert!(same.abs() < 0.05 && shown["limits"][0]["tiers"][0]["effective"] == 1, "{shown}");

    // And what was asked for here is known there.
    eventually("what is offered to come round", Duration::from_secs(60), || {
        (capacity()["offered_per_day"].as_f64().unwrap() > 0.0).then_some(())
    });

    // Nobody says anything any more: the lease runs out, to the safe multiplier and no further.
    drop(signer);
    let (blind, _) = eventually("the end of the lease", Duration::from_secs(90), || {
        let told = capacity();
        (told["pressure"]["multiplier"] == 0.25 && told["state"] == "blind").then_some(told)
    });
    assert_eq!(blind["pressure"]["state"], "blind", "{blind}");
}

#[test]
fn capacity_is_told_with_or_without_a_guard() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    let (code, capacity) = call(&site, "GET", "/v1/capacity").made();
    assert_eq!(code, 200);
    assert!(capacity["pressure"]["multiplier"].is_number(), "{capacity}");
    assert!(capacity["orders"]["new_orders"].is_u64(), "{capacity}");
    let (metrics, new) = (call(&site, "GET", "/metrics").send(), "goodstanding_limits_new_orders_total 0");
    assert!(String::from_utf8(metrics.body).unwrap().contains(new));
}

/// As step-ca sends it: the body, its id, the HMAC in hexadecimal.
fn ask(site: &Site, id: &str, secret: &[u8], body: &Value) -> Value {
    let body = body.to_string();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    let reply = call(site, "POST", "/v1/hooks/step-ca")
        .header("X-Smallstep-Webhook-ID", id)
        .header("X-Smallstep-Signature", &hex)
        .body("application/json", body.as_bytes())
        .send();
    assert_eq!(reply.status, 200);
    document(&reply)
}

#[test]
fn step_ca_is_told_yes_no_and_why() {
    let site = guarded();
    let text = fs::read_to_string(site.path("goodstanding.toml")).unwrap();
    let profile = root().join("config/limits/2016-01.toml");
    site.configure(&format!("{text}[limits]\nprofile = \"{}\"\n", profile.display()));
    // The secret is given in base64, and used decoded.
    let entry =
        "[[step_ca]]\nwebhook_id = \"w-1\"\nsecret = \"MDEyMzQ1Njc4OWFiY2RlZg==\"\naccount = \"step\"\n";
    fs::write(site.path("credentials.toml"), entry).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(site.path("credentials.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let _server = Server::start_with(&site, &UNGUARDED);
    let secret = b"0123456789abcdef";
    let body = |name: &str| {
        json!({ "timestamp": "2026-11-22T00:00:00Z", "x509Certificate": {
            "subject": { "commonName": name }, "dnsNames": [name], "notAfter": "2027-01-01T00:00:00Z" } })
    };
    for number in 0..5 {
        let answer = ask(&site, "w-1", secret, &body(&format!("n{number}.example.org")));
        assert_eq!(answer, json!({ "allow": true }));
    }
    let refused = ask(&site, "w-1", secret, &body("n6.example.org"));
    assert_eq!((&refused["allow"], &refused["error"]["code"]), (&json!(false), &json!("rateLimited")));
    assert!(refused["error"]["message"].as_str().unwrap().contains("example.org"), "{refused}");
    for (id, secret, body, code) in [
        ("w-1", &b"another secret!!"[..], body("x.example.net"), "unauthorized"),
        ("w-2", &secret[..], body("x.example.net"), "unauthorized"),
        ("w-1", &secret[..], json!({}), "malformed"),
        ("w-1", &secret[..], json!({ "x509Certificate": { "emailAddresses": ["a@b"] } }), "malformed"),
    ] {
        let answer = ask(&site, id, secret, &body);
        assert_eq!((&answer["allow"], &answer["error"]["code"]), (&json!(false), &json!(code)), "{answer}");
    }
    let log = site.goodstanding(&["audit", "export"]).ok().out();
    assert!(log.contains("webhook step-ca w-1 from 127.0.0.1"), "{log}");
}
