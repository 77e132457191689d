//! The engine over a real shelf. No responder is ready here, so whatever would be signed live is
//! answered tryLater: live answers are shown against a real token in `tests/it`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SigningKey};

use super::early::{self, EarlyReader};
use super::live::{self, LiveSigner};
use super::*;
use crate::clock::{Clock, ManualClock, SharedClock, UnixTime};
use crate::ocsp::{
    CertStatus, CrlReason, ErrorStatus, Freshness, HashAlgorithm, Issuer, Preset, Received, Request,
    ResponderId, ResponseData, Revocation, Serial, SignatureAlgorithm, SingleResponse, request,
    response::SingleExtras,
};
use crate::presign::Frames;
use crate::presign::identity::Identities;
use crate::presign::keeper::KeeperStats;
use crate::presign::{Policies, Policy};
use crate::shelf::{Entry, Frame, Shelf, SignedAnswer};
use crate::store::{self, AnswerOutcome, CertificateEntry, IssuerId, NewAnswer, NewResponder, Store};

const NOW: UnixTime = UnixTime(1_795_315_054);
const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    issuer: Arc<Issuer>,
    key: KeyPair,
    shelf: Arc<Shelf>,
    clock: Arc<ManualClock>,
    news: Arc<KeeperStats>,
    responder: Responder,
}

fn ca(name: &str) -> (Arc<Issuer>, KeyPair) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (Arc::new(Issuer::from_der(certificate.der()).unwrap()), key)
}

fn bench(unknown_serial: UnknownSerial) -> Bench {
    let (issuer, key) = ca("Test CA");
    let shelf = Arc::new(Shelf::new());
    let clock = Arc::new(ManualClock::new(NOW));
    let shared: SharedClock = clock.clone();
    let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap();
    let policies = Arc::new(ArcSwap::from_pointee(Policies::new(Policy::new(freshness))));
    let live = LiveSigner::new(
        Arc::new(Identities::default()),
        shared.clone(),
        Arc::clone(&policies),
        live::Settings::default(),
    );
    let directory = IssuerDirectory::new([(IssuerId(1), issuer.clone())]);
    let news = Arc::<KeeperStats>::default();
    let settings = Settings { unknown_serial, nonce: NoncePolicy::Ignore };
    let responder = Responder::new(directory, shelf.clone(), live, shared, policies, news.clone(), settings);
    let bench = Bench { issuer, key, shelf, clock, news, responder };
    bench.hear();
    bench
}

