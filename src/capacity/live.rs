//! The guard at work in a process: it looks, publishes, remembers, and counts the fleet anew.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::guard::{Guard, Memory, Reading, Settings};
use super::inventory::{Assumed, Inventory};
use super::model::Terms;
use super::report::{Report, State};
use crate::clock::{SharedClock, UnixTime};
use crate::limits::{GuardState, Lease, Pressure};
use crate::shutdown::Shutdown;
use crate::store::{GuardRecord, Shard, Store, StoreError};

/// A multiplier that moved so far is written down at once.
const MOVED: f64 = 0.01;

/// How the guard works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// How often it looks and publishes.
    pub look: Duration,
    /// How often what it knows is written down, at least four times within its lease. A change of state or
    /// of the multiplier is written at once.
    pub keep: Duration,
    /// The time over which the whole fleet is counted anew, a shard at a time.
    pub recount: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(10),
            keep: Duration::from_secs(60),
            recount: Duration::from_secs(3_600),
        }
    }
}

/// What the process around the guard measures, at each look.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The reading.
    pub reading: Reading,
    /// Unexpired certificates that are known in memory; none before all are.
    pub unexpired: Option<u64>,
}

/// The document that is kept in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    memory: Option<Memory>,
    report: Report,
}

/// The last report that a guard kept in the store. One whose lease has run out is told as blind.
///
/// # Errors
/// [`StoreError`]; [`StoreError::Corrupt`] for a document that does not read.
pub async fn last_report(store: &dyn Store, now: UnixTime) -> Result<Option<Report>, StoreError> {
    let Some(record) = store.guard().await? else { return Ok(None) };
    let document: Document = read(store, &record)?;
    let mut report = document.report;
    if now > report.lease_until {
        report.state = State::Blind;
        report.reason =
            format!("the guard has not reported since {}; then it said: {}", report.at, report.reason);
    }
    Ok(Some(report))
}

fn read(store: &dyn Store, record: &GuardRecord) -> Result<Document, StoreError> {
    serde_json::from_str(&record.document).map_err(|error| StoreError::Corrupt {
        url: store.url().to_owned(),
        what: format!("the capacity guard's record of {}: {error}", record.at),
    })
}

/// Where the guard's findings are read.
#[derive(Clone, Debug)]
pub struct Findings {
    /// For the limiter.
    pub pressure: watch::Receiver<Pressure>,
    /// For people, and for the engine: the refresh interval and the pack to plan with.
    pub report: watch::Receiver<Report>,
}

/// The guard of a process.
pub struct LiveGuard {
    guard: Guard,
    assumed: Assumed,
    pace: Pace,
    lease: Duration,
    safe: f64,
    store: Arc<dyn Store>,
    clock: SharedClock,
    inventory: Inventory,
    pressure: watch::Sender<Pressure>,
    report: watch::Sender<Report>,
    /// When what is known was written down last, with the state and the multiplier then.
    kept: Option<(UnixTime, State, f64)>,
}

