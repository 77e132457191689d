//! From revocation to served answer (P10): behind a backlog of 100,000 answers that are due, on a token of
//! 100 signatures a second (a P-256 key held to that by the pool's `max_rate`). What is measured is what a
//! caller of the control API waits for: the revocation recorded, and "revoked" signed, stored and on the
//! shelf, from which the endpoint serves. Wall-clock time, of one revocation after the other.
//!
//! `cargo bench --bench revocation`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics; its figures are printed"
)]
#![allow(clippy::cast_precision_loss, reason = "figures are printed")]

#[path = "support/backlog.rs"]
mod backlog;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/pki.rs"]
mod pki;
#[path = "support/site.rs"]
mod site;
#[path = "support/token.rs"]
mod token;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use goodstanding::clock::Stopwatch;
use goodstanding::ocsp::{CertStatus, CrlReason, HashAlgorithm, KeyAlgorithm, Revocation, Serial};
use goodstanding::presign::desk::Progress;
use goodstanding::presign::keeper::{Keeper, KeeperStats, Signals};
use goodstanding::shelf::Shelf;
use goodstanding::shutdown::Shutdown;
use goodstanding::signer::Lane;
use goodstanding::store::StatusChange;
use site::Site;
use token::Place;

/// Signatures a second.
const RATE: u32 = 100;
const GOAL: Duration = Duration::from_secs(1);

fn serial(number: usize) -> Serial {
    let digest = HashAlgorithm::Sha256.digest(&number.to_be_bytes());
    Serial::from_unsigned(&[&[0x5a], &digest[..15]].concat()).unwrap()
}

async fn measure(place: &Place, backlog: usize, revocations: usize) {
    let site = Site::set(place, "slow", KeyAlgorithm::P256, Some(RATE), false).await;
    let store = Arc::clone(&site.app.store);
    let now = site.app.clock.now();
    let serials: Vec<_> = (0..backlog).map(serial).collect();
    let identity =
        site.pipeline.identities.for_issuer(site.issuer, now, Duration::from_secs(86_400)).unwrap();
    let policy = *site.pipeline.policies.load().of(site.issuer);
    backlog::fill(&*store, site.issuer, &identity, &policy, &serials, now).await;

    let frames = Arc::new(ArcSwap::from_pointee(site.app.frames().await.unwrap()));
    let shelf = Arc::new(Shelf::new());
    let stats = Arc::<KeeperStats>::default();
    let signals = Arc::<Signals>::default();
    let keeper =
        Keeper::new(site.pipeline.clone(), Arc::clone(&shelf), frames, signals, Arc::clone(&stats), true);
    let desk = keeper.desk();
    let shutdown = Shutdown::new();
    shutdown.spawn(keeper.run(shutdown.clone()));
    // The pipeline is full once the token has signed for a while.
    while stats.signed.load(Ordering::Relaxed) < u64::from(RATE) / 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let mut waits = Vec::with_capacity(revocations);
    for serial in serials.iter().step_by((backlog / revocations).max(1)).take(revocations) {
        let watch = Stopwatch::start();
        let revocation = Revocation { time: site.app.clock.now(), reason: Some(CrlReason::KeyCompromise) };
        let changes = store.revoke(site.issuer, &[(*serial, revocation)]).await.unwrap();
        let StatusChange::Changed(certificate) = &changes[0] else { panic!("{changes:?}") };
        let progress = desk.answer(vec![certificate.key], Duration::from_secs(20)).await;
        let slot = shelf.get(site.issuer, serial).unwrap();
        assert!(matches!(progress[0], Progress::Signed(_)), "{progress:?}");
        assert!(matches!(slot.status(), CertStatus::Revoked(_)) && slot.answer.is_some());
        waits.push(watch.elapsed());
    }
    let left = stats.figures.load().outlook.lanes[Lane::Refresh.index()].due;
    waits.sort_unstable();
    let at = |hundredths: usize| waits[(waits.len() - 1) * hundredths / 100].as_secs_f64() * 1e3;
    println!(
        "{} revocations behind {backlog} due answers ({left} at the end) at {RATE} signatures/s: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms; goal p99 {:.0} ms",
        waits.len(),
        at(50),
        at(99),
        at(100),
        GOAL.as_secs_f64() * 1e3,
    );
    let what = format!("a revocation behind {backlog} due answers at {RATE}/s");
    figures::note(
        "P10",
        &what,
        &format!("p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms", at(50), at(99), at(100)),
    );
    shutdown.stop();
    assert!(shutdown.drained(Duration::from_secs(30)).await);
    drop(identity);
    site.pipeline.identities.replace(Vec::new());
    site.app.close().await;
}

fn main() -> ExitCode {
    token::with_token(|place| {
        let (backlog, revocations) = if token::is_smoke() { (2_000, 5) } else { (100_000, 200) };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(measure(place, backlog, revocations));
    })
}