impl Bench {
    /// The store's changes are known up to now.
    fn hear(&self) {
        self.news.feed_read_at.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// Shelves a certificate that is in force from `NOW` for 90 days, with an answer of 7 days made
    /// now.
    fn shelve(&self, serial: Serial, revocation: Option<Revocation>) {
        let (made, next_update) = (self.clock.now(), self.clock.now().plus(7 * DAY));
        let (data, signature) = self.sign(serial, revocation);
        let frame = Arc::new(Frame { algorithm: SignatureAlgorithm::EcdsaP256Sha256, certificate: None });
        let entry = Entry {
            version: 1,
            not_before: Some(NOW),
            not_after: NOW.plus(90 * DAY),
            revocation,
            answer: Some(SignedAnswer {
                frame,
                pack: None,
                response_data: &data,
                signature: &signature,
                this_update: made,
                next_update,
                renewed_at: made.plus(3 * DAY),
            }),
        };
        assert!(self.shelf.put(IssuerId(1), serial, &entry));
    }

    /// The ResponseData of an answer of 7 days made now, and its signature.
    fn sign(&self, serial: Serial, revocation: Option<Revocation>) -> (Vec<u8>, Vec<u8>) {
        let status = revocation.map_or(CertStatus::Good, CertStatus::Revoked);
        let made = self.clock.now();
        let next_update = made.plus(7 * DAY);
        let single = |hash| SingleResponse {
            cert_id: self.issuer.cert_id(hash, serial),
            status,
            this_update: made,
            next_update,
            extras: SingleExtras::default(),
        };
        let data = ResponseData {
            responder_id: ResponderId::by_key(self.issuer.certificate()),
            produced_at: made,
            responses: vec![single(HashAlgorithm::Sha1), single(HashAlgorithm::Sha256)],
            nonce: None,
            extended_revoke: false,
        };
        let data = data.encode().unwrap();
        let signature = self.key.sign(&data).unwrap();
        (data, signature)
    }

    /// A store with one certificate and its answer, and the frames of its responder.
    async fn store(&self, folder: &Path, serial: Serial) -> (Arc<dyn Store>, Frames) {
        let store = store::open(&format!("sqlite://{}/fleet.db", folder.display())).await.unwrap();
        let issuer = store.add_issuer("ca", self.issuer.certificate().der()).await.unwrap().id;
        assert_eq!(issuer, IssuerId(1));
        let responder = NewResponder {
            issuer,
            token: "hsm".to_owned(),
            key: "ocsp".to_owned(),
            algorithm: "ecdsa-p256-sha256".to_owned(),
            certificate: self.issuer.certificate().der().to_vec(),
            not_after: NOW.plus(90 * DAY),
            from: None,
        };
        let responder = store.add_responder(&responder, NOW).await.unwrap().number;
        let not_after = NOW.plus(90 * DAY);
        let entry = CertificateEntry { serial, not_before: Some(NOW), not_after, revocation: None };
        store.register(issuer, &[entry]).await.unwrap();
        let certificate = store.certificate(issuer, &serial).await.unwrap().unwrap().certificate;
        let (response_data, signature) = self.sign(serial, None);
        let answer = NewAnswer {
            key: certificate.key,
            version: certificate.version,
            responder,
            this_update: NOW,
            next_update: NOW.plus(7 * DAY),
            response_data: response_data.into(),
            signature: signature.into(),
            packed: false,
        };
        assert_eq!(store.store_answers(&[answer], NOW).await.unwrap(), [AnswerOutcome::Stored]);
        let frame = Frame { algorithm: SignatureAlgorithm::EcdsaP256Sha256, certificate: None };
        (store, Frames::from([(responder, Arc::new(frame))]))
    }

    fn early(&self, store: Arc<dyn Store>, frames: Frames, settings: early::Settings) -> EarlyReader {
        let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap();
        let policies = ArcSwap::from_pointee(Policies::new(Policy::new(freshness)));
        let frames = ArcSwap::from_pointee(frames);
        EarlyReader::new(store, self.shelf.clone(), Arc::new(frames), Arc::new(policies), settings)
    }

    async fn ask(&self, issuer: &Issuer, hash: HashAlgorithm, serial: Serial) -> Answer {
        let der = request::encode(&[issuer.cert_id(hash, serial)], None).unwrap();
        let at_once = self.responder.respond_at_once(&der);
        let answer = self.responder.respond(&der).await;
        // Only what is signed or read for the question has to be waited for; tryLater may have been.
        let waited = matches!(answer.outcome, Outcome::Live | Outcome::TryLater);
        assert!(at_once.as_ref() == Some(&answer) || at_once.is_none() && waited, "{at_once:?}");
        answer
    }
}

fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

fn is_error(answer: &Answer, status: ErrorStatus) -> bool {
    answer.body[..] == *status.der() && answer.cache.is_none()
}

/// C7, C8: both questions get the one stored answer, which has a CertID of the hash asked for.
#[tokio::test]
async fn either_hash_is_answered_by_the_same_stored_answer() {
    let bench = bench(UnknownSerial::Unauthorized);
    let revocation = Revocation { time: UnixTime(1_790_000_000), reason: Some(CrlReason::KeyCompromise) };
    bench.shelve(serial("a1"), Some(revocation));
    let mut bodies = Vec::new();
    for hash in [HashAlgorithm::Sha1, HashAlgorithm::Sha256] {
        let answer = bench.ask(&bench.issuer, hash, serial("a1")).await;
        assert_eq!(answer.outcome, Outcome::Stored);
        let received = Received::decode(&answer.body).unwrap();
        let single = received.single(&bench.issuer.cert_id(hash, serial("a1"))).unwrap();
        assert_eq!(single.status, CertStatus::Revoked(revocation));
        received.verify(bench.issuer.certificate()).unwrap();
        let cache = answer.cache.unwrap();
        assert_eq!((cache.this_update, cache.next_update), (NOW, NOW.plus(7 * DAY)));
        assert_eq!(cache.digest[..], HashAlgorithm::Sha256.digest(&answer.body));
        bodies.push(answer.body);
    }
    assert_eq!(bodies[0], bodies[1]);
}

/// B3: an answer that was not signed again by its legal deadline is served until nextUpdate, and known for
/// what it is.
#[tokio::test]
async fn an_answer_past_the_legal_deadline_is_served_as_stale() {
    let bench = bench(UnknownSerial::Unauthorized);
    bench.shelve(serial("a1"), None);
    let ask = || bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("a1"));
    // Planned for 3 days; 4 days are the law.
    for (hours, is_stale) in [(0, false), (72, false), (73, false), (96, false), (97, true), (168, true)] {
        bench.clock.set(NOW.plus(Duration::from_secs(hours * 3_600)));
        let answer = ask().await;
        assert_eq!((answer.outcome, answer.is_stale), (Outcome::Stored, is_stale), "after {hours} hours");
    }
    bench.clock.advance(Duration::from_secs(1));
    assert!(is_error(&ask().await, ErrorStatus::TryLater), "past nextUpdate");
}

