//! The pressure for processes without a guard: read from where the guard of the signing process keeps it.
//!
//! Its lease goes with it, so that a limiter apart from its guard is as blind as one beside it when the
//! guard says no more. A store in which no guard ever reported has none: nothing presses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::live::{last_report, pressure};
use super::report::Report;
use crate::clock::{SharedClock, UnixTime};
use crate::limits::Pressure;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// How often it is read: one row.
const READ_EVERY: Duration = Duration::from_secs(5);

/// The pressure that a guard kept last, with what is left of its lease; none where no guard ever reported.
/// `safe` is what the multiplier falls to when the lease has run out.
///
/// # Errors
/// As [`last_report`].
pub async fn last_pressure(
    store: &dyn Store,
    now: UnixTime,
    safe: f64,
) -> Result<Option<Pressure>, StoreError> {
    Ok(last_report(store, now).await?.map(|report| leased(&report, safe)))
}

fn leased(report: &Report, safe: f64) -> Pressure {
    pressure(report, report.lease_until.since(report.at), safe)
}

/// What a guard in another process found.
#[derive(Clone, Debug)]
pub struct Followed {
    /// For the limiter.
    pub pressure: watch::Receiver<Pressure>,
    /// For people; none before the first.
    pub report: watch::Receiver<Option<Report>>,
}

/// Reads what a guard in another process keeps.
pub struct Follower {
    store: Arc<dyn Store>,
    clock: SharedClock,
    pressure: watch::Sender<Pressure>,
    report: watch::Sender<Option<Report>>,
    failing: bool,
    /// Orders that the guard was told of.
    told: u64,
}

impl Follower {
    /// A follower, and where to read what it finds. Nothing presses before [`Follower::run`] has read.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: SharedClock) -> (Self, Followed) {
        let (pressure, pressures) = watch::channel(Pressure::none());
        let (report, reports) = watch::channel(None);
        let follower = Self { store, clock, pressure, report, failing: false, told: 0 };
        (follower, Followed { pressure: pressures, report: reports })
    }

    /// Reads once. What was read last stands while the store does not answer, until its lease runs out.
    pub async fn read(&mut self, safe: f64) {
        match last_report(&*self.store, self.clock.now()).await {
            Ok(report) => {
                if let Some(report) = &report {
                    self.pressure.send_replace(leased(report, safe));
                }
                self.report.send_replace(report);
                self.failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "cannot read what the capacity guard keeps; its last word stands until its lease ends");
                }
            }
        }
    }

    /// Tells the guard of the new certificates that the limiter here was asked for so far; it counts them
    /// as its own.
    async fn tell(&mut self, offered: u64) {
        let more = offered.saturating_sub(self.told);
        if more == 0 {
            return;
        }
        match self.store.add_offered(more).await {
            Ok(()) => self.told = offered,
            Err(error) => {
                tracing::warn!(%error, "cannot tell the capacity guard what is asked for; trying again")
            }
        }
    }

    /// Reads, and tells what was asked for, again and again until the stop. `safe` and `offered`, new
    /// certificates asked for since the start, are asked for each time.
    pub async fn run(
        mut self,
        mut safe: impl FnMut() -> f64 + Send,
        mut offered: impl FnMut() -> u64 + Send,
        shutdown: Shutdown,
    ) {
        loop {
            tokio::select! {
                () = shutdown.stopped() => break,
                () = tokio::time::sleep(READ_EVERY) => {
                    self.tell(offered()).await;
                    self.read(safe()).await;
                }
            }
        }
        self.tell(offered()).await;
    }
}