impl LiveGuard {
    /// A guard that goes on from what the store remembers. A record that does not read is told in the
    /// log, and begun anew.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn start(
        store: Arc<dyn Store>,
        clock: SharedClock,
        settings: Settings,
        terms: Terms,
        assumed: Assumed,
        pace: Pace,
    ) -> Result<(Self, Findings), StoreError> {
        let memory = match store.guard().await? {
            None => None,
            Some(record) => match read(&*store, &record) {
                Ok(document) => document.memory,
                Err(error) => {
                    tracing::error!(%error, "the capacity guard begins anew");
                    None
                }
            },
        };
        let guard = Guard::new(settings, terms, memory);
        let report = guard.blind(clock.now(), "it has just started");
        let (lease, safe) = (settings.throttle.lease, settings.throttle.safe);
        let (pressure, pressures) = watch::channel(pressure(&report, lease, safe));
        let (report, reports) = watch::channel(report);
        let live = Self {
            guard,
            assumed,
            pace,
            lease,
            safe,
            store,
            clock,
            inventory: Inventory::default(),
            pressure,
            report,
            kept: None,
        };
        Ok((live, Findings { pressure: pressures, report: reports }))
    }

    /// Counts the fleet, then looks again and again until the stop. `measure` is called at each look;
    /// `settings` may change what the guard reckons with and takes for granted.
    pub async fn run(
        mut self,
        mut measure: impl FnMut() -> Measured + Send,
        mut settings: impl FnMut() -> (Settings, Terms, Assumed) + Send,
        shutdown: Shutdown,
    ) {
        let mut shard = Shard(0);
        let mut look = tokio::time::interval(self.pace.look);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first count goes as fast as the store does; later ones a shard at a time.
        let every = (self.pace.recount / Shard::COUNT as u32).max(Duration::from_millis(1));
        let mut recount = tokio::time::interval(every);
        recount.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let complete = self.inventory.is_complete();
            tokio::select! {
                biased;
                () = shutdown.stopped() => break,
                _ = look.tick() => {
                    let (settings, terms, assumed) = settings();
                    self.guard.replace(settings, terms);
                    self.assumed = assumed;
                    (self.lease, self.safe) = (settings.throttle.lease, settings.throttle.safe);
                    self.look(measure()).await;
                }
                _ = recount.tick(), if complete => shard = self.count(shard).await,
                () = std::future::ready(()), if !complete => {
                    shard = self.count(shard).await;
                    if self.inventory.is_complete() {
                        look.reset_immediately();
                    }
                }
            }
        }
        self.keep().await;
    }

    /// Counts a shard; returns the one that follows.
    async fn count(&mut self, shard: Shard) -> Shard {
        match self.store.fleet_days(shard, self.clock.now()).await {
            Ok(days) => self.inventory.put(shard, days),
            Err(error) => {
                tracing::warn!(%error, shard = shard.0, "cannot count the fleet; the last count stands");
                // An answer that fails at once is not to be asked for all the time.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Shard(shard.0.wrapping_add(1))
    }

    async fn look(&mut self, measured: Measured) {
        let now = measured.reading.now;
        let report = if self.inventory.is_complete() {
            let fleet = self.inventory.fleet(now, measured.unexpired, &self.assumed);
            self.guard.read(&measured.reading, &fleet)
        } else {
            self.guard.blind(now, "the fleet is being counted")
        };
        let before = self.report.borrow().state;
        if before != report.state {
            tracing::info!(
                from = before.name(),
                to = report.state.name(),
                multiplier = report.multiplier,
                reason = report.reason,
                "capacity"
            );
        }
        self.pressure.send_replace(pressure(&report, self.lease, self.safe));
        self.report.send_replace(report);
        let (state, multiplier) = (self.report.borrow().state, self.report.borrow().multiplier);
        // Other processes live on what is written: well within the lease, and at once when it presses more.
        let keep = self.pace.keep.min(self.lease / 4);
        let due = self.kept.is_none_or(|(at, kept, pressed)| {
            kept != state || (pressed - multiplier).abs() >= MOVED || now.since(at) >= keep
        });
        if due && state != State::Blind {
            self.keep().await;
        }
    }

    /// Writes down what is known.
    async fn keep(&mut self) {
        let report = self.report.borrow().clone();
        let kept = (report.at, report.state, report.multiplier);
        let at = report.at;
        let document = Document { memory: self.guard.memory().cloned(), report };
        if document.memory.is_none() {
            return;
        }
        let document = match serde_json::to_string(&document) {
            Ok(document) => document,
            Err(error) => {
                tracing::error!(%error, "cannot write down what the capacity guard knows");
                return;
            }
        };
        match self.store.keep_guard(&GuardRecord { at, document }).await {
            Ok(()) => self.kept = Some(kept),
            Err(error) => {
                tracing::warn!(%error, "cannot keep what the capacity guard knows; a restart would forget it");
            }
        }
    }
}

/// What the limiter is told.
#[must_use]
pub fn pressure(report: &Report, lease: Duration, safe: f64) -> Pressure {
    if report.watch_only {
        return Pressure::none();
    }
    Pressure {
        multiplier: report.multiplier,
        state: match report.state {
            State::Green => GuardState::Green,
            State::Amber => GuardState::Amber,
            State::Red => GuardState::Red,
            State::Blind => GuardState::Blind,
        },
        offered_per_day: (report.offered_per_day > 0.0).then_some(report.offered_per_day),
        reason: report.reason.as_str().into(),
        utilisation: report.utilisation,
        forecast: (report.state != State::Blind).then(|| report.forecast().into()),
        eases_at: report.eases_at,
        lease: Some(Lease { published_at: report.at, lasts: lease, safe_multiplier: safe }),
    }
}

#[cfg(test)]
mod tests;
