use super::*;
use crate::capacity::guard::TokenReading;
use crate::capacity::model::{Reserve, Work};
use crate::capacity::throttle;
use crate::clock::{Clock, ManualClock};
use crate::ocsp::Serial;
use crate::store::CertificateEntry;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: i64 = 86_400;
const START: UnixTime = UnixTime(20_000 * DAY);

fn settings() -> Settings {
    Settings {
        reserve: Reserve { headroom: 0.8, live: None, outage: 24 * HOUR, drain: 24 * HOUR },
        work: Work { per_refresh: 1.0, per_issuance: 0.0 },
        pack_max: 1,
        watch_only: false,
        throttle: throttle::Settings::default(),
        smoothing: 24 * HOUR,
    }
}

fn terms() -> Terms {
    Terms { validity: 168 * HOUR, refresh: 84 * HOUR, deadline: 96 * HOUR, spread: 0.25 }
}

struct Bed {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Bed {
    /// A store with 60 certificates of 90 days that end in 45.
    async fn new() -> Self {
        let bed = Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::new(START)) };
        let store = bed.store().await;
        let issuer = store.add_issuer("demo", b"its certificate").await.unwrap().id;
        bed.register(&*store, issuer, 0..60, 45).await;
        store.close().await;
        bed
    }

    async fn store(&self) -> Arc<dyn Store> {
        crate::store::open(&format!("sqlite://{}/guard.db", self.folder.path().display())).await.unwrap()
    }

    async fn register(
        &self,
        store: &dyn Store,
        issuer: crate::store::IssuerId,
        numbers: std::ops::Range<u32>,
        days_left: i64,
    ) {
        let entry = |number: u32| CertificateEntry {
            serial: Serial::from_unsigned(&number.to_be_bytes()).unwrap(),
            not_before: Some(UnixTime(START.0 + (days_left - 90) * DAY)),
            not_after: UnixTime(START.0 + days_left * DAY),
            revocation: None,
        };
        store.register(issuer, &numbers.map(entry).collect::<Vec<_>>()).await.unwrap();
    }

    /// A guard at work, its findings, and how to stop it.
    async fn guard(
        &self,
        rate: Option<f64>,
        stale: i64,
    ) -> (Findings, Shutdown, tokio::task::JoinHandle<()>) {
        let pace =
            Pace { look: Duration::from_millis(20), recount: Duration::from_millis(256), ..Pace::default() };
        let clock: SharedClock = Arc::<ManualClock>::clone(&self.clock);
        let store = self.store().await;
        let (guard, findings) =
            LiveGuard::start(store, clock, settings(), terms(), Assumed::default(), pace).await.unwrap();
        let clock = Arc::clone(&self.clock);
        let measure = move || Measured {
            reading: Reading {
                now: clock.now(),
                tokens: vec![TokenReading { name: "a".to_owned(), rate, away: None }],
                live_p99: 0.0,
                offered: 0.0,
                time_to_stale: Some(stale),
                time_to_expiry: Some(stale),
                overdue: 0.0,
            },
            unexpired: None,
        };
        let shutdown = Shutdown::new();
        let running =
            tokio::spawn(guard.run(measure, || (settings(), terms(), Assumed::default()), shutdown.clone()));
        (findings, shutdown, running)
    }
}

async fn until(findings: &mut Findings, what: impl Fn(&Report) -> bool) -> Report {
    let found =
        tokio::time::timeout(Duration::from_secs(30), findings.report.wait_for(|report| what(report)));
    found.await.expect("within half a minute").unwrap().clone()
}

#[tokio::test]
async fn it_counts_the_store_and_publishes_a_pressure_with_a_lease() {
    let bed = Bed::new().await;
    let (mut findings, shutdown, running) = bed.guard(Some(50.0), 43_200).await;
    assert_eq!(findings.report.borrow().state, State::Blind, "nothing is counted yet");
    let report = until(&mut findings, |report| report.state == State::Green).await;
    assert_eq!(report.fleet, 60.0);
    let pressure = findings.pressure.borrow().clone();
    assert_eq!((pressure.multiplier, pressure.state), (1.0, GuardState::Green));
    assert_eq!(pressure.multiplier_at(START.plus(HOUR)), 0.25, "a pressure that is not renewed runs out");
    assert!(pressure.forecast.unwrap().contains("114 certificates are expected in 16 days"));

    let store = bed.store().await;
    let issuer = store.issuers().await.unwrap()[0].id;
    bed.register(&*store, issuer, 60..100, 90).await;
    until(&mut findings, |report| report.fleet == 100.0).await;
    shutdown.stop();
    running.await.unwrap();
}

#[tokio::test]
async fn a_restart_does_not_forget() {
    let bed = Bed::new().await;
    let (mut findings, shutdown, running) = bed.guard(Some(50.0), 0).await;
    let report = until(&mut findings, |report| report.state == State::Red).await;
    assert_eq!(report.multiplier, 0.0);
    shutdown.stop();
    running.await.unwrap();

    bed.clock.advance(Duration::from_secs(60));
    let (mut findings, shutdown, running) = bed.guard(Some(50.0), 43_200).await;
    assert_eq!(findings.pressure.borrow().multiplier, 0.0, "before the first look");
    let report = until(&mut findings, |report| report.state != State::Blind).await;
    assert!(report.multiplier > 0.0 && report.multiplier < 0.01, "by the slope: {}", report.multiplier);
    shutdown.stop();
    running.await.unwrap();
    let store = bed.store().await;
    let kept = last_report(&*store, bed.clock.now()).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.fleet), (State::Amber, 60.0));
    let old = last_report(&*store, bed.clock.now().plus(HOUR)).await.unwrap().unwrap();
    assert_eq!(old.state, State::Blind);
    assert!(old.reason.contains("has not reported since"), "{}", old.reason);
}

#[tokio::test]
async fn a_guard_without_a_rate_is_blind_and_writes_nothing_down() {
    let bed = Bed::new().await;
    let (mut findings, shutdown, running) = bed.guard(None, 43_200).await;
    let report = until(&mut findings, |report| report.reason.contains("no rate")).await;
    assert_eq!((report.state, report.multiplier), (State::Blind, 0.25));
    shutdown.stop();
    running.await.unwrap();
    assert_eq!(bed.store().await.guard().await.unwrap(), None);
}

#[tokio::test]
async fn a_record_that_does_not_read_is_no_reason_not_to_start() {
    let bed = Bed::new().await;
    let store = bed.store().await;
    store.keep_guard(&GuardRecord { at: START, document: "{".to_owned() }).await.unwrap();
    assert!(matches!(last_report(&*store, START).await, Err(StoreError::Corrupt { .. })));
    let (mut findings, shutdown, running) = bed.guard(Some(50.0), 43_200).await;
    until(&mut findings, |report| report.state == State::Green).await;
    shutdown.stop();
    running.await.unwrap();
}
