//! What is set for one issuer: how long its answers last, history, CRLs; and what it keeps on hold.

use std::time::Duration;

use goodstanding::clock::UnixTime;
use goodstanding::ocsp::{CertStatus, CrlReason, HashAlgorithm, request, tlv};

use super::asker::{Asker, UNAUTHORIZED, certificate, random_serial, serial};
use crate::support::ca::{KeyKind, utf8};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

const DAY: i64 = 86_400;
const CRL_ID: &str = "1.3.6.1.5.5.7.48.1.3";
const ARCHIVE_CUTOFF: &str = "1.3.6.1.5.5.7.48.1.6";

/// An installation whose issuer has these settings of its own.
fn site_with(own: &str) -> Site {
    let site = Site::new(KeyKind::P256);
    site.reconfigure("  [[issuer.responder]]", &format!("{own}\n  [[issuer.responder]]"));
    site
}

/// Whether these octets stand somewhere in it.
fn holds(der: &[u8], octets: &[u8]) -> bool {
    der.windows(octets.len()).any(|window| window == octets)
}

/// B10, B5, L11: a year, no cache keeps it past a day, and a revocation is there at once.
#[test]
fn the_status_of_a_subordinate_ca_lasts_a_year_and_its_revocation_is_seen_within_a_day() {
    let site = site_with("preset = \"sub-ca\"\nvalidity = \"365d\"\nrefresh = \"90d\"");
    // The delegate must last as long.
    let (request, made) = (site.path("responder.csr"), site.responder_certificate());
    let (ca_key, issuer) = (site.ca.key(), ["--issuer", ISSUER]);
    let files = ["--csr", utf8(&request), "--ca-key", utf8(&ca_key), "--out", utf8(&made), "--days", "366"];
    site.goodstanding(&[&["responder", "certify"], &issuer[..], &files].concat()).ok();
    let leaf = site.ca.issue("sub-ca.example.org");
    site.import_index();
    site.goodstanding(&["presign"]).ok();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    let cert_id = asker.cert_id(HashAlgorithm::Sha256, serial(&leaf));
    let asked = request::encode(std::slice::from_ref(&cert_id), None).unwrap();
    let reply = asker.get(&asked);
    let received = asker.read(&reply.body);
    let single = received.single(&cert_id).unwrap();
    assert_eq!(single.next_update.unwrap().0 - single.this_update.0, 365 * DAY - 1);
    let control = reply.header("cache-control").unwrap();
    let age = control.strip_prefix("max-age=").unwrap().split(',').next().unwrap();
    assert!((1..=DAY).contains(&age.parse::<i64>().unwrap()), "{control}");

    let revoke = ["revoke", "--issuer", ISSUER, "--serial", &leaf.serial, "--reason", "cACompromise"];
    site.goodstanding(&revoke).ok();
    eventually("the revocation", Duration::from_secs(5), || {
        let answer = asker.read(&asker.get(&asked).body);
        matches!(answer.single(&cert_id).unwrap().status, CertStatus::Revoked(_)).then_some(())
    });
}

/// C22, B9: of a revoked certificate, stored and live; of a good one there is no CRL to name.
#[test]
fn a_revoked_certificate_is_answered_with_its_crl_where_that_is_set() {
    let url = "http://crl.example.org/test.crl";
    let site = site_with(&format!("crl_url = \"{url}\""));
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site).until_live(serial(&pair.good));
    let url = tlv::value(tlv::context(0), &[&tlv::value(0x16, &[url.as_bytes()])]);
    let crl_id = tlv::value(tlv::SEQUENCE, &[&url]);
    for hash in HashAlgorithm::ALL {
        for (leaf, is_revoked) in [(&pair.good, false), (&pair.revoked, true)] {
            let cert_id = asker.cert_id(hash, serial(leaf));
            let reply = asker.post(&request::encode(std::slice::from_ref(&cert_id), None).unwrap());
            let received = asker.read(&reply.body);
            let expected: &[&str] = if is_revoked { &[CRL_ID] } else { &[] };
            assert_eq!(received.single(&cert_id).unwrap().extensions, expected, "{hash}");
            assert!(received.extensions.is_empty(), "L3 forbids responseExtensions only");
            assert_eq!(holds(&reply.body, &crl_id), is_revoked, "{hash}");
        }
    }
}

/// C22, C23, C20: RFC 6960 section 2.2 bars a CRL reference for what was never issued.
#[test]
fn a_serial_that_was_never_issued_is_answered_without_crl_and_history() {
    let site = Site::new(KeyKind::P256);
    let own = "crl_url = \"http://crl.example.org/x.crl\"\nhistory = \"30d\"\n  [[issuer.responder]]";
    let text = site.default_configuration().replace("  [[issuer.responder]]", own);
    let text = text.replace("[control]", "unknown_serial = \"revoked\"\n[control]");
    site.configure(&text.replace("web-pki", "private"));
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site).until_live(serial(&pair.good));
    let cert_id = asker.cert_id(HashAlgorithm::Sha1, random_serial());
    let received = asker.answer(std::slice::from_ref(&cert_id), None);
    let single = received.single(&cert_id).unwrap();
    assert_eq!(single.status, CertStatus::NEVER_ISSUED);
    assert!(single.extensions.is_empty(), "{:?}", single.extensions);
}

