//! Preferred signature algorithms (RFC 6960 section 4.4.7), with an RSA key beside an EC key.

use goodstanding::ocsp::{CertId, HashAlgorithm, SignatureAlgorithm, request, tlv};

use super::asker::{Asker, extension, serial, written};
use crate::support::ca::{KeyKind, utf8};
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};

const SHA1_RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00";

/// A site whose responder signs with P-256, and a second one with RSA.
fn with_rsa_beside() -> Site {
    let site = Site::new(KeyKind::P256);
    let [request, made] = ["rsa.csr", "rsa.pem"].map(|file| site.path(file));
    let issuer = ["--issuer", ISSUER];
    let key = ["--key", "ocsp-test-rsa"];
    site.goodstanding(&[&["responder", "key"], &issuer[..], &key, &["--algorithm", "rsa-2048"]].concat())
        .ok();
    site.goodstanding(&[&["responder", "csr"], &issuer[..], &key, &["--out", utf8(&request)]].concat()).ok();
    let ca_key = site.ca.key();
    let files = ["--csr", utf8(&request), "--ca-key", utf8(&ca_key), "--out", utf8(&made)];
    site.goodstanding(&[&["responder", "certify"], &issuer[..], &files].concat()).ok();
    let text = site.default_configuration();
    site.configure(&format!(
        "{text}  [[issuer.responder]]\n  token = \"hsm-a\"\n  key = \"ocsp-test-rsa\"\n  certificate = \"{}\"\n",
        made.display()
    ));
    site
}

/// PreferredSignatureAlgorithms.
fn preferring(algorithms: &[&[u8]]) -> Vec<u8> {
    let list: Vec<_> = algorithms.iter().map(|identifier| tlv::value(tlv::SEQUENCE, &[identifier])).collect();
    let list = list.iter().map(Vec::as_slice).collect::<Vec<_>>();
    extension(8, &tlv::value(tlv::SEQUENCE, &list))
}

/// C26, B13: the stored answer is signed with the first key; who prefers what the second one makes gets
/// it, live; and nobody gets SHA-1.
#[test]
fn the_preferred_algorithm_is_signed_with_and_a_weak_one_never() {
    let site = with_rsa_beside();
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site).until_live(serial(&pair.good));
    let [ec, rsa, pss, ed] = [
        SignatureAlgorithm::EcdsaP256Sha256,
        SignatureAlgorithm::RsaPkcs1Sha256,
        SignatureAlgorithm::RsaPssSha256,
        SignatureAlgorithm::Ed25519,
    ]
    .map(SignatureAlgorithm::identifier_der);
    let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(&pair.good));
    let ask = |cert_id: &CertId, algorithms: &[&[u8]]| {
        let request = written(cert_id, [&[], &[], &preferring(algorithms), &[]]);
        [asker.post(&request), asker.get(&request)]
    };
    let stored = asker.post(&request::encode(std::slice::from_ref(&cert_id), None).unwrap()).body;
    assert_eq!(asker.read(&stored).signature_algorithm, ec);
    for algorithms in [&[ec][..], &[SHA1_RSA], &[pss, ed], &[rsa, ec], &[SHA1_RSA, ec], &[]] {
        for reply in ask(&cert_id, algorithms) {
            assert_eq!(reply.body, stored, "{algorithms:02x?}");
        }
    }
    for algorithms in [&[rsa][..], &[SHA1_RSA, rsa], &[ed, rsa, SHA1_RSA]] {
        for reply in ask(&cert_id, algorithms) {
            let received = asker.read(&reply.body);
            assert_eq!(received.signature_algorithm, rsa, "{algorithms:02x?}");
            assert!(received.single(&cert_id).is_some());
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
    }
    // What is signed live anyway is signed as preferred, and with the first key otherwise.
    let in_sha512 = asker.cert_id(HashAlgorithm::Sha512, serial(&pair.revoked));
    for (algorithms, expected) in [(&[rsa, ec][..], rsa), (&[ec, rsa], ec), (&[SHA1_RSA], ec)] {
        for reply in ask(&in_sha512, algorithms) {
            assert_eq!(asker.read(&reply.body).signature_algorithm, expected, "{algorithms:02x?}");
        }
    }
}
