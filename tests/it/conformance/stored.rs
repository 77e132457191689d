//! Stored answers, as the running server gives them.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use goodstanding::clock::{Clock, SystemClock};
use goodstanding::ocsp::{CertStatus, CrlReason, HashAlgorithm, Received, ResponderId, tlv};

use super::asker::{Asker, certificate, extension, serial, written};
use crate::support::ca::KeyKind;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

/// Asks about the good and the revoked certificate of a new site with either hash.
fn stored_answers(kind: KeyKind, configure: impl FnOnce(&Site), check: impl Fn(&Site, &Asker, &Received)) {
    let site = Site::new(kind);
    configure(&site);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    for leaf in [&pair.good, &pair.revoked] {
        for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
            let cert_id = asker.cert_id(hash, serial(leaf));
            let received = asker.answer(std::slice::from_ref(&cert_id), None);
            assert!(received.single(&cert_id).is_some(), "{hash} of {}", leaf.name);
            check(&site, &asker, &received);
        }
    }
}

/// L2, L3, L4, L8, L10, C16, B2, B5, B9.
#[test]
fn a_stored_answer_is_a_pair_under_one_signature_with_the_delegate_and_no_extensions() {
    stored_answers(
        KeyKind::P256,
        |_| {},
        |site, _, received| {
            let [one, other] = &received.responses[..] else { panic!("{:?}", received.responses) };
            assert_eq!((one.cert_id.hash, other.cert_id.hash), (HashAlgorithm::Sha1, HashAlgorithm::Sha256));
            assert_eq!(one.cert_id.serial, other.cert_id.serial);
            assert_eq!(one.status, other.status);
            let delegate = certificate(&site.responder_certificate());
            assert_eq!(received.certificates, [delegate.der()]);
            assert!(received.extensions.is_empty() && received.nonce.is_none());
            for single in [one, other] {
                assert!(single.extensions.is_empty() && !single.has_fractions);
                assert_eq!(single.this_update, received.produced_at);
                assert!(received.produced_at <= SystemClock.now());
                let next_update = single.next_update.unwrap();
                assert_eq!(next_update.0 - single.this_update.0, 7 * 86_400 - 1);
                assert!(next_update <= delegate.not_after());
            }
        },
    );
}

/// L5, C13, C14: by key is the setting that is in force unless another is chosen, and always SHA-1.
#[test]
fn the_responder_is_named_by_the_sha1_of_its_key() {
    stored_answers(
        KeyKind::P256,
        |_| {},
        |site, _, received| {
            let delegate = certificate(&site.responder_certificate());
            let ResponderId::ByKey(key) = &received.responder_id else {
                panic!("{:?}", received.responder_id)
            };
            assert_eq!(key[..], HashAlgorithm::Sha1.digest(delegate.public_key()));
        },
    );
}

/// L5, C13: the other position of the setting.
#[test]
fn the_responder_is_named_by_its_subject_where_that_is_set() {
    stored_answers(
        KeyKind::P256,
        |site| site.reconfigure("[control]", "responder_id = \"by-name\"\n[control]"),
        |site, _, received| {
            let delegate = certificate(&site.responder_certificate());
            assert_eq!(received.responder_id, ResponderId::ByName(delegate.subject_name().to_vec()));
        },
    );
}

/// B13: the identifier of RSA has NULL parameters.
#[test]
fn rsa_signs_with_sha256_under_the_exact_identifier() {
    stored_answers(
        KeyKind::Rsa2048,
        |_| {},
        |_, _, received| {
            assert_eq!(
                received.signature_algorithm,
                b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"
            );
        },
    );
}

/// B13: the identifier of ECDSA has no parameters.
#[test]
fn ecdsa_signs_with_sha256_under_the_exact_identifier() {
    stored_answers(
        KeyKind::P256,
        |_| {},
        |_, _, received| {
            assert_eq!(received.signature_algorithm, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02");
        },
    );
}

/// C27.
#[test]
fn one_command_has_every_certificate_of_a_compromised_ca_answered_revoked() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    let status = |leaf| {
        let cert_id = asker.cert_id(HashAlgorithm::Sha256, serial(leaf));
        asker.answer(std::slice::from_ref(&cert_id), None).single(&cert_id).unwrap().status
    };
    assert_eq!(status(&pair.good), CertStatus::Good);
    let before = status(&pair.revoked);
    let all = ["revoke", "--issuer", ISSUER, "--all", "--reason", "CACompromise"];
    assert_eq!(site.json(&all), serde_json::json!({ "revoked": 1, "before": 1 }));
    let seen = eventually("the revocation", Duration::from_secs(5), || match status(&pair.good) {
        CertStatus::Revoked(revocation) => Some(revocation),
        _ => None,
    });
    assert_eq!(seen.0.reason, Some(CrlReason::CaCompromise));
    assert_eq!(status(&pair.revoked), before, "an earlier revocation stays as it was");
    assert_eq!(site.json(&all), serde_json::json!({ "revoked": 0, "before": 2 }), "nothing more to do");
}

/// C24, C25, L1: what a request may carry besides, and the answer is the stored one all the same.
#[test]
fn locators_wishes_names_and_signatures_change_nothing_and_no_url_is_fetched() {
    let site = Site::new(KeyKind::P256);
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(&pair.good));
    let plain = asker.post(&written(&cert_id, [&[]; 4])).body;
    asker.read(&plain);

    let fetched = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    fetched.set_nonblocking(true).unwrap();
    let url = format!("http://127.0.0.1:{}/", fetched.local_addr().unwrap().port());
    // ServiceLocator { issuer, locator AuthorityInfoAccessSyntax }.
    let method = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01";
    let access = tlv::value(tlv::SEQUENCE, &[method, &tlv::value(0x86, &[url.as_bytes()])]);
    let subject = asker.issuer.certificate().subject_name();
    let locator = tlv::value(tlv::SEQUENCE, &[subject, &tlv::value(tlv::SEQUENCE, &[&access])]);
    let locator = extension(7, &locator);
    // AcceptableResponses without id-pkix-ocsp-basic.
    let acceptable = extension(4, b"\x30\x0b\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x09");
    // PreferredSignatureAlgorithms: sha1WithRSAEncryption.
    let preferred =
        extension(8, b"\x30\x11\x30\x0f\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00");
    let requestor = tlv::value(tlv::context(1), &[&tlv::value(tlv::context(4), &[subject])]);
    let signature = tlv::value(
        tlv::SEQUENCE,
        &[b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", &tlv::bit_string(&[7; 70])],
    );
    let signature = tlv::value(tlv::context(0), &[&signature]);
    let none: &[u8] = &[];
    for (what, parts) in [
        ("service locator", [none, &locator, none, none]),
        ("acceptable responses", [none, none, &acceptable, none]),
        ("preferred algorithms", [none, none, &preferred, none]),
        ("requestorName", [&requestor, none, none, none]),
        ("requestorName and signature", [&requestor, none, none, &signature]),
    ] {
        assert_eq!(asker.post(&written(&cert_id, parts)).body, plain, "{what}");
    }
    std::thread::sleep(Duration::from_millis(300));
    let visit = fetched.accept().map(|(_, from)| from);
    assert_eq!(visit.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody fetched the locator");
}
