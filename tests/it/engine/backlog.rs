//! What is in a hurry does not wait behind what is not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::CertStatus;
use goodstanding::presign::desk::Progress;
use goodstanding::signer::Lane;

use super::stage::{Stage, serial, with_site};

#[path = "../../../benches/support/backlog.rs"]
mod fleet;

/// Of a token of 100 signatures a second, one answer takes 10 ms; CONTRACT and P10 allow 1 s.
const SOON: Duration = Duration::from_secs(1);

/// Answers that are due: a quarter of an hour of work.
const BACKLOG: u32 = 100_000;

const REVOCATIONS: u32 = 100;

#[test]
fn a_revocation_is_served_within_a_second_behind_a_backlog_on_a_slow_token() {
    with_site(
        "engine::backlog::a_revocation_is_served_within_a_second_behind_a_backlog_on_a_slow_token",
        |site| site.reconfigure("sessions = 2", "sessions = 2\nmax_rate = 100"),
        async |settings| {
            let stage = Stage::open(settings).await;
            let policy = *stage.pipeline().policies.load().of(stage.issuer);
            let serials: Vec<_> = (0..BACKLOG).map(serial).collect();
            let day = Duration::from_secs(86_400);
            let identity = stage.identities.for_issuer(stage.issuer, stage.now(), day).unwrap();
            let store = &*stage.app.store;
            fleet::fill(store, stage.issuer, &identity, &policy, &serials, stage.now()).await;
            drop(identity);
            let running = stage.keep(true).await;
            let signed = || running.stats.signed.load(Ordering::Relaxed);
            let filled = async {
                while signed() < 100 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), filled).await.unwrap();
            let mut waits = Vec::new();
            // Some are signed already, some are in the pipeline, most wait.
            for number in (0..BACKLOG).step_by((BACKLOG / REVOCATIONS) as usize) {
                let watch = Stopwatch::start();
                let key = stage.revoke(number).await;
                let progress = running.desk.answer(vec![key], Duration::from_secs(20)).await;
                let slot = running.slot(&stage, number);
                assert!(matches!(progress[0], Progress::Signed(_)), "{number}: {progress:?}");
                assert!(matches!(slot.status(), CertStatus::Revoked(_)) && slot.answer.is_some());
                waits.push(watch.elapsed());
            }
            waits.sort_unstable();
            println!("revocations were served after {waits:?}");
            assert_eq!(waits.len(), REVOCATIONS as usize);
            assert!(waits[waits.len() * 99 / 100 - 1] < SOON, "{waits:?}");
            let figures = running.stats.figures.load_full();
            let refresh = Lane::Refresh.index();
            assert!(figures.outlook.lanes[refresh].due > 90_000, "there all the time: {figures:?}");
            assert!(figures.under_way[refresh] > 0, "{figures:?}");
            running.stop().await;
            stage.close().await;
        },
    );
}
