//! The capacity guard in a running process: what it is fed from, and where its findings show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::watch;

use super::settings::Settings;
use super::{App, AppError};
use crate::capacity::follow::{Followed, Follower};
use crate::capacity::guard::{self, Reading, TokenReading};
use crate::capacity::inventory::Assumed;
use crate::capacity::live::{Findings, LiveGuard, Measured, Pace};
use crate::capacity::live_demand::LiveDemand;
use crate::capacity::model::{Reserve, Terms, Work};
use crate::capacity::{Report, State, throttle};
use crate::clock::{Stopwatch, UnixTime};
use crate::presign::keeper::KeeperStats;
use crate::presign::levers::Levers;
use crate::server::control::api::CapacityReport;
use crate::shelf::Shelf;
use crate::shutdown::Shutdown;
use crate::signer::{Signer, TokenState};
use crate::store::{CapacityProfile, Store};
use crate::telemetry::{Encoded, Scrape};

pub use crate::capacity::live::last_report;

/// How often it is read what other processes' limiters were asked for.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The time that `capacity.slope` is for.
const SLOPE_PER: Duration = Duration::from_secs(900);

/// What the guard looks at.
pub(super) struct Sources {
    pub(super) app: Arc<App>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) keeper: Arc<KeeperStats>,
    pub(super) signers: Arc<ArcSwap<Vec<Signer>>>,
    /// What the engine is asked to do.
    pub(super) levers: Arc<Levers>,
    /// New certificates asked for here since the start, accepted or refused, renewals not counted.
    pub(super) offered: Box<dyn Fn() -> u64 + Send>,
    /// Live signatures made since the start.
    pub(super) live: Box<dyn Fn() -> u64 + Send>,
}

/// Starts the guard of a process; it ends with `shutdown`.
///
/// # Errors
/// [`AppError::Store`] when the store does not answer.
pub(super) async fn start(sources: Sources, shutdown: &Shutdown) -> Result<Findings, AppError> {
    let (app, clock) = (Arc::clone(&sources.app), Arc::clone(&sources.app.clock));
    let settings = app.settings();
    let remembered = match last_report(&*app.store, clock.now()).await {
        Ok(report) => report,
        // The guard itself tells what is wrong with the record.
        Err(crate::store::StoreError::Corrupt { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut known = recorded_rates(&app.store.profiles().await?, None);
    for token in remembered.into_iter().flat_map(|report| report.tokens) {
        if let Some(rate) = token.rate {
            known.insert(token.name, rate);
        }
    }
    let (guard, findings) = LiveGuard::start(
        Arc::clone(&app.store),
        clock,
        reckoning(&settings),
        terms(&settings),
        assumed(&settings),
        Pace::default(),
    )
    .await?;
    let (mut reports, levers) = (findings.report.clone(), Arc::clone(&sources.levers));
    let reckoned = Arc::clone(&app);
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            obey(&reports.borrow_and_update(), &terms(&reckoned.settings()), &levers);
            tokio::select! {
                () = stop.stopped() => return,
                changed = reports.changed() => if changed.is_err() { return },
            }
        }
    });
    let mut meter = Meter {
        known,
        away: BTreeMap::new(),
        offered: 0,
        live: ((sources.live)(), Stopwatch::start()),
        live_demand: LiveDemand::default(),
    };
    let elsewhere = Elsewhere::start(Arc::clone(&app.store), shutdown).await?;
    let here = sources.offered;
    let sources = Sources { offered: Box::new(move || here() + elsewhere.offered()), ..sources };
    let measure = move || meter.read(&sources);
    let settings = move || {
        let settings = app.settings();
        (reckoning(&settings), terms(&settings), assumed(&settings))
    };
    let stop = shutdown.clone();
    shutdown.spawn(async move { guard.run(measure, settings, stop).await });
    Ok(findings)
}

/// Sets the levers as a report says.
fn obey(report: &Report, terms: &Terms, levers: &Levers) {
    if report.watch_only {
        levers.set(1, 1.0);
        return;
    }
    let refresh = Duration::from_secs(report.refresh_seconds);
    let pack = u32::try_from(report.pack).unwrap_or(u32::MAX);
    levers.set(pack, refresh.as_secs_f64() / terms.refresh.as_secs_f64());
}

/// Follows the guard of another process, and tells it what is asked for here: new certificates since the
/// start. It ends with `shutdown`.
pub(super) async fn follow(
    app: &Arc<App>,
    offered: impl FnMut() -> u64 + Send + 'static,
    shutdown: &Shutdown,
) -> Followed {
    let (mut follower, followed) = Follower::new(Arc::clone(&app.store), Arc::clone(&app.clock));
    follower.read(app.settings().capacity.safe_multiplier).await;
    let app = Arc::clone(app);
    let safe = move || app.settings().capacity.safe_multiplier;
    let stop = shutdown.clone();
    shutdown.spawn(async move { follower.run(safe, offered, stop).await });
    followed
}