/// C23, C17, L7: with a history long enough, and with one too short.
#[test]
fn an_expired_certificate_is_answered_with_an_archive_cutoff_where_history_is_served() {
    for (days, is_answered) in [(3_000_i64, true), (30, false)] {
        let site = site_with(&format!("history = \"{days}d\""));
        let (expired, current) = (site.ca.issue_expired("old.example.org"), site.ca.issue("new.example.org"));
        site.import_index();
        let signed = site.json(&["presign"])["signed"].as_u64();
        assert_eq!(signed, Some(1 + u64::from(is_answered)));
        let _server = Server::start(&site);
        let asker = Asker::new(&site);
        for leaf in [&expired, &current] {
            let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(leaf));
            let asked = request::encode(std::slice::from_ref(&cert_id), None).unwrap();
            let body = asker.post(&asked).body;
            if leaf.name == expired.name && !is_answered {
                assert_eq!(body, UNAUTHORIZED);
                continue;
            }
            let received = asker.read(&body);
            assert_eq!(received.single(&cert_id).unwrap().extensions, [ARCHIVE_CUTOFF], "{}", leaf.name);
            let cutoff = UnixTime(received.produced_at.0 - days * DAY);
            let cutoff = cutoff.to_datetime().format("%Y%m%d%H%M%SZ").to_string();
            assert!(holds(&body, &tlv::value(0x18, &[cutoff.as_bytes()])), "{cutoff}");
        }
        let next = site.explain(&expired.serial)["next"].as_str().unwrap().to_owned();
        assert_eq!(next.starts_with("a new answer"), is_answered, "{next}");
    }
}

/// B8: a hold that the CA recorded is told wherever it is seen, and served as it is: neither good nor
/// revoked for a reason that nobody gave would be true.
#[test]
fn a_hold_under_a_public_preset_is_listed_and_served_as_recorded() {
    let site = Site::new(KeyKind::P256);
    let leaf = site.ca.issue("on-hold.example.org");
    site.ca.revoke(&leaf, "certificateHold");
    let report = site.import_index();
    assert_eq!(report["holds"]["count"], 1, "{report}");
    let index = site.ca.index();
    let said = site.goodstanding(&["import", "index", utf8(&index), "--issuer", ISSUER]).ok();
    said.says(&["on hold, which the preset web-pki bars", "4.9.13"]);
    let explained = site.explain(&leaf.serial);
    assert!(explained["warnings"][0].as_str().unwrap().contains("web-pki bars"), "{explained}");
    let refused = ["revoke", "--issuer", ISSUER, "--serial", &leaf.serial, "--reason", "certificateHold"];
    site.goodstanding(&refused).exits(2).says(&["bars certificateHold"]);

    site.goodstanding(&["presign"]).ok();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(&leaf));
    let status = asker.answer(std::slice::from_ref(&cert_id), None).single(&cert_id).unwrap().status;
    let CertStatus::Revoked(revocation) = status else { panic!("{status:?}") };
    assert_eq!(revocation.reason, Some(CrlReason::CertificateHold));

    site.reconfigure("preset = \"web-pki\"", "preset = \"private\"");
    assert_eq!(site.explain(&leaf.serial)["warnings"], serde_json::json!([]));
}

/// B6, B1: a precertificate is a promise to issue, so it counts as issued (RFC 6962 section 3.1).
#[test]
fn a_precertificate_is_answered_as_soon_as_it_is_registered() {
    let site = Site::new(KeyKind::P256);
    let _server = Server::start(&site);
    let leaf = site.ca.issue_precertificate("new.example.org");
    let poison = b"\x06\x0a\x2b\x06\x01\x04\x01\xd6\x79\x02\x04\x03\x01\x01\xff\x04\x02\x05\x00";
    assert!(holds(certificate(&leaf.certificate).der(), poison), "it is a precertificate");
    let asker = Asker::new(&site);
    let cert_id = asker.cert_id(HashAlgorithm::Sha256, serial(&leaf));
    let asked = request::encode(std::slice::from_ref(&cert_id), None).unwrap();
    assert_eq!(asker.post(&asked).body, UNAUTHORIZED);
    site.goodstanding(&["import", "certs", utf8(&leaf.certificate)]).ok();
    eventually("the first answer", Duration::from_secs(10), || {
        let answers = [asker.get(&asked).body, asker.post(&asked).body];
        let good = |body: &Vec<u8>| {
            let received = goodstanding::ocsp::Received::decode(body).ok()?;
            (received.single(&cert_id)?.status == CertStatus::Good).then_some(())
        };
        answers.iter().all(|body| good(body).is_some()).then_some(())
    });
}
