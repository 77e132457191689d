//! Never a wrong status: revocations, refreshes, restarts, clocks that are set and rows that cannot be
//! read, all at once.

use std::sync::Arc;
use std::time::Duration;

use goodstanding::clock::{Clock, ManualClock, SystemClock};
use goodstanding::ocsp::{CertStatus, Received};
use goodstanding::presign::desk::Progress;
use goodstanding::store::CertificateKey;
use sqlx::Connection;

use super::stage::{Running, Stage, with_site};

const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing on the shelf or in the store says otherwise than the store's own record of the status.
async fn assert_right(
    stage: &Stage,
    running: &Running,
    numbers: impl Iterator<Item = u32>,
    revoked: impl Fn(u32) -> bool,
) {
    for number in numbers {
        let state = stage.state(number).await;
        assert_eq!(state.certificate.revocation.is_some(), revoked(number), "{number}");
        let slot = running.slot(stage, number);
        assert_eq!(matches!(slot.status(), CertStatus::Revoked(_)), revoked(number), "{number}");
        if let (Some(stored), Some(shelved)) = (&state.answer, &slot.answer)
            && stored.version == state.certificate.version
        {
            let says = Received::decode(&shelved.body()).unwrap().responses;
            let right =
                says.iter().all(|each| matches!(each.status, CertStatus::Revoked(_)) == revoked(number));
            assert!(right && !says.is_empty(), "{number}: {says:?}");
        }
    }
}

#[test]
fn concurrent_revocations_refreshes_and_restarts_never_leave_a_wrong_status() {
    with_site(
        "engine::status::concurrent_revocations_refreshes_and_restarts_never_leave_a_wrong_status",
        |_| {},
        async |settings| {
            let clock = Arc::new(ManualClock::new(SystemClock.now()));
            let stage = Stage::open_at(settings, clock.clone()).await;
            let count = 300;
            stage.register(0..count).await;
            let mut running = stage.keep(true).await;
            running.until_answered(count as usize).await;
            for round in 0..5 {
                // All come due again while a fifth is revoked, and the keeper ends in the midst of it.
                clock.advance(Duration::from_secs(86_400));
                let revoked: Vec<_> = (0..count).filter(|number| number % 10 == round).collect();
                let mut keys = Vec::new();
                for number in &revoked {
                    keys.push(stage.revoke(*number).await);
                }
                if round % 2 == 0 {
                    running.stop().await;
                    running = stage.keep(true).await;
                }
                let progress = running.desk.answer(keys, PATIENCE).await;
                assert!(progress.iter().all(|each| matches!(each, Progress::Signed(_))), "{progress:?}");
                assert_right(&stage, &running, 0..count, |number| number % 10 <= round).await;
            }
            running.stop().await;
            stage.close().await;
        },
    );
}

#[test]
fn answers_made_while_the_clock_was_ahead_give_way_on_the_shelf_too() {
    with_site(
        "engine::status::answers_made_while_the_clock_was_ahead_give_way_on_the_shelf_too",
        |_| {},
        async |settings| {
            let right = SystemClock.now();
            let clock = Arc::new(ManualClock::new(right.plus(Duration::from_secs(3_600))));
            let stage = Stage::open_at(settings, clock.clone()).await;
            stage.register(0..50).await;
            let running = stage.keep(true).await;
            running.until_answered(50).await;
            assert!(running.slot(&stage, 7).answer.as_ref().unwrap().this_update > right);
            clock.set(right);
            let waiting = async {
                while (0..50)
                    .any(|number| running.slot(&stage, number).answer.as_ref().unwrap().this_update > right)
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, waiting).await.unwrap();
            for number in 0..50 {
                assert_eq!(stage.state(number).await.answer.unwrap().this_update, right);
            }
            running.stop().await;
            stage.close().await;
        },
    );
}

#[test]
fn a_row_that_cannot_be_read_is_listed_and_keeps_nobody_else_from_an_answer() {
    with_site(
        "engine::status::a_row_that_cannot_be_read_is_listed_and_keeps_nobody_else_from_an_answer",
        |_| {},
        async |settings| {
            let url = settings.store_url.clone();
            let stage = Stage::open(settings).await;
            stage.register(0..400).await;
            let poisoned = [stage.key(17).await, stage.key(18).await, stage.key(399).await];
            poison(&url, &poisoned).await;
            let running = stage.keep(true).await;
            running.until_answered(397).await;
            assert!(running.shelf.is_complete());
            let progress = running.desk.answer(vec![poisoned[0], stage.key(3).await], PATIENCE).await;
            let Progress::Failed(reason) = &progress[0] else { panic!("{progress:?}") };
            assert!(reason.contains("certificate.reason is 99"), "{reason}");
            assert!(matches!(progress[1], Progress::Signed(_)), "{progress:?}");
            let listed = async {
                while running.stats.figures.load().quarantined.iter().map(|(_, count)| count).sum::<u64>()
                    != 3
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, listed).await.unwrap();
            running.stop().await;
            stage.close().await;
        },
    );
}

/// Writes a reason for revocation that there is none of, as a broken disk or a meddler would.
async fn poison(url: &str, keys: &[CertificateKey]) {
    let mut database = sqlx::SqliteConnection::connect(url).await.unwrap();
    for key in keys {
        let row = (i64::from(key.shard.0) << 32) + key.row;
        let changed = sqlx::query("UPDATE certificate SET revoked_at = 1, reason = 99 WHERE row = ?")
            .bind(row)
            .execute(&mut database)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), 1);
    }
    database.close().await.unwrap();
}
