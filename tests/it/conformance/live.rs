//! Answers that are signed on the spot, by a real token.

use goodstanding::ocsp::{CertId, CertStatus, HashAlgorithm, request};

use super::asker::{Asker, serial};
use crate::support::ca::KeyKind;
use crate::support::server::Server;
use crate::support::site::{Pair, Site};

fn serving(nonce: &str, check: impl FnOnce(&Asker, &Pair)) {
    let site = Site::new(KeyKind::P256);
    site.reconfigure("[control]", &format!("nonce = \"{nonce}\"\n[control]"));
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    check(&Asker::new(&site), &pair);
}

/// N1, N2, N3, N4, N5: nonces are on.
#[test]
fn a_nonce_is_echoed_by_its_length_and_its_answer_is_for_no_cache() {
    serving("echo", |asker, pair| {
        let cert_id = asker.cert_id(HashAlgorithm::Sha256, serial(&pair.good));
        for length in [0_usize, 1, 15, 16, 20, 32, 33, 128, 129] {
            let nonce = vec![0xa5; length];
            let reply = asker.post(&request::encode(std::slice::from_ref(&cert_id), Some(&nonce)).unwrap());
            if matches!(length, 0 | 129) {
                assert_eq!(reply.body, [0x30, 3, 0x0a, 1, 1], "{length}");
                continue;
            }
            let received = asker.read(&reply.body);
            assert_eq!(received.single(&cert_id).unwrap().status, CertStatus::Good);
            let cache = reply.header("cache-control").unwrap();
            if (16..=32).contains(&length) {
                assert_eq!(received.nonce, Some(nonce));
                assert_eq!(cache, "no-store");
                assert_eq!(reply.header("etag"), None);
            } else {
                assert_eq!(received.nonce, None, "{length}");
                assert!(received.extensions.is_empty() && cache.starts_with("max-age="), "{cache}");
            }
        }
    });
}

/// N1, N2, L3: nonces are off, and what is malformed stays malformed.
#[test]
fn a_nonce_gets_the_stored_answer_where_nonces_are_off() {
    serving("ignore", |asker, pair| {
        let cert_id = asker.cert_id(HashAlgorithm::Sha1, serial(&pair.good));
        let ask = |nonce: Option<&[u8]>| {
            asker.post(&request::encode(std::slice::from_ref(&cert_id), nonce).unwrap()).body
        };
        let stored = ask(None);
        assert_eq!(asker.read(&stored).nonce, None);
        for length in [1, 15, 16, 32, 33, 128] {
            assert_eq!(ask(Some(&vec![1; length])), stored, "{length}");
        }
        for length in [0, 129] {
            assert_eq!(ask(Some(&vec![1; length])), [0x30, 3, 0x0a, 1, 1], "{length}");
        }
    });
}

/// C7, C8: no stored answer has these hashes.
#[test]
fn sha384_and_sha512_questions_are_answered_in_their_own_hash() {
    serving("ignore", |asker, pair| {
        for hash in [HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
            for (leaf, is_good) in [(&pair.good, true), (&pair.revoked, false)] {
                let cert_id = asker.cert_id(hash, serial(leaf));
                let received = asker.answer(std::slice::from_ref(&cert_id), None);
                assert_eq!(received.responses.len(), 1);
                let status = received.single(&cert_id).unwrap().status;
                assert_eq!(status == CertStatus::Good, is_good, "{hash}");
            }
        }
    });
}

/// C11, C8: two, the same one twice, hashes mixed, and as many as are allowed; one more is malformed.
#[test]
fn every_certificate_of_a_request_is_answered_in_order_under_one_signature() {
    serving("echo", |asker, pair| {
        let [good, revoked] = [&pair.good, &pair.revoked].map(serial);
        let ask = |hash, serial| asker.cert_id(hash, serial);
        let two = vec![ask(HashAlgorithm::Sha1, revoked), ask(HashAlgorithm::Sha1, good)];
        let twice = vec![ask(HashAlgorithm::Sha1, good); 2];
        let mixed = HashAlgorithm::ALL.map(|hash| ask(hash, good)).to_vec();
        let most: Vec<CertId> = two.iter().cloned().cycle().take(64).collect();
        for asked in [two, twice, mixed, most.clone()] {
            let received = asker.answer(&asked, Some(&[9; 16]));
            let answered: Vec<_> = received.responses.iter().map(|single| single.cert_id.clone()).collect();
            assert_eq!(answered, asked);
            for single in &received.responses {
                assert_eq!(single.status == CertStatus::Good, single.cert_id.serial == good);
            }
            assert_eq!(received.nonce.as_deref(), Some(&[9; 16][..]));
        }
        let one_more = [&most[..], &most[..1]].concat();
        let reply = asker.post(&request::encode(&one_more, None).unwrap());
        assert_eq!(reply.body, [0x30, 3, 0x0a, 1, 1]);
    });
}