/// What limiters in other processes are asked for.
struct Elsewhere(Arc<AtomicU64>);

impl Elsewhere {
    /// Counts from now on, until `shutdown`.
    async fn start(store: Arc<dyn Store>, shutdown: &Shutdown) -> Result<Self, AppError> {
        let before = store.offered().await?;
        let (count, stop) = (Arc::new(AtomicU64::new(0)), shutdown.clone());
        let counted = Arc::clone(&count);
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.stopped() => return,
                    () = tokio::time::sleep(COUNT_EVERY) => {}
                }
                match store.offered().await {
                    Ok(offered) => counted.store(offered.saturating_sub(before), Ordering::Relaxed),
                    Err(error) => tracing::warn!(%error, "cannot read what other limiters are asked for"),
                }
            }
        });
        Ok(Self(count))
    }

    fn offered(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is remembered between two readings.
struct Meter {
    /// The last rate of each token.
    known: BTreeMap<String, f64>,
    /// Since when each token that is away has been.
    away: BTreeMap<String, UnixTime>,
    offered: u64,
    /// Live signatures when they were last looked at, and since when that is.
    live: (u64, Stopwatch),
    live_demand: LiveDemand,
}

impl Meter {
    fn read(&mut self, sources: &Sources) -> Measured {
        let now = sources.app.clock.now();
        let tokens = sources.signers.load().iter().map(|signer| self.token(signer, now)).collect();
        let offered = (sources.offered)();
        let more = offered.saturating_sub(std::mem::replace(&mut self.offered, offered));
        let live = (sources.live)();
        let (before, watch) = std::mem::replace(&mut self.live, (live, Stopwatch::start()));
        self.live_demand.note(live.saturating_sub(before), watch.elapsed(), now);
        let figures = sources.keeper.figures.load();
        let outlook = &figures.outlook;
        let left = |at: Option<UnixTime>| at.map(|at| at.0 - now.0);
        let due: u64 = outlook.lanes.iter().map(|lane| lane.due).sum();
        let reading = Reading {
            now,
            tokens,
            live_p99: self.live_demand.p99(),
            offered: more as f64,
            time_to_stale: left(outlook.stale_at),
            time_to_expiry: left(outlook.expires_at),
            overdue: due as f64 / sources.levers.pack() as f64,
        };
        let shelf = &sources.shelf;
        Measured { reading, unexpired: shelf.is_complete().then(|| shelf.certificates() as u64) }
    }

    fn token(&mut self, signer: &Signer, now: UnixTime) -> TokenReading {
        let stats = signer.stats();
        if let Some(rate) = stats.rate {
            self.known.insert(stats.token.clone(), rate.per_second);
        }
        let away = if stats.state == TokenState::Serving {
            self.away.remove(&stats.token);
            None
        } else {
            let since = *self.away.entry(stats.token.clone()).or_insert(now);
            Some(now.since(since))
        };
        TokenReading { rate: self.known.get(&stats.token).copied(), name: stats.token, away }
    }
}

/// How the guard reckons under these settings. One signature answers for a certificate under all its
/// hashes, whichever responder makes it.
fn reckoning(settings: &Settings) -> guard::Settings {
    let capacity = settings.capacity;
    guard::Settings {
        reserve: Reserve {
            headroom: capacity.headroom,
            live: None,
            outage: capacity.outage,
            drain: capacity.drain,
        },
        work: Work { per_refresh: 1.0, per_issuance: 0.0 },
        pack_max: capacity.pack_max,
        watch_only: !capacity.enforce,
        throttle: throttle::Settings {
            climb: capacity.slope,
            every: SLOPE_PER,
            dead_band: capacity.dead_band,
            safe: capacity.safe_multiplier,
            lease: capacity.lease,
            ..throttle::Settings::default()
        },
        smoothing: Duration::from_secs(86_400),
    }
}

/// What is taken where the fleet does not tell.
fn assumed(settings: &Settings) -> Assumed {
    let days = |span: Duration| u32::try_from(span.as_secs() / 86_400).unwrap_or(u32::MAX);
    let capacity = settings.capacity;
    Assumed {
        lifetime: days(capacity.lifetime),
        renewal_age: days(capacity.renewal_age),
        renewal_share: capacity.renewal_share,
    }
}

/// How long answers last. Where issuers differ, all are taken for the one refreshed most often.
fn terms(settings: &Settings) -> Terms {
    let own = settings.issuers.iter().filter_map(|issuer| issuer.freshness);
    let strictest = own.chain([settings.freshness]).min_by_key(|freshness| freshness.refresh());
    Terms::from(strictest.unwrap_or(settings.freshness))
}

/// The best rate that `hsm bench` recorded for each token: of `algorithm`, else of the slowest key kind
/// measured, since any may be what signs.
#[must_use]
pub fn recorded_rates(profiles: &[CapacityProfile], algorithm: Option<&str>) -> BTreeMap<String, f64> {
    let mut best: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for profile in profiles.iter().filter(|profile| algorithm.is_none_or(|kind| kind == profile.algorithm)) {
        let rate = best.entry((&profile.token, &profile.algorithm)).or_default();
        *rate = rate.max(profile.rate);
    }
    let mut rates: BTreeMap<String, f64> = BTreeMap::new();
    for ((token, _), rate) in best {
        let slowest = rates.entry(token.to_owned()).or_insert(rate);
        *slowest = slowest.min(rate);
    }
    rates
}

/// What `GET /v1/capacity` tells.
pub(super) fn told(report: watch::Receiver<Report>) -> CapacityReport {
    Arc::new(move || serde_json::to_value(&*report.borrow()).ok())
}

/// What it tells in a process that follows another one's guard.
pub(super) fn heard(report: watch::Receiver<Option<Report>>) -> CapacityReport {
    Arc::new(move || report.borrow().as_ref().and_then(|report| serde_json::to_value(report).ok()))
}

/// The guard's figures for `/metrics`.
#[derive(Debug)]
pub(super) struct CapacityFigures(pub(super) watch::Receiver<Report>);

impl Collector for CapacityFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let report = self.0.borrow().clone();
        let mut scrape = Scrape::new(&mut encoder);
        let gauges = [
            ("capacity_multiplier", "The share of new issuance that is allowed", report.multiplier),
            (
                "capacity_utilisation_ratio",
                "Signatures asked for over what the HSMs are counted on for",
                report.utilisation.unwrap_or(f64::INFINITY),
            ),
            (
                "capacity_utilisation_limit_ratio",
                "The utilisation that is planned up to",
                report.utilisation_limit,
            ),
            ("capacity_certificates", "Unexpired certificates, revoked ones included", report.fleet),
            (
                "capacity_largest_fleet_certificates",
                "The most that the HSMs carry with the pack in use",
                report.largest_fleet,
            ),
            ("capacity_new_certificates_per_day", "New certificates a day that fit", report.budget_per_day),
            (
                "capacity_offered_certificates_per_day",
                "New certificates a day that are asked for",
                report.offered_per_day,
            ),
            ("capacity_pack_certificates", "Certificates under one signature", report.pack as f64),
        ];
        for (name, help, value) in gauges {
            scrape.gauge(name, help, value)?;
        }
        let refresh = report.refresh_seconds as f64;
        scrape.seconds("capacity_refresh", "The refresh interval planned with", refresh)?;
        if let Some(left) = report.time_to_stale_seconds {
            let help = "Until the first answer is stale; negative when one is";
            scrape.seconds("capacity_time_to_stale", help, left as f64)?;
        }
        let states = State::ALL.map(|state| ([("state", state.name())], u32::from(state == report.state)));
        scrape.gauges("capacity_state", "1 for the guard's state", None, states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_kind_of_key_is_counted_on_unless_one_is_named() {
        let profile = |token: &str, algorithm: &str, sessions, rate| CapacityProfile {
            token: token.to_owned(),
            algorithm: algorithm.to_owned(),
            sessions,
            rate,
            raw_rate: rate,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            measured_at: UnixTime(0),
        };
        let profiles = [
            profile("a", "rsa-2048", 1, 60.0),
            profile("a", "rsa-2048", 4, 200.0),
            profile("a", "p256", 4, 900.0),
            profile("b", "p256", 2, 50.0),
        ];
        let rates = |algorithm| recorded_rates(&profiles, algorithm).into_iter().collect::<Vec<_>>();
        assert_eq!(rates(None), [("a".to_owned(), 200.0), ("b".to_owned(), 50.0)]);
        assert_eq!(rates(Some("p256")), [("a".to_owned(), 900.0), ("b".to_owned(), 50.0)]);
        assert_eq!(rates(Some("ed25519")), []);
    }

    #[test]
    fn the_spread_that_is_reckoned_with_is_the_one_of_the_schedule() {
        let freshness = Settings::default().freshness;
        let terms = Terms::from(freshness);
        let begins = UnixTime(1_000_000);
        let next_update = freshness.next_update(begins, UnixTime::MAX);
        let mean: f64 = (0u32..4_000)
            .map(|number| {
                let serial = crate::ocsp::Serial::from_unsigned(&number.to_be_bytes()).unwrap();
                1.0 / freshness.due_at(begins, next_update, &serial).since(begins).as_secs_f64()
            })
            .sum::<f64>()
            / 4_000.0;
        assert!((mean * terms.mean_refresh() - 1.0).abs() < 0.01, "{}", mean * terms.mean_refresh());
    }
}
