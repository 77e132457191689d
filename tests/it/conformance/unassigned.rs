//! Serial numbers on no record, in all three positions of the setting.

use goodstanding::clock::UnixTime;
use goodstanding::ocsp::{CertStatus, CrlReason, HashAlgorithm, Revocation, request};

use super::asker::{Asker, UNAUTHORIZED, random_serial, serial};
use crate::support::ca::KeyKind;
use crate::support::server::Server;
use crate::support::site::Site;

/// The server, ready to be asked about serial numbers that nobody has, and one that somebody has.
fn with_setting(setting: &str, check: impl FnOnce(&Asker)) {
    let site = Site::new(KeyKind::P256);
    let text = site.default_configuration().replace("[control]", &format!("{setting}\n[control]"));
    site.configure(&match setting.contains("revoked") {
        true => text.replace("web-pki", "private"),
        false => text,
    });
    let pair = site.good_and_revoked();
    let _server = Server::start(&site);
    let asker = Asker::new(&site);
    let known = asker.cert_id(HashAlgorithm::Sha1, serial(&pair.good));
    let status = asker.answer(std::slice::from_ref(&known), None).single(&known).unwrap().status;
    assert_eq!(status, CertStatus::Good, "what is on record is answered");
    check(&asker);
}

const HASHES: [HashAlgorithm; 2] = [HashAlgorithm::Sha1, HashAlgorithm::Sha256];

/// B7, L7, L12.
#[test]
fn a_random_serial_is_unauthorized_by_get_and_by_post() {
    with_setting("", |asker| {
        for hash in HASHES {
            for _ in 0..20 {
                let asked = request::encode(&[asker.cert_id(hash, random_serial())], None).unwrap();
                for reply in [asker.get(&asked), asker.post(&asked)] {
                    assert_eq!(reply.body, UNAUTHORIZED);
                    assert_eq!(reply.header("cache-control"), Some("no-cache"));
                }
            }
        }
    });
}

/// B7, C8: the other position, signed on the spot in the hash asked for.
#[test]
fn a_random_serial_is_unknown_where_that_is_set() {
    with_setting("unknown_serial = \"unknown\"", |asker| {
        for hash in HashAlgorithm::ALL {
            let cert_id = asker.cert_id(hash, random_serial());
            let asked = request::encode(std::slice::from_ref(&cert_id), None).unwrap();
            for reply in [asker.get(&asked), asker.post(&asked)] {
                let received = asker.read(&reply.body);
                assert_eq!(received.single(&cert_id).unwrap().status, CertStatus::Unknown);
                assert!(received.extensions.is_empty());
                assert_eq!(reply.header("cache-control"), Some("no-store"));
            }
        }
    });
}

/// C20, C21, B7: the third position, which only the private preset allows (B8).
#[test]
fn a_random_serial_is_on_hold_since_1970_with_extended_revoke_where_that_is_set() {
    with_setting("unknown_serial = \"revoked\"", |asker| {
        for hash in HASHES {
            let cert_id = asker.cert_id(hash, random_serial());
            let asked = request::encode(std::slice::from_ref(&cert_id), None).unwrap();
            for reply in [asker.get(&asked), asker.post(&asked)] {
                let received = asker.read(&reply.body);
                let single = received.single(&cert_id).unwrap();
                let hold = Revocation { time: UnixTime(0), reason: Some(CrlReason::CertificateHold) };
                assert_eq!(single.status, CertStatus::Revoked(hold));
                assert!(single.extensions.is_empty(), "extended-revoke is a responseExtension");
                assert_eq!(received.extensions, ["1.3.6.1.5.5.7.48.1.9"]);
            }
        }
    });
}
