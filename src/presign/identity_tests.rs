//! Several identities of one issuer, on real tokens.

use futures_util::{StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use super::*;
use crate::ocsp::{KeyAlgorithm, Preset, Revocation};
use crate::signer::testing::{Hsm, REMOTE, block_on, remote, test_name, with_token, with_token_and};
use crate::signer::{KeyReference, Settings, admin};
use crate::store::{AnswerTimes, CertificateKey, CertificateRecord, Shard};

const NOW: UnixTime = UnixTime(1_795_315_054);
const DAY: Duration = Duration::from_secs(86_400);
const ISSUER: IssuerId = IssuerId(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn issuer() -> Arc<Issuer> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Arc::new(Issuer::from_der(params.self_signed(&key).unwrap().der()).unwrap())
}

fn policy() -> Policy {
    Policy::new(Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap())
}

/// An identity with a key of its own, made in the token of `made_in`, which may be the same.
async fn identity(issuer: &Arc<Issuer>, number: i64, settings: Settings, made_in: &Settings) -> Identity {
    let label = format!("key {number}");
    let public = admin::generate_key(made_in, &label, label.as_bytes(), KeyAlgorithm::P256).unwrap();
    let signer = Signer::start(settings).await.unwrap();
    let algorithm = KeyAlgorithm::P256.default_signature();
    let key = signer.prepare_key(KeyReference::Label(label), algorithm, public.key).await.unwrap();
    Identity {
        issuer: Arc::clone(issuer),
        issuer_id: ISSUER,
        responder: ResponderNumber(number),
        responder_id: ResponderId::by_key(issuer.certificate()),
        frame: Arc::new(Frame { algorithm, certificate: None }),
        not_before: NOW,
        not_after: NOW.plus(90 * DAY),
        rank: 0,
        cert_id_hashes: vec![HashAlgorithm::Sha256],
        crl_url: None,
        history: Duration::ZERO,
        signer,
        key,
        health: Health::default(),
    }
}

fn serial(number: u64) -> Serial {
    Serial::from_unsigned(&number.to_be_bytes()).unwrap()
}

/// A token that others use too: caps make a test's rates those of no particular machine.
fn capped(settings: Settings, rate: u32) -> Settings {
    Settings { max_rate: std::num::NonZeroU32::new(rate), ..settings }
}

/// Signs an answer for this serial number.
async fn sign(identities: &Identities, number: u64) -> Result<SignedDraft, IdentityError> {
    let draft = |identity: &Identity| identity.draft(serial(number), CertStatus::Good, &policy(), NOW);
    identities.sign(ISSUER, NOW, 7 * DAY, Order::new(Lane::Refresh, NOW), draft).await
}

/// Signs so many, `in_flight` at a time; how many each responder signed.
async fn sign_many(identities: &Identities, numbers: std::ops::Range<u64>, in_flight: usize) -> [u64; 3] {
    let mut by_responder = [0; 3];
    let mut signing =
        stream::iter(numbers).map(|number| sign(identities, number)).buffer_unordered(in_flight);
    while let Some(signed) = signing.next().await {
        let SignedDraft { identity, draft, signature } = signed.unwrap();
        let key = identity.key.public_key();
        identity.key.algorithm().verify(key, &draft.response_data, &signature).unwrap();
        by_responder[usize::try_from(identity.responder.0).unwrap()] += 1;
    }
    by_responder
}

async fn stop(identities: Identities) {
    for identity in identities.all().iter() {
        assert!(identity.signer.stop(PATIENCE).await);
    }
}

#[test]
fn work_flows_to_each_token_in_proportion_to_its_rate() {
    with_token(test_name!(), |place| {
        block_on(async {
            let issuer = issuer();
            let slow = capped(place.settings(), 100);
            let fast = capped(place.another("fast", "another token"), 300);
            let identities = Identities::new(vec![
                identity(&issuer, 1, slow.clone(), &slow).await,
                identity(&issuer, 2, fast.clone(), &fast).await,
            ]);
            let watch = Stopwatch::start();
            let [_, slow, fast] = sign_many(&identities, 0..1_600, 64).await;
            let seconds = watch.elapsed().as_secs_f64();
            assert_eq!(slow + fast, 1_600);
            let proportion = fast as f64 / slow as f64;
            assert!((2.55..=3.45).contains(&proportion), "{slow} and {fast}");
            assert!(seconds < 1_600.0 / 400.0 * 1.25, "both at work all the time: {seconds} s");
            for (identity, cap) in identities.all().iter().zip([100.0, 300.0]) {
                let rate = identity.signer.stats().rate.expect("work waited for seconds");
                assert!((rate.per_second / cap - 1.0).abs() < 0.15, "{rate:?} at a cap of {cap}");
            }
            stop(identities).await;
        });
    });
}

#[test]
fn a_lone_signature_goes_to_the_token_that_has_it_done_first() {
    with_token(test_name!(), |place| {
        block_on(async {
            let issuer = issuer();
            let slow = capped(place.settings(), 10);
            let fast = place.another("fast", "another token");
            let identities = Identities::new(vec![
                identity(&issuer, 1, slow.clone(), &slow).await,
                identity(&issuer, 2, fast.clone(), &fast).await,
            ]);
            assert_eq!(sign_many(&identities, 0..20, 1).await, [0, 0, 20]);
            // A certificate that lasts longer counts more than a token that is faster.
            let ending = |each: &Arc<Identity>| Identity {
                not_after: if each.responder.0 == 1 { NOW.plus(90 * DAY) } else { NOW.plus(DAY) },
                ..Identity::clone(each)
            };
            identities.replace(identities.all().iter().map(ending).collect());
            assert_eq!(sign_many(&identities, 0..5, 1).await, [0, 5, 0]);
            stop(identities).await;
        });
    });
}

#[test]
fn a_token_that_is_killed_leaves_its_work_to_the_other_until_it_is_back() {
    with_token_and(test_name!(), remote, |place| {
        block_on(async {
            let issuer = issuer();
            let hsm = Hsm::plug_in(place);
            let local = capped(place.another("local", "another token"), 200);
            let far = Settings {
                module: REMOTE.into(),
                call_timeout: Duration::from_secs(1),
                ..capped(place.settings(), 200)
            };
            let identities = Identities::new(vec![
                identity(&issuer, 1, far, &place.settings()).await,
                identity(&issuer, 2, local.clone(), &local).await,
            ]);
            let [_, far, near] = sign_many(&identities, 0..200, 32).await;
            assert!(far > 20 && near > 20, "{far} and {near}");

            let (during, ()) = tokio::join!(sign_many(&identities, 400..800, 32), async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(hsm);
            });
            assert_eq!(during[1] + during[2], 400, "nothing is lost: {during:?}");
            assert_eq!(sign_many(&identities, 3_000..3_050, 32).await, [0, 0, 50]);

            let _hsm = Hsm::plug_in(place);
            let watch = Stopwatch::start();
            while identities.all()[0].signer.state() != TokenState::Serving {
                assert!(watch.elapsed() < PATIENCE, "{:?}", identities.all()[0].signer.stats());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let [_, far, near] = sign_many(&identities, 4_000..4_200, 32).await;
            assert!(far > 20 && near > 20, "{far} and {near}");
            stop(identities).await;
        });
    });
}

#[test]
fn a_key_that_is_gone_draws_no_work_to_its_token() {
    with_token(test_name!(), |place| {
        block_on(async {
            let issuer = issuer();
            let (first, second) = (place.settings(), place.another("second", "another token"));
            let identities = Identities::new(vec![
                identity(&issuer, 1, first.clone(), &first).await,
                identity(&issuer, 2, second.clone(), &second).await,
            ]);
            // The token has another key: it is there, and well.
            admin::generate_key(&first, "other", b"other", KeyAlgorithm::P256).unwrap();
            admin::destroy_key(&first, &KeyReference::Label("key 1".into())).unwrap();
            assert_eq!(sign_many(&identities, 0..500, 16).await, [0, 0, 500]);
            let refused: u64 = identities.all()[0].signer.stats().failures.values().sum();
            assert!(refused < 100, "{refused} tries with a key that is gone");
            stop(identities).await;
        });
    });
}

#[test]
fn a_lone_identity_tells_why_it_did_not_sign() {
    with_token(test_name!(), |place| {
        block_on(async {
            let settings = place.settings();
            let identities = Identities::new(vec![identity(&issuer(), 1, settings.clone(), &settings).await]);
            assert!(identities.all()[0].signer.stop(PATIENCE).await);
            let error = sign(&identities, 1).await.unwrap_err();
            assert!(matches!(error, IdentityError::Sign(SignError::Stopped { .. })), "{error}");
            identities.replace(Vec::new());
            assert!(matches!(sign(&identities, 1).await, Err(IdentityError::NoResponder)));
        });
    });
}

#[test]
fn the_lane_follows_from_what_a_certificate_has_now() {
    let answer = AnswerTimes {
        this_update: NOW,
        next_update: UnixTime(NOW.plus(7 * DAY).0 - 1),
        responder: ResponderNumber(1),
        broken: false,
    };
    let due = |revoked: bool, answer| DueCertificate {
        certificate: CertificateRecord {
            key: CertificateKey { shard: Shard(0), row: 1 },
            issuer: ISSUER,
            serial: serial(1),
            not_before: None,
            not_after: NOW.plus(90 * DAY),
            revocation: revoked.then_some(Revocation { time: NOW, reason: None }),
            version: 2,
        },
        answer,
    };
    let later = NOW.plus(DAY);
    let stale = NOW.plus(4 * DAY);
    let cases = [
        ("good, answered", due(false, Some(answer)), Order::new(Lane::Refresh, stale)),
        ("revoked, answered", due(true, Some(answer)), Order::new(Lane::Refresh, stale)),
        ("revoked, not answered since", due(true, None), Order::new(Lane::Revocation, later)),
        ("new, or released from hold", due(false, None), Order::new(Lane::First, later)),
    ];
    for (name, due, expected) in cases {
        assert_eq!(order_for(&due, &policy().freshness, later), expected, "{name}");
    }
}