/// C1, C2.
#[tokio::test]
async fn what_is_no_request_is_malformed() {
    let bench = bench(UnknownSerial::Unauthorized);
    for octets in [&b""[..], b"\x30\x00", b"hello", &[0xff; 300]] {
        assert!(is_error(&bench.responder.respond(octets).await, ErrorStatus::MalformedRequest));
    }
}

/// C4, C5: a CA of the same name with another key is another issuer.
#[tokio::test]
async fn another_issuer_is_answered_unauthorized() {
    let bench = bench(UnknownSerial::Unknown);
    bench.shelf.set_complete();
    bench.shelve(serial("a1"), None);
    for name in ["Other CA", "Test CA"] {
        let (other, _) = ca(name);
        let answer = bench.ask(&other, HashAlgorithm::Sha1, serial("a1")).await;
        assert!(is_error(&answer, ErrorStatus::Unauthorized), "{name}");
    }
}

/// L7, C3: while the shelf is being filled nothing is said of what is not on it.
#[tokio::test]
async fn a_serial_on_no_record_is_unauthorized_once_the_shelf_is_complete() {
    let bench = bench(UnknownSerial::Unauthorized);
    let ask = || bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("b2"));
    assert!(is_error(&ask().await, ErrorStatus::TryLater));
    bench.shelf.set_complete();
    assert!(is_error(&ask().await, ErrorStatus::Unauthorized));
}

/// C3: a certificate that another process has just registered is not on the shelf while the store cannot
/// be read, so nothing is said of what is not there; what is stored is served all the same.
#[tokio::test]
async fn a_serial_on_no_record_is_try_later_while_changes_are_not_heard_of() {
    for unknown_serial in [UnknownSerial::Unauthorized, UnknownSerial::Unknown, UnknownSerial::Revoked] {
        let bench = bench(unknown_serial);
        bench.shelf.set_complete();
        bench.shelve(serial("a1"), None);
        bench.clock.advance(UNHEARD);
        let ask = |text| bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial(text));
        assert!(is_error(&ask("b2").await, ErrorStatus::TryLater), "{unknown_serial}");
        assert_eq!(ask("a1").await.outcome, Outcome::Stored);
        bench.hear();
        let heard = ask("b2").await;
        let status = match unknown_serial {
            UnknownSerial::Unauthorized => ErrorStatus::Unauthorized,
            // There is no token here to sign with.
            _ => ErrorStatus::TryLater,
        };
        assert!(is_error(&heard, status), "{unknown_serial}");
    }
}

/// C4: signatures on requests are ignored (L1), so nobody is asked for one, whatever is asked.
#[tokio::test]
async fn no_question_is_answered_sig_required() {
    let bench = bench(UnknownSerial::Unknown);
    bench.shelf.set_complete();
    bench.shelve(serial("a1"), None);
    let (other, _) = ca("Other CA");
    let ids = [
        bench.issuer.cert_id(HashAlgorithm::Sha1, serial("a1")),
        bench.issuer.cert_id(HashAlgorithm::Sha512, serial("a1")),
        bench.issuer.cert_id(HashAlgorithm::Sha256, serial("c3")),
        other.cert_id(HashAlgorithm::Sha1, serial("a1")),
    ];
    for first in &ids {
        for second in &ids {
            for nonce in [None, Some(&[7; 32][..]), Some(&[7; 8])] {
                let asked = [first.clone(), second.clone()];
                for asked in [&asked[..1], &asked] {
                    let answer = bench.responder.respond(&request::encode(asked, nonce).unwrap()).await;
                    assert_ne!(answer.outcome, Outcome::SigRequired);
                    assert_ne!(answer.body[..], *ErrorStatus::SigRequired.der());
                }
            }
        }
    }
}

