//! The signer while its HSM goes away, hangs and comes back: SoftHSM behind a p11-kit server, which is
//! killed and stopped.

use std::time::Duration;

use bytes::Bytes;

use super::testing::{ANY, Hsm, Place, REMOTE, block_on, remote, test_name, with_token_and};
use super::*;
use crate::clock::Stopwatch;
use crate::ocsp::KeyAlgorithm;

const PATIENCE: Duration = Duration::from_secs(20);

fn settings(place: &Place) -> Settings {
    Settings { module: REMOTE.into(), call_timeout: Duration::from_secs(1), ..place.settings() }
}

async fn until(signer: &Signer, what: &str, test: impl Fn(&Snapshot) -> bool) {
    let watch = Stopwatch::start();
    while !test(&signer.stats()) {
        assert!(watch.elapsed() < PATIENCE, "not {what}: {:?}", signer.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_token_that_goes_away_is_reported_and_signs_again_when_it_is_back() {
    with_token_and(test_name!(), remote, |place| {
        let public = place.key("key", KeyAlgorithm::P256);
        block_on(async {
            let hsm = Hsm::plug_in(place);
            let signer = Signer::start(settings(place)).await.unwrap();
            let key = signer
                .prepare_key(
                    KeyReference::Label("key".into()),
                    KeyAlgorithm::P256.default_signature(),
                    public.key,
                )
                .await
                .unwrap();
            assert!(signer.sign(&key, Bytes::from_static(b"before"), ANY).await.is_ok());
            drop(hsm);
            let error = signer.sign(&key, Bytes::from_static(b"during"), ANY).await.unwrap_err();
            assert_eq!(error.class(), FailureClass::Token, "{error}");
            until(&signer, "down", |stats| matches!(stats.state, TokenState::Down { .. })).await;
            let watch = Stopwatch::start();
            assert!(matches!(
                signer.sign(&key, Bytes::from_static(b"during"), ANY).await,
                Err(SignError::Unavailable { .. })
            ));
            assert!(watch.elapsed() < Duration::from_millis(500), "fails at once while the token is down");
            let _hsm = Hsm::plug_in(place);
            until(&signer, "serving", |stats| stats.state == TokenState::Serving).await;
            assert!(signer.sign(&key, Bytes::from_static(b"after"), ANY).await.is_ok());
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn a_signer_starts_patiently_without_its_token() {
    with_token_and(test_name!(), remote, |place| {
        let public = place.key("key", KeyAlgorithm::P256);
        block_on(async {
            let error = Signer::start(settings(place)).await.unwrap_err();
            assert!(error.may_pass(), "{error}");
            let signer = Signer::start_patiently(settings(place)).await.unwrap();
            assert!(matches!(signer.state(), TokenState::Down { .. }));
            let _hsm = Hsm::plug_in(place);
            until(&signer, "serving", |stats| stats.state == TokenState::Serving).await;
            let algorithm = KeyAlgorithm::P256.default_signature();
            let key =
                signer.prepare_key(KeyReference::Label("key".into()), algorithm, public.key).await.unwrap();
            assert!(signer.sign(&key, Bytes::from_static(b"at last"), ANY).await.is_ok());
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn a_hung_call_fails_in_time_and_the_threads_stay_bounded() {
    with_token_and(test_name!(), remote, |place| {
        let public = place.key("key", KeyAlgorithm::P256);
        block_on(async {
            let hsm = Hsm::plug_in(place);
            let signer = Signer::start(settings(place)).await.unwrap();
            let algorithm = KeyAlgorithm::P256.default_signature();
            let key =
                signer.prepare_key(KeyReference::Label("key".into()), algorithm, public.key).await.unwrap();
            hsm.signal("-STOP");
            let watch = Stopwatch::start();
            let error = signer.sign(&key, Bytes::from_static(b"hangs"), ANY).await.unwrap_err();
            assert!(matches!(error, SignError::TimedOut { .. }), "{error}");
            assert!(error.to_string().contains("did not come back within 1s"), "{error}");
            assert!(watch.elapsed() < Duration::from_millis(2500), "{:?}", watch.elapsed());
            // Whoever waits behind hung calls fails as well, and nobody waits for ever.
            let (sender, mut receiver) = signer.batch(16);
            for number in 0..16_u8 {
                sender.submit(&key, Bytes::from(vec![number]), ANY, ()).await;
            }
            drop(sender);
            while let Some(signed) = receiver.next().await {
                assert!(signed.signature.is_err());
            }
            assert!(watch.elapsed() < Duration::from_secs(8), "{:?}", watch.elapsed());
            until(&signer, "down", |stats| matches!(stats.state, TokenState::Down { .. })).await;
            let stats = signer.stats();
            assert!(stats.hung <= 4 && stats.timeouts <= 4, "{stats:?}");
            hsm.signal("-CONT");
            until(&signer, "serving", |stats| stats.state == TokenState::Serving && stats.hung == 0).await;
            assert!(signer.sign(&key, Bytes::from_static(b"after"), ANY).await.is_ok());
            assert!(signer.stop(PATIENCE).await);
        });
    });
}

#[test]
fn a_stop_does_not_wait_for_a_token_that_hangs() {
    with_token_and(test_name!(), remote, |place| {
        let public = place.key("key", KeyAlgorithm::P256);
        block_on(async {
            let hsm = Hsm::plug_in(place);
            let signer = Signer::start(settings(place)).await.unwrap();
            let algorithm = KeyAlgorithm::P256.default_signature();
            let key =
                signer.prepare_key(KeyReference::Label("key".into()), algorithm, public.key).await.unwrap();
            hsm.signal("-STOP");
            let waiting = tokio::spawn({
                let signer = signer.clone();
                async move { signer.sign(&key, Bytes::from_static(b"hangs"), ANY).await }
            });
            tokio::time::sleep(Duration::from_millis(50)).await;
            let watch = Stopwatch::start();
            assert!(signer.stop(PATIENCE).await);
            assert!(watch.elapsed() < Duration::from_secs(6), "{:?}", watch.elapsed());
            assert!(matches!(waiting.await.unwrap(), Err(SignError::TimedOut { .. })));
        });
    });
}

#[test]
fn a_token_that_flapped_is_not_left_alone_for_longer_when_it_does_not_come_back() {
    with_token_and(test_name!(), remote, |place| {
        let public = place.key("key", KeyAlgorithm::P256);
        block_on(async {
            let mut hsm = Some(Hsm::plug_in(place));
            let signer = Signer::start(settings(place)).await.unwrap();
            let algorithm = KeyAlgorithm::P256.default_signature();
            let key = KeyReference::Label("key".into());
            let key = signer.prepare_key(key, algorithm, public.key).await.unwrap();
            let tries = |stats: &Snapshot| match stats.state {
                TokenState::Down { tries, .. } => tries,
                _ => 0,
            };
            for flap in 0..4 {
                assert!(signer.sign(&key, Bytes::from_static(b"here"), ANY).await.is_ok());
                hsm = None;
                assert!(signer.sign(&key, Bytes::from_static(b"gone"), ANY).await.is_err());
                // The first time it is mended at once, then after a wait that grows with each flap.
                until(&signer, "down", |stats| tries(stats) >= flap.max(1)).await;
                if flap < 3 {
                    hsm = Some(Hsm::plug_in(place));
                    until(&signer, "serving", |stats| stats.state == TokenState::Serving).await;
                }
            }
            // It stays away: the waits between tries begin at a second again.
            until(&signer, "tried once", |stats| tries(stats) == 1).await;
            let watch = Stopwatch::start();
            let _hsm = Hsm::plug_in(place);
            until(&signer, "serving", |stats| stats.state == TokenState::Serving).await;
            assert!(watch.elapsed() < Duration::from_secs(6), "{:?}", watch.elapsed());
            assert!(signer.stop(PATIENCE).await);
            drop(hsm);
        });
    });
}
