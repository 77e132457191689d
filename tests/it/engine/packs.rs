//! Several certificates under one signature: what the guard asks for when the token is short of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use goodstanding::clock::{Clock, ManualClock, Stopwatch, SystemClock, UnixTime};
use goodstanding::ocsp::{CertStatus, Received};
use goodstanding::presign::desk::Progress;

use super::stage::{Running, Stage, serial, with_site};

const PATIENCE: Duration = Duration::from_secs(30);
const CERTIFICATES: u32 = 40;

/// Each certificate's answer: who it speaks of, and its octets. Everything in it is verified.
async fn answers(stage: &Stage, running: &Running, since: UnixTime) -> Vec<(BTreeSet<String>, Vec<u8>)> {
    let signers = stage.identities.all();
    let delegate = signers[0].frame.certificate.clone().unwrap();
    let delegate = goodstanding::ocsp::Certificate::from_der(&delegate).unwrap();
    let mut all = Vec::new();
    for number in 0..CERTIFICATES {
        let waiting = async {
            while running.slot(stage, number).answer.is_none_or(|answer| answer.this_update < since) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{number} has no answer made since {since}");
        let body = running.slot(stage, number).answer.unwrap().body();
        let received = Received::decode(&body).unwrap();
        received.verify(&delegate).unwrap();
        let told: BTreeSet<_> =
            received.responses.iter().map(|each| each.cert_id.serial.to_string()).collect();
        assert!(told.contains(&serial(number).to_string()), "{number}: {told:?}");
        let state = stage.state(number).await;
        let stored = state.answer.unwrap();
        assert_eq!(stored.version, state.certificate.version);
        assert_eq!(stored.response_data, running.slot(stage, number).answer.unwrap().response_data());
        assert_eq!(stored.pack.is_some(), told.len() > 1);
        all.push((told, body));
    }
    all
}

fn distinct(answers: &[(BTreeSet<String>, Vec<u8>)]) -> usize {
    answers.iter().map(|(_, body)| body).collect::<BTreeSet<_>>().len()
}

#[test]
fn refreshes_share_signatures_while_asked_to_and_a_revoked_certificate_leaves_at_once() {
    with_site(
        "engine::packs::refreshes_share_signatures_while_asked_to_and_a_revoked_certificate_leaves_at_once",
        |_| {},
        async |settings| {
            let clock = Arc::new(ManualClock::new(SystemClock.now()));
            let stage = Stage::open_at(settings, clock.clone()).await;
            stage.register(0..CERTIFICATES).await;
            stage.levers.set(8, 1.0);
            let running = stage.keep(true).await;
            running.until_answered(CERTIFICATES as usize).await;
            let first = answers(&stage, &running, UnixTime(0)).await;
            assert_eq!(distinct(&first), CERTIFICATES as usize, "a first answer waits for no other");

            // All come due at once.
            clock.advance(Duration::from_secs(4 * 86_400));
            let since = stage.now();
            let packed = answers(&stage, &running, since).await;
            assert_eq!(distinct(&packed), CERTIFICATES as usize / 8, "one signature for eight");

            // A revoked one leaves its pack at once, and what is left in it says no more that it is good.
            let revoked = stage.revoke(7).await;
            let progress = running.desk.answer(vec![revoked], PATIENCE).await;
            assert!(matches!(progress[0], Progress::Signed(_)), "{progress:?}");
            let slot = running.slot(&stage, 7);
            let body = slot.answer.as_ref().unwrap().body();
            let says = Received::decode(&body).unwrap().responses;
            assert!(matches!(slot.status(), CertStatus::Revoked(_)));
            assert!(says.iter().all(|each| matches!(each.status, CertStatus::Revoked(_))));
            let seven = serial(7).to_string();
            let left: Vec<u32> =
                (0..CERTIFICATES).filter(|at| packed[7].0.contains(&serial(*at).to_string())).collect();
            assert_eq!(left.len(), 8);
            let apart = async {
                loop {
                    let now = answers(&stage, &running, since).await;
                    let told = |at: &u32| now[*at as usize].0.contains(&seven);
                    if left.iter().all(|at| told(at) == (*at == 7)) {
                        return now;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let apart =
                tokio::time::timeout(PATIENCE, apart).await.expect("what was left gets other answers");
            assert_eq!(apart[7].0.len(), 1);
            assert_eq!(
                distinct(&apart),
                CERTIFICATES as usize / 8 + 1,
                "seven of eight under another signature"
            );

            // What is on record is on the shelf of the next process.
            running.stop().await;
            let running = stage.keep(true).await;
            running.until_answered(CERTIFICATES as usize).await;
            let again = answers(&stage, &running, since).await;
            assert_eq!(again, apart);

            // Revoked ones share signatures among themselves only; and packs end with the need for them.
            clock.advance(Duration::from_secs(4 * 86_400));
            let packed = answers(&stage, &running, stage.now()).await;
            assert_eq!(packed[7].0.len(), 1);
            assert_eq!(distinct(&packed), 6);
            stage.levers.set(1, 1.0);
            clock.advance(Duration::from_secs(4 * 86_400));
            let alone = answers(&stage, &running, stage.now()).await;
            assert_eq!(distinct(&alone), CERTIFICATES as usize);
            running.stop().await;
            stage.close().await;
        },
    );
}

/// How long it takes to refresh a fleet on a token of fifty signatures a second.
async fn refreshed_within(stage: &Stage, clock: &ManualClock, running: &Running, pack: u32) -> Duration {
    stage.levers.set(pack, 1.0);
    clock.advance(Duration::from_secs(4 * 86_400));
    let since = stage.now();
    let watch = Stopwatch::start();
    let all = async {
        let is_old =
            |number: u32| running.slot(stage, number).answer.is_none_or(|answer| answer.this_update < since);
        while (0..FLEET).any(is_old) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, all).await;
    assert!(waited.is_ok(), "not refreshed in packs of {pack}");
    watch.elapsed()
}

const FLEET: u32 = 320;

#[test]
fn the_same_signatures_keep_several_times_the_fleet_fresh_in_packs() {
    with_site(
        "engine::packs::the_same_signatures_keep_several_times_the_fleet_fresh_in_packs",
        |site| site.reconfigure("sessions = 2", "sessions = 2\nmax_rate = 50"),
        async |settings| {
            let clock = Arc::new(ManualClock::new(SystemClock.now()));
            let stage = Stage::open_at(settings, clock.clone()).await;
            stage.register(0..FLEET).await;
            let running = stage.keep(true).await;
            running.until_answered(FLEET as usize).await;
            let alone = refreshed_within(&stage, &clock, &running, 1).await;
            let packed = refreshed_within(&stage, &clock, &running, 8).await;
            let gain = alone.as_secs_f64() / packed.as_secs_f64();
            println!(
                "{FLEET} certificates at 50/s: {alone:.2?} alone, {packed:.2?} in packs of 8: {gain:.1} times"
            );
            // 6.4 s against 0.8 s, and the way in and out.
            assert!(gain > 4.0, "{alone:?} and {packed:?}");
            running.stop().await;
            stage.close().await;
        },
    );
}