/// C26: where nobody signs as the client prefers, the stored answer is as good as any.
#[tokio::test]
async fn a_preference_that_nobody_can_meet_gets_the_stored_answer() {
    let bench = bench(UnknownSerial::Unauthorized);
    bench.shelve(serial("a1"), None);
    let asked = [bench.issuer.cert_id(HashAlgorithm::Sha1, serial("a1"))];
    let plain = request::encode(&asked, None).unwrap();
    let stored = bench.responder.respond(&plain).await;
    let mut wishing = Request::decode(&plain).unwrap();
    for preferred in SignatureAlgorithm::ALL {
        wishing.preferred = vec![preferred];
        assert_eq!(bench.responder.answer(&wishing).await, stored, "{preferred}");
    }
}

/// L7, C17.
#[tokio::test]
async fn an_expired_or_not_yet_valid_certificate_is_unauthorized() {
    // Whatever is said of serial numbers on no record: this one is on record.
    for unknown_serial in [UnknownSerial::Unauthorized, UnknownSerial::Unknown, UnknownSerial::Revoked] {
        let bench = bench(unknown_serial);
        bench.shelf.set_complete();
        bench.shelve(serial("a1"), None);
        let ask = || bench.ask(&bench.issuer, HashAlgorithm::Sha256, serial("a1"));
        assert_eq!(ask().await.outcome, Outcome::Stored);
        bench.clock.set(UnixTime(NOW.0 - 1));
        assert!(is_error(&ask().await, ErrorStatus::Unauthorized), "{unknown_serial}");
        bench.clock.set(NOW.plus(90 * DAY + Duration::from_secs(1)));
        assert!(is_error(&ask().await, ErrorStatus::Unauthorized), "{unknown_serial}");
    }
}

/// B11: and no longer than that.
#[tokio::test]
async fn a_revoked_certificate_is_answered_until_it_expires() {
    let bench = bench(UnknownSerial::Unauthorized);
    bench.shelf.set_complete();
    let revocation = Revocation { time: NOW, reason: Some(CrlReason::KeyCompromise) };
    let cert_id = bench.issuer.cert_id(HashAlgorithm::Sha1, serial("a1"));
    for day in (0..=90).step_by(3) {
        bench.clock.set(NOW.plus(day * DAY));
        bench.shelve(serial("a1"), Some(revocation));
        bench.shelf.sweep(bench.clock.now());
        let answer = bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("a1")).await;
        let received = Received::decode(&answer.body).unwrap();
        assert_eq!(received.single(&cert_id).unwrap().status, CertStatus::Revoked(revocation), "day {day}");
    }
    bench.clock.advance(Duration::from_secs(1));
    bench.hear();
    bench.shelf.sweep(bench.clock.now());
    let answer = bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("a1")).await;
    assert!(is_error(&answer, ErrorStatus::Unauthorized));
}

/// C3: an answer past nextUpdate is never served; without a token to sign a new one it is tryLater.
#[tokio::test]
async fn an_expired_answer_is_never_served() {
    let bench = bench(UnknownSerial::Unauthorized);
    bench.shelve(serial("a1"), None);
    bench.clock.set(NOW.plus(7 * DAY));
    assert_eq!(bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("a1")).await.outcome, Outcome::Stored);
    bench.clock.advance(Duration::from_secs(1));
    let answer = bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("a1")).await;
    assert!(is_error(&answer, ErrorStatus::TryLater));
    assert_eq!(bench.clock.now(), NOW.plus(7 * DAY + Duration::from_secs(1)));
}

/// C7, C11: what no stored answer fits is signed live, and tryLater while no token can.
#[tokio::test]
async fn what_cannot_be_stored_ahead_waits_for_a_token() {
    let bench = bench(UnknownSerial::Unknown);
    bench.shelf.set_complete();
    bench.shelve(serial("a1"), None);
    bench.shelve(serial("a2"), None);
    for hash in [HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
        assert!(is_error(&bench.ask(&bench.issuer, hash, serial("a1")).await, ErrorStatus::TryLater));
    }
    assert!(is_error(
        &bench.ask(&bench.issuer, HashAlgorithm::Sha1, serial("c3")).await,
        ErrorStatus::TryLater
    ));
    let both = ["a1", "a2"].map(|text| bench.issuer.cert_id(HashAlgorithm::Sha1, serial(text)));
    let answer = bench.responder.respond(&request::encode(&both, None).unwrap()).await;
    assert!(is_error(&answer, ErrorStatus::TryLater));
}

