//! Clients that we did not write: what they say of a good and of a revoked certificate.

use std::time::Duration;

use crate::support::ca::{KeyKind, Leaf};
use crate::support::clients::{self, AskWith, Verdict};
use crate::support::eventually;
use crate::support::nginx::{Nginx, Stapling};
use crate::support::server::Server;
use crate::support::site::{Pair, REASON, Site};

/// B1, C7, C8.
#[test]
fn openssl_gnutls_nss_and_python_accept_answers_signed_with_rsa_2048() {
    clients_accept(KeyKind::Rsa2048);
}

/// B1, C7, C8.
#[test]
fn openssl_gnutls_nss_and_python_accept_answers_signed_with_p256() {
    clients_accept(KeyKind::P256);
}

#[test]
fn nginx_staples_answers_signed_with_rsa_2048_and_curl_accepts_them() {
    nginx_staples(KeyKind::Rsa2048);
}

#[test]
fn nginx_staples_answers_signed_with_p256_and_curl_accepts_them() {
    nginx_staples(KeyKind::P256);
}

fn clients_accept(kind: KeyKind) {
    let site = Site::new(kind);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);

    let everything = Verdict::revoked(pair.at, REASON);
    let time_only = Verdict::Revoked { at: Some(pair.at), reason: None };
    let nothing_more = Verdict::Revoked { at: None, reason: None };
    let expected = [
        (&pair.good, [const { &Verdict::Good }; 7]),
        (
            &pair.revoked,
            [&everything, &everything, &everything, &everything, &everything, &time_only, &nothing_more],
        ),
    ];
    for (leaf, [post1, post256, get1, get256, python, gnutls, nss]) in expected {
        let (ca, url) = (&site.ca, site.url());
        assert_eq!(&clients::openssl_post(&url, ca, leaf, AskWith::Sha1), post1);
        assert_eq!(&clients::openssl_post(&url, ca, leaf, AskWith::Sha256), post256);
        assert_eq!(&clients::openssl_get(site.ocsp, ca, leaf, AskWith::Sha1), get1);
        assert_eq!(&clients::openssl_get(site.ocsp, ca, leaf, AskWith::Sha256), get256);
        assert_eq!(&python_reads(&site, leaf, kind), python);
        assert_eq!(&clients::ocsptool(&url, ca, leaf), gnutls);
        assert_eq!(&clients::ocspclnt(ca, leaf), nss);
    }
}

fn python_reads(site: &Site, leaf: &Leaf, kind: KeyKind) -> Verdict {
    let answer = site.path("answer.der");
    std::fs::write(&answer, clients::answer(site.ocsp, &site.ca, leaf)).unwrap();
    let (verdict, read) = clients::python_cryptography(&answer);
    assert_eq!(read["serial"].as_str().unwrap(), leaf.serial.to_lowercase().trim_start_matches('0'));
    assert_eq!(read["responder_by_key"], true);
    assert_eq!(read["hashes"], serde_json::json!(["sha1", "sha256"]));
    let algorithm = match kind {
        KeyKind::Rsa2048 => "sha256WithRSAEncryption",
        KeyKind::P256 => "ecdsa-with-SHA256",
    };
    assert_eq!(read["signature_algorithm"], algorithm);
    verdict
}

fn nginx_staples(kind: KeyKind) {
    let site = Site::new(kind);
    let Pair { good, revoked, .. } = site.good_and_revoked();
    let _server = Server::start(&site);
    let file = site.path("revoked.der");
    std::fs::write(&file, clients::answer(site.ocsp, &site.ca, &revoked)).unwrap();
    let servers = [
        Stapling { leaf: &good, file: None },
        Stapling { leaf: &revoked, file: None },
        Stapling { leaf: &revoked, file: Some(file) },
    ];
    let nginx = Nginx::start(&site.path("nginx"), &site.ca, &site.url(), &servers);

    // nginx asks only when a client has come, so the first client gets no status.
    eventually("a stapled good", Duration::from_secs(20), || {
        let ran = nginx.curl_cert_status(0);
        (ran.code() == 0).then(|| ran.says(&["SSL certificate status: good (0)", "served"]))
    });
    // nginx staples no answer that says revoked, but it says why.
    let refusal = r#"certificate status "revoked" in the OCSP response"#;
    eventually("nginx's word for revoked", Duration::from_secs(20), || {
        nginx.curl_cert_status(1).exits(91);
        nginx.log().contains(refusal).then_some(())
    });
    nginx.curl_cert_status(2).exits(91).says(&[
        "SSL certificate status: revoked (1)",
        "SSL certificate revocation reason: keyCompromise (1)",
    ]);
}
