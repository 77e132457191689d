//! Asking the keeper out of turn.

use std::time::Duration;

use goodstanding::ocsp::CertStatus;
use goodstanding::presign::desk::Progress;
use goodstanding::store::{CertificateKey, Shard};

use super::stage::{Stage, serial, with_site};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn what_is_asked_for_at_the_desk_is_on_the_shelf_when_the_call_returns() {
    with_site(
        "engine::desk::what_is_asked_for_at_the_desk_is_on_the_shelf_when_the_call_returns",
        |_| {},
        async |settings| {
            let stage = Stage::open(settings).await;
            let running = stage.keep(true).await;
            // By the keeper's own handle: the feed does not tell of it.
            stage.register(0..3).await;
            let keys = [stage.key(0).await, stage.key(1).await, stage.key(2).await];
            let nowhere = CertificateKey { shard: Shard(9), row: 4_000_000 };
            let asked = vec![keys[2], nowhere, keys[0], keys[1], keys[0]];
            let progress = running.desk.answer(asked.clone(), PATIENCE).await;
            for (key, progress) in asked.iter().zip(&progress) {
                match progress {
                    Progress::Signed(state) => assert_eq!(state.certificate.key, *key),
                    Progress::Failed(reason) if *key == nowhere => assert!(reason.contains("no such")),
                    other => panic!("{key:?}: {other:?}"),
                }
            }
            for number in 0..3 {
                assert_eq!(running.slot(&stage, number).status(), CertStatus::Good);
                assert!(running.slot(&stage, number).answer.is_some());
            }

            let key = stage.revoke(1).await;
            let progress = running.desk.answer(vec![key], PATIENCE).await;
            let slot = running.slot(&stage, 1);
            assert!(matches!(slot.status(), CertStatus::Revoked(_)) && slot.answer.is_some());
            let Progress::Signed(state) = &progress[0] else { panic!("{progress:?}") };
            assert_eq!((state.certificate.version, state.answer.as_ref().unwrap().version), (2, 2));
            running.stop().await;
            stage.close().await;
        },
    );
}

#[test]
fn a_process_that_does_not_sign_takes_the_old_answer_away_and_says_wait() {
    with_site(
        "engine::desk::a_process_that_does_not_sign_takes_the_old_answer_away_and_says_wait",
        |_| {},
        async |settings| {
            let stage = Stage::open(settings.clone()).await;
            stage.register(0..2).await;
            let signer = stage.keep(true).await;
            signer.until_answered(2).await;
            signer.stop().await;

            let follower = stage.keep(false).await;
            follower.until_answered(2).await;
            let key = stage.revoke(1).await;
            let progress =
                follower.desk.answer(vec![key, stage.key(0).await], Duration::from_millis(200)).await;
            assert!(matches!(progress[0], Progress::Waiting { .. }), "{progress:?}");
            assert!(matches!(progress[1], Progress::Signed(_)), "{progress:?}");
            assert!(follower.slot(&stage, 1).answer.is_none(), "the answer `good` is gone from the shelf");

            // Another process signs it: then it comes through the feed, within the caller's patience.
            let other = Stage::open(settings).await;
            let signer = other.keep(true).await;
            let progress = follower.desk.answer(vec![key], PATIENCE).await;
            assert!(matches!(progress[0], Progress::Signed(_)), "{progress:?}");
            let slot = follower.shelf.get(stage.issuer, &serial(1)).unwrap();
            assert!(matches!(slot.status(), CertStatus::Revoked(_)) && slot.answer.is_some());
            signer.stop().await;
            follower.stop().await;
            other.close().await;
            stage.close().await;
        },
    );
}
