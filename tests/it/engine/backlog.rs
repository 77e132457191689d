//! What is in a hurry does not wait behind what is not.

use std::time::Duration;

use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::CertStatus;
use goodstanding::presign::desk::Progress;

use super::stage::{Stage, with_site};

/// Of a token of 100 signatures a second, one answer takes 10 ms; CONTRACT and P10 allow 1 s.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_revocation_is_served_within_a_second_behind_a_backlog_on_a_slow_token() {
    with_site(
        "engine::backlog::a_revocation_is_served_within_a_second_behind_a_backlog_on_a_slow_token",
        |site| site.reconfigure("sessions = 2", "sessions = 2\nmax_rate = 100"),
        async |settings| {
            let stage = Stage::open(settings).await;
            // 50 seconds of work; some hundred of it fills the pipeline.
            stage.register(0..5_000).await;
            let running = stage.keep(true).await;
            running.until_answered(100).await;
            let mut waits = Vec::new();
            // Some are signed already, some are in the pipeline, most wait.
            for number in (0..5_000).step_by(250) {
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
            assert!(waits[waits.len() - 1] < SOON, "{waits:?}");
            let answers = running.shelf.answers();
            assert!(answers < 4_000, "the backlog was there all the time: {answers}");
            let figures = running.stats.figures.load_full();
            assert!(figures.outlook.lanes[1].due > 0 && figures.under_way[1] > 0, "{figures:?}");
            running.stop().await;
            stage.close().await;
        },
    );
}
