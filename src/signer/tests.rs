//! The signer on a real token.

use std::time::Duration;

use bytes::Bytes;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::slot::Slot;

use super::admin::{destroy_key, generate_key, list_keys, list_tokens, public_key};
use super::module::Module;
use super::testing::{ANY, LABEL, Place, SPY, block_on, test_name, with_token, with_token_and};
use super::token::{Access, Connection};
use super::*;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};

const PATIENCE: Duration = Duration::from_secs(20);

async fn prepared(signer: &Signer, place: &Place, label: &str, algorithm: KeyAlgorithm) -> PreparedKey {
    let public = place.key(label, algorithm);
    signer
        .prepare_key(KeyReference::Label(label.into()), algorithm.default_signature(), public.key)
        .await
        .unwrap()
}

fn slot(place: &Place) -> Slot {
    let tokens = list_tokens(&place.settings().module).unwrap();
    Slot::try_from(tokens.iter().find(|token| token.label == LABEL).unwrap().slot).unwrap()
}

#[test]
fn every_algorithm_signs_and_its_signature_verifies() {
    with_token(test_name!(), |place| {
        block_on(async {
            let signer = Signer::start(place.settings()).await.unwrap();
            for (key, algorithm) in [
                (KeyAlgorithm::Rsa2048, SignatureAlgorithm::RsaPkcs1Sha256),
                (KeyAlgorithm::Rsa2048, SignatureAlgorithm::RsaPssSha256),
                (KeyAlgorithm::Rsa3072, SignatureAlgorithm::RsaPkcs1Sha256),
                (KeyAlgorithm::Rsa4096, SignatureAlgorithm::RsaPkcs1Sha256),
                (KeyAlgorithm::P256, SignatureAlgorithm::EcdsaP256Sha256),
                (KeyAlgorithm::P384, SignatureAlgorithm::EcdsaP384Sha384),
                (KeyAlgorithm::Ed25519, SignatureAlgorithm::Ed25519),
            ] {
                let label = format!("{key} {algorithm}");
                let public = place.key(&label, key);
                assert_eq!(
                    public_key(&place.settings(), &KeyReference::Label(label.clone())).unwrap(),
                    public
                );
                let by_id = KeyReference::Id(label.clone().into_bytes());
                let ready = signer.prepare_key(by_id, algorithm, public.key.clone()).await.unwrap();
                assert_eq!(ready.key_algorithm(), key);
                for length in [0, 1, 500, 5_000] {
                    let message = Bytes::from(vec![0x5a; length]);
                    let signature = signer.sign(&ready, message.clone(), ANY).await.unwrap();
                    algorithm.verify(&public.key, &message, &signature).unwrap();
                }
            }
            assert_eq!(signer.stats().signed, 28);
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn the_public_key_reads_as_openssl_reads_it() {
    with_token(test_name!(), |place| {
        for algorithm in KeyAlgorithm::ALL {
            let public = place.key(algorithm.name(), algorithm);
            let file = place.path("spki.der");
            std::fs::write(&file, &public.spki).unwrap();
            let said = std::process::Command::new("openssl")
                .args(["pkey", "-pubin", "-inform", "DER", "-text", "-noout", "-in"])
                .arg(&file)
                .output()
                .unwrap();
            assert!(said.status.success(), "{algorithm}: {}", String::from_utf8_lossy(&said.stderr));
            let text = String::from_utf8_lossy(&said.stdout).to_lowercase();
            let expected = match algorithm {
                KeyAlgorithm::P256 => "nist curve: p-256".to_owned(),
                KeyAlgorithm::P384 => "nist curve: p-384".to_owned(),
                KeyAlgorithm::Ed25519 => "ed25519 public-key".to_owned(),
                rsa => format!("({} bit)", rsa.modulus_bits().unwrap()),
            };
            assert!(text.contains(&expected), "{algorithm}: {text}");
        }
    });
}

#[test]
fn a_key_is_made_once_listed_and_destroyed() {
    with_token(test_name!(), |place| {
        let settings = place.settings();
        place.key("ocsp-1", KeyAlgorithm::P256);
        let again = generate_key(&settings, "ocsp-1", b"other", KeyAlgorithm::P256).unwrap_err();
        assert!(matches!(&again, SignerError::KeyExists { .. }), "{again}");
        let keys = list_keys(&settings).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].to_string(), "ocsp-1 id:6f6373702d31 (p256)");
        let key = KeyReference::Label("ocsp-1".into());
        assert_eq!(destroy_key(&settings, &key).unwrap(), keys[0]);
        assert!(list_keys(&settings).unwrap().is_empty());
        assert!(matches!(destroy_key(&settings, &key), Err(SignerError::KeyMissing { .. })));
        assert!(matches!(public_key(&settings, &key), Err(SignerError::KeyMissing { .. })));
    });
}

#[test]
fn whatever_is_missing_is_named_with_what_to_do() {
    with_token(test_name!(), |place| {
        block_on(async {
            let start = async |change: &dyn Fn(&mut Settings)| {
                let mut settings = place.settings();
                change(&mut settings);
                Signer::start(settings).await.unwrap_err().to_string()
            };
            let no_module = start(&|settings| settings.module = "/no/such/module.so".into()).await;
            assert!(
                no_module.starts_with("[[token]] test: the PKCS#11 module /no/such/module.so")
                    && no_module.contains("install"),
                "{no_module}"
            );
            let text = place.path("softhsm2.conf");
            let not_one = start(&|settings| settings.module.clone_from(&text)).await;
            assert!(
                not_one.contains("is no PKCS#11 module") && not_one.contains("softhsm2.conf"),
                "{not_one}"
            );
            let library = start(&|settings| settings.module = "/lib/x86_64-linux-gnu/libc.so.6".into()).await;
            assert!(library.contains("is no PKCS#11 module"), "{library}");
            let no_token = start(&|settings| settings.label = "nowhere".into()).await;
            assert!(
                no_token.contains("[[token]] test")
                    && no_token.contains("\"nowhere\"")
                    && no_token.contains(LABEL),
                "{no_token}"
            );
            let no_pin = start(&|settings| settings.pin = PinSource::File("/no/pin".into())).await;
            assert!(no_pin.contains("token test") && no_pin.contains("/no/pin"), "{no_pin}");
            let no_variable = start(&|settings| settings.pin = PinSource::Env("NO_SUCH_PIN".into())).await;
            assert!(no_variable.contains("NO_SUCH_PIN is not set"), "{no_variable}");
            let no_credential = start(&|settings| settings.pin = PinSource::Credential("pin".into())).await;
            assert!(no_credential.contains("LoadCredential=pin"), "{no_credential}");
            let no_session = start(&|settings| settings.sessions = 0).await;
            assert!(no_session.contains("`sessions` is 0"), "{no_session}");

            let signer = Signer::start(place.settings()).await.unwrap();
            let public = place.key("the key", KeyAlgorithm::P256);
            let prepare = async |label: &str, algorithm, public: &[u8]| {
                let key = KeyReference::Label(label.into());
                signer.prepare_key(key, algorithm, public.to_vec()).await.unwrap_err().to_string()
            };
            let ecdsa = SignatureAlgorithm::EcdsaP256Sha256;
            let no_key = prepare("other", ecdsa, &public.key).await;
            assert!(no_key.contains("no private key other") && no_key.contains("the key id:"), "{no_key}");
            let stranger = place.key("stranger", KeyAlgorithm::P256);
            let mismatch = prepare("the key", ecdsa, &stranger.key).await;
            assert!(mismatch.contains("does not belong to the key the key"), "{mismatch}");
            let rsa = place.key("rsa", KeyAlgorithm::Rsa2048);
            let misfit = prepare("the key", SignatureAlgorithm::RsaPkcs1Sha256, &rsa.key).await;
            assert!(misfit.contains("a key for p256, which does not sign with rsa-sha256"), "{misfit}");
            let rubbish = prepare("the key", ecdsa, b"rubbish").await;
            assert!(rubbish.contains("the certificate's public key"), "{rubbish}");
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn a_wrong_pin_is_tried_exactly_once_in_a_process() {
    let spy = |folder: &std::path::Path| {
        vec![
            ("PKCS11SPY", testing::softhsm().into_os_string()),
            ("PKCS11SPY_OUTPUT", folder.join("spy.log").into_os_string()),
        ]
    };
    with_token_and(test_name!(), spy, |place| {
        let logins = || std::fs::read_to_string(place.path("spy.log")).unwrap().matches("C_Login").count();
        let mut settings = place.settings();
        settings.module = SPY.into();
        settings.sessions = 4;
        let wrong = place.path("wrong");
        std::fs::write(&wrong, "not the pin").unwrap();
        settings.pin = PinSource::File(wrong.clone());
        block_on(async {
            for _ in 0..3 {
                let error = Signer::start(settings.clone()).await.unwrap_err();
                assert_eq!(error.class(), FailureClass::Pin);
                assert!(error.to_string().contains("is not tried again"), "{error}");
                assert!(Signer::start_patiently(settings.clone()).await.is_err());
                assert!(list_keys(&settings).is_err());
            }
            assert_eq!(logins(), 1);
            // The operator mends the file: another PIN is another try.
            std::fs::copy(place.path("pin"), &wrong).unwrap();
            let signer = Signer::start(settings.clone()).await.unwrap();
            assert!(signer.stop(PATIENCE).await);
            assert_eq!(logins(), 2);
        });
    });
}

#[test]
fn lost_logins_are_renewed_and_no_signature_is_lost() {
    lose_logins(test_name!(), false);
}

#[test]
fn lost_logins_are_renewed_where_sessions_sign_with_copies() {
    lose_logins(test_name!(), true);
}

fn lose_logins(name: &str, session_keys: bool) {
    with_token(name, |place| {
        block_on(async {
            let signer = Signer::start(Settings { session_keys, ..place.settings() }).await.unwrap();
            let key = prepared(&signer, place, "key", KeyAlgorithm::P256).await;
            let slot = slot(place);
            let using = Module::open(&place.settings().module).unwrap();
            let (sender, mut receiver) = signer.batch(64);
            let pusher = tokio::spawn({
                let key = key.clone();
                async move {
                    for number in 0..1500_u32 {
                        sender.submit(&key, Bytes::copy_from_slice(&number.to_be_bytes()), ANY, number).await;
                    }
                }
            });
            let mut done = 0;
            while let Some(Signed { tag, signature }) = receiver.next().await {
                assert!(signature.is_ok(), "{tag}: {signature:?}");
                done += 1;
                if done % 300 == 0 {
                    // Logs every session of the process out: the private keys' handles end.
                    let session = using.module().context().open_ro_session(slot).unwrap();
                    session.logout().unwrap();
                }
            }
            pusher.await.unwrap();
            assert_eq!(done, 1500);
            let stats = signer.stats();
            assert!(stats.sessions_reopened >= 2, "{stats:?}");
            assert!(
                stats.failures.keys().all(|code| code.ends_with("in SignInit")
                    || code.contains("Sign")
                    || code.contains("FindObjects")),
                "{stats:?}"
            );
            assert_eq!(stats.state, TokenState::Serving);
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn a_module_finalised_under_the_signer_is_initialised_anew() {
    with_token(test_name!(), |place| {
        block_on(async {
            let settings = Settings { session_keys: true, ..place.settings() };
            let signer = Signer::start(settings).await.unwrap();
            let key = prepared(&signer, place, "key", KeyAlgorithm::P256).await;
            let using = Module::open(&place.settings().module).unwrap();
            using.module().context().clone().finalize().unwrap();
            let signature = signer.sign(&key, Bytes::from_static(b"after"), ANY).await.unwrap();
            key.algorithm().verify(key.public_key(), b"after", &signature).unwrap();
            let stats = signer.stats();
            assert!(stats.recoveries >= 1, "{stats:?}");
            drop(using);
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn lost_sessions_are_opened_anew() {
    with_token(test_name!(), |place| {
        block_on(async {
            let signer = Signer::start(place.settings()).await.unwrap();
            let key = prepared(&signer, place, "key", KeyAlgorithm::P256).await;
            let using = Module::open(&place.settings().module).unwrap();
            let context = using.module().context();
            context.clone().finalize().unwrap();
            let args =
                cryptoki::context::CInitializeArgs::new(cryptoki::context::CInitializeFlags::OS_LOCKING_OK);
            context.initialize(args).unwrap();
            for number in 0..10_u8 {
                assert!(signer.sign(&key, Bytes::from(vec![number]), ANY).await.is_ok());
            }
            let stats = signer.stats();
            assert!(stats.failures.contains_key("SessionHandleInvalid in FindObjectsInit"), "{stats:?}");
            assert!(stats.sessions_reopened >= 1, "{stats:?}");
            assert_eq!(stats.recoveries, 0, "a new session was enough");
            drop(using);
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn a_key_that_is_destroyed_fails_alone() {
    with_token(test_name!(), |place| {
        block_on(async {
            let signer = Signer::start(place.settings()).await.unwrap();
            let doomed = prepared(&signer, place, "doomed", KeyAlgorithm::P256).await;
            let other = prepared(&signer, place, "other", KeyAlgorithm::P256).await;
            assert!(signer.sign(&doomed, Bytes::from_static(b"before"), ANY).await.is_ok());
            destroy_key(&place.settings(), doomed.reference()).unwrap();
            let error = signer.sign(&doomed, Bytes::from_static(b"after"), ANY).await.unwrap_err();
            assert!(matches!(error, SignError::KeyGone { .. }), "{error}");
            assert_eq!(error.class(), FailureClass::Request);
            assert!(signer.sign(&other, Bytes::from_static(b"after"), ANY).await.is_ok());
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn the_queue_is_bounded_and_a_stop_drains_it() {
    with_token(test_name!(), |place| {
        block_on(async {
            let mut settings = place.settings();
            settings.sessions = 1;
            settings.queue = 8;
            let signer = Signer::start(settings).await.unwrap();
            let key = prepared(&signer, place, "key", KeyAlgorithm::Rsa4096).await;
            let waiting: Vec<_> = (0..60_u8)
                .map(|number| {
                    let (signer, key) = (signer.clone(), key.clone());
                    tokio::spawn(async move { signer.sign(&key, Bytes::from(vec![number]), ANY).await })
                })
                .collect();
            while signer.stats().signed == 0 {
                assert!(signer.stats().lanes.iter().all(|lane| lane.queued <= 8));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(signer.stats().lanes.iter().all(|lane| lane.queued <= 8));
            assert!(signer.stop(PATIENCE).await);
            let (mut signed, mut stopped) = (0, 0);
            for task in waiting {
                match task.await.unwrap() {
                    Ok(_) => signed += 1,
                    Err(SignError::Stopped { .. }) => stopped += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            // Those in the queue at the stop were signed, those that waited for room were not taken.
            assert_eq!(signed + stopped, 60);
            assert!(signed >= 9 && stopped > 0, "{signed} {stopped}");
            assert_eq!(signer.stats().signed, signed);
            assert_eq!(signer.state(), TokenState::Stopped);
            assert!(matches!(signer.sign(&key, Bytes::new(), ANY).await, Err(SignError::Stopped { .. })));
        });
    });
}

#[test]
fn the_cap_holds_for_all_sessions_together() {
    with_token(test_name!(), |place| {
        block_on(async {
            let mut settings = place.settings();
            settings.max_rate = std::num::NonZeroU32::new(100);
            let signer = Signer::start(settings).await.unwrap();
            let key = prepared(&signer, place, "key", KeyAlgorithm::P256).await;
            let (sender, mut receiver) = signer.batch(32);
            let watch = crate::clock::Stopwatch::start();
            let pusher = tokio::spawn(async move {
                for number in 0..50_u8 {
                    sender.submit(&key, Bytes::from(vec![number]), ANY, ()).await;
                }
            });
            let mut done = 0;
            while let Some(signed) = receiver.next().await {
                assert!(signed.signature.is_ok());
                done += 1;
            }
            pusher.await.unwrap();
            assert_eq!(done, 50);
            assert!(watch.elapsed() >= Duration::from_millis(480), "{:?}", watch.elapsed());
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn two_signers_share_one_module_and_the_last_one_finalises_it() {
    with_token(test_name!(), |place| {
        block_on(async {
            let first = Signer::start(place.settings()).await.unwrap();
            let second = Signer::start(place.settings()).await.unwrap();
            let mine = prepared(&first, place, "key", KeyAlgorithm::P256).await;
            let error = second.sign(&mine, Bytes::new(), ANY).await.unwrap_err();
            assert!(matches!(error, SignError::ForeignKey { .. }), "{error}");
            assert!(first.stop(PATIENCE).await);
            let theirs = prepared(&second, place, "key 2", KeyAlgorithm::P256).await;
            assert!(second.sign(&theirs, Bytes::new(), ANY).await.is_ok());
            assert!(second.stop(PATIENCE).await);
            let again = Signer::start(place.settings()).await.unwrap();
            assert_eq!(again.stats().sessions_reopened, 0);
            assert!(again.stop(PATIENCE).await);
        });
    });
}

#[test]
fn sessions_sign_with_copies_that_nobody_finds() {
    with_token(test_name!(), |place| {
        block_on(async {
            let settings = Settings { session_keys: true, sessions: 4, ..place.settings() };
            let signer = Signer::start(settings.clone()).await.unwrap();
            for algorithm in SignatureAlgorithm::ALL {
                let kind = KeyAlgorithm::ALL.into_iter().find(|kind| algorithm.fits(*kind)).unwrap();
                let label = format!("key for {algorithm}");
                let public = place.key(&label, kind);
                let reference = KeyReference::Label(label);
                let key = signer.prepare_key(reference.clone(), algorithm, public.key.clone()).await.unwrap();
                let (sender, mut receiver) = signer.batch(32);
                for number in 0..32_u8 {
                    sender.submit(&key, Bytes::from(vec![number]), ANY, number).await;
                }
                drop(sender);
                while let Some(Signed { tag, signature }) = receiver.next().await {
                    algorithm.verify(&public.key, &[tag], &signature.unwrap()).unwrap();
                }
                // Every session of the process sees every copy.
                assert_eq!(public_key(&settings, &reference).unwrap(), public);
                let again = signer.prepare_key(reference, algorithm, public.key).await;
                assert!(again.is_ok(), "one private key answers to the reference");
            }
            assert!(signer.stats().failures.is_empty(), "{:?}", signer.stats());
            let missing = KeyReference::Label("none".into());
            let error =
                signer.prepare_key(missing, SignatureAlgorithm::Ed25519, vec![0; 32]).await.unwrap_err();
            assert!(!error.to_string().contains("copy for one session"), "{error}");
            assert!(signer.stop(PATIENCE).await);
            assert_eq!(list_keys(&settings).unwrap().len(), SignatureAlgorithm::ALL.len(), "no copy is left");
        });
    });
}

#[test]
fn a_key_that_may_not_be_copied_signs_itself() {
    with_token(test_name!(), |place| {
        let settings = Settings { session_keys: true, ..place.settings() };
        let reference = KeyReference::Label("fixed".into());
        let pin = settings.pin.read().unwrap();
        let using = Module::open(&settings.module).unwrap();
        let desk = Connection::open(using.module(), &settings, &pin, Access::ReadWrite).unwrap();
        let common = [Attribute::Token(true), Attribute::Label(b"fixed".to_vec())];
        let curve = [Attribute::Private(false), Attribute::EcParams(spki::P256_PARAMS.to_vec())];
        let fixed = [Attribute::Private(true), Attribute::Sign(true), Attribute::Copyable(false)];
        let [of_public, of_private] = [&curve[..], &fixed].map(|own| [&common[..], own].concat());
        let pair = desk.session.generate_key_pair(&Mechanism::EccKeyPairGen, &of_public, &of_private);
        assert!(desk.session_copy(pair.unwrap().1).is_err(), "the test's own premise");
        let public = public_key(&settings, &reference).unwrap();
        block_on(async {
            let signer = Signer::start(settings).await.unwrap();
            let algorithm = KeyAlgorithm::P256.default_signature();
            let key = signer.prepare_key(reference, algorithm, public.key.clone()).await.unwrap();
            let signature = signer.sign(&key, Bytes::from_static(b"message"), ANY).await.unwrap();
            algorithm.verify(&public.key, b"message", &signature).unwrap();
            assert!(signer.stats().failures.is_empty(), "{:?}", signer.stats());
            assert!(signer.stop(PATIENCE).await);
        });
    });
}