/// C11: no responder signs for two issuers.
#[tokio::test]
async fn certificates_of_different_issuers_are_not_answered_together() {
    let bench = bench(UnknownSerial::Unknown);
    bench.shelf.set_complete();
    bench.shelve(serial("a1"), None);
    let (other, _) = ca("Other CA");
    let mixed = [
        bench.issuer.cert_id(HashAlgorithm::Sha1, serial("a1")),
        other.cert_id(HashAlgorithm::Sha1, serial("a1")),
    ];
    let answer = bench.responder.respond(&request::encode(&mixed, None).unwrap()).await;
    assert!(is_error(&answer, ErrorStatus::Unauthorized));
}

/// L3: with nonces ignored, a request with one gets the stored answer.
#[tokio::test]
async fn a_nonce_gets_the_stored_answer_where_nonces_are_ignored() {
    let bench = bench(UnknownSerial::Unauthorized);
    bench.shelve(serial("a1"), None);
    let asked = [bench.issuer.cert_id(HashAlgorithm::Sha1, serial("a1"))];
    let plain = bench.responder.respond(&request::encode(&asked, None).unwrap()).await;
    let with_nonce = bench.responder.respond(&request::encode(&asked, Some(&[7; 32])).unwrap()).await;
    assert_eq!(plain, with_nonce);
}

/// L3: with nonces on and no token, the best stored answer is better than none.
#[tokio::test]
async fn a_nonce_falls_back_to_the_stored_answer_when_nothing_can_be_signed() {
    let bench = bench(UnknownSerial::Unauthorized);
    bench
        .responder
        .replace_settings(Settings { unknown_serial: UnknownSerial::Unauthorized, nonce: NoncePolicy::Echo });
    bench.shelve(serial("a1"), None);
    let asked = [bench.issuer.cert_id(HashAlgorithm::Sha1, serial("a1"))];
    let answer = bench.responder.respond(&request::encode(&asked, Some(&[7; 32])).unwrap()).await;
    assert_eq!(answer.outcome, Outcome::Stored);
}

/// A fleet of millions takes a while to load: the first question need not wait for it.
#[tokio::test]
async fn what_is_not_on_the_shelf_yet_is_read_from_the_store() {
    let bench = bench(UnknownSerial::Unauthorized);
    let folder = tempfile::tempdir().unwrap();
    let (store, frames) = bench.store(folder.path(), serial("a1")).await;
    let reader = bench.early(store, frames, early::Settings::default());
    let issuer = bench.issuer.clone();
    let shelf = bench.shelf.clone();
    let responder = bench.responder.reading_early(reader);
    let ask = async |text| {
        let asked = issuer.cert_id(HashAlgorithm::Sha1, serial(text));
        responder.respond(&request::encode(&[asked], None).unwrap()).await
    };
    assert_eq!(shelf.certificates(), 0);
    let answer = ask("a1").await;
    assert_eq!(answer.outcome, Outcome::Stored);
    Received::decode(&answer.body).unwrap().verify(issuer.certificate()).unwrap();
    assert_eq!(shelf.answers(), 1);
    // What the store does not have is on no record, whatever the shelf will still get.
    assert!(is_error(&ask("a2").await, ErrorStatus::Unauthorized));
    assert!(!shelf.is_complete());
}

#[tokio::test]
async fn a_store_that_is_asked_too_much_is_left_to_fill_the_shelf() {
    let bench = bench(UnknownSerial::Unauthorized);
    let folder = tempfile::tempdir().unwrap();
    let (store, frames) = bench.store(folder.path(), serial("a1")).await;
    let settings = early::Settings { per_second: 1, ..early::Settings::default() };
    let reader = bench.early(store.clone(), frames, settings);
    let issuer = bench.issuer.clone();
    let responder = bench.responder.reading_early(reader);
    let mut waiting = 0;
    for text in ["b1", "b2", "b3", "b4", "a1"] {
        let asked = issuer.cert_id(HashAlgorithm::Sha1, serial(text));
        let answer = responder.respond(&request::encode(&[asked], None).unwrap()).await;
        waiting += usize::from(is_error(&answer, ErrorStatus::TryLater));
    }
    assert!(waiting >= 3, "{waiting} of five were told tryLater");
    store.close().await;
}
