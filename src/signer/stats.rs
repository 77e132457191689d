//! What a signer tells of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lane::Lane;
use super::load::Rate;
use super::module::lock;
use super::queue::LaneFigures;

/// How a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It signs.
    Serving,
    /// It failed just now and is being mended for the first time; jobs wait.
    Recovering {
        /// What failed.
        reason: Arc<str>,
    },
    /// It is away: jobs fail at once, and it is tried again with back-off.
    Down {
        /// What failed last.
        reason: Arc<str>,
        /// Tries since it went away.
        tries: u32,
    },
    /// It refused the PIN: nothing is tried until the operator acts.
    PinRefused {
        /// What it said.
        reason: Arc<str>,
    },
    /// The signer was stopped.
    Stopped,
}

impl TokenState {
    /// The label in metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Recovering { .. } => "recovering",
            Self::Down { .. } => "down",
            Self::PinRefused { .. } => "pin_refused",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => f.write_str("serving"),
            Self::Recovering { reason } => write!(f, "recovering: {reason}"),
            Self::Down { reason, tries } => write!(f, "down after {tries} tries: {reason}"),
            Self::PinRefused { reason } => write!(f, "stopped for its PIN: {reason}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// A signer's figures since its start.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The configured name of the token.
    pub token: String,
    /// How it stands.
    pub state: TokenState,
    /// Signatures made and verified.
    pub signed: u64,
    /// Failed calls by PKCS#11 return code and function, for example `DeviceError in Sign`.
    pub failures: BTreeMap<String, u64>,
    /// Signatures that did not verify.
    pub unverified: u64,
    /// Calls that did not come back in time.
    pub timeouts: u64,
    /// Sessions opened after the first ones.
    pub sessions_reopened: u64,
    /// Attempts to mend the token as a whole.
    pub recoveries: u64,
    /// Sessions that are open and logged in.
    pub sessions: usize,
    /// Threads whose call has not come back.
    pub hung: usize,
    /// What waits for a session, by lane as in [`Lane::ALL`].
    pub lanes: [LaneFigures; Lane::ALL.len()],
    /// The sustained rate; none until work has waited for a second.
    pub rate: Option<Rate>,
    /// The time C_Sign takes.
    pub call_time: Latency,
    /// The same as counts by class: those that took less than the time, and not less than the one
    /// before. The last time is [`Duration::MAX`].
    pub call_times: Vec<(Duration, u64)>,
}

/// A summary of durations. Quantiles are upper bounds, at most 1/8 too high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: Duration,
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

const STEPS: usize = 8;
const BUCKETS: usize = 40 * STEPS;

/// Durations in buckets of 1/8 of a power of two, from 1 µs up to 12 days.
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
    max_micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_micros: AtomicU64::new(0),
            max_micros: AtomicU64::new(0),
        }
    }
}

fn bucket(micros: u64) -> usize {
    let steps = STEPS as u64;
    if micros < steps {
        return usize::try_from(micros).unwrap_or(0);
    }
    let power = u64::from(micros.ilog2());
    let step = (micros >> (power - 3)) - steps;
    usize::try_from((power - 2) * steps + step).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (power, step) = (bucket / STEPS + 2, bucket % STEPS);
    ((STEPS + step + 1) as u64) << (power - 3)
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// Counts by powers of two, from 64 µs to 17 s.
    pub(crate) fn classes(&self) -> Vec<(Duration, u64)> {
        let mut counts = self.buckets.iter().map(|each| each.load(Ordering::Relaxed));
        let mut below = 0;
        let mut classes: Vec<_> = (6..=24)
            .map(|power| {
                let end = bucket(1 << power);
                let count = counts.by_ref().take(end - std::mem::replace(&mut below, end)).sum();
                (Duration::from_micros(1 << power), count)
            })
            .collect();
        classes.push((Duration::MAX, counts.sum()));
        classes
    }

    pub(crate) fn summary(&self) -> Latency {
        let counts: Vec<u64> = self.buckets.iter().map(|each| each.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max_micros.load(Ordering::Relaxed);
        let quantile = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut seen = 0;
            let at = counts.iter().position(|each| {
                seen += each;
                seen >= rank && seen > 0
            });
            Duration::from_micros(at.map_or(0, upper_bound).min(max))
        };
        Latency {
            count,
            sum: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)),
            p50: quantile(50),
            p99: quantile(99),
            max: Duration::from_micros(max),
        }
    }
}

/// The counters behind a [`Snapshot`].
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) signed: AtomicU64,
    pub(crate) unverified: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) reopened: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) call_time: Histogram,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Stats {
    pub(crate) fn failed(&self, code: &str) {
        *lock(&self.failures).entry(code.to_owned()).or_default() += 1;
    }

    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        lock(&self.failures).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_under_the_bound_of_its_bucket_and_near_it() {
        for micros in (0..5_000).chain([123_456, 9_999_999, 1 << 40]) {
            let bound = upper_bound(bucket(micros));
            assert!(bound >= micros, "{micros} {bound}");
            if bucket(micros) < BUCKETS - 1 {
                assert!(bound <= micros + micros / 8 + 1, "{micros} {bound}");
            }
        }
    }

    #[test]
    fn classes_hold_everything_once_and_in_its_place() {
        let histogram = Histogram::default();
        for micros in [0, 63, 64, 127, 128, 1_000, 16_777_215, 16_777_216, 1 << 39] {
            histogram.record(Duration::from_micros(micros));
        }
        let classes = histogram.classes();
        let below = |micros| {
            let until = Duration::from_micros(micros);
            classes.iter().filter(|class| class.0 <= until).map(|class| class.1).sum::<u64>()
        };
        assert_eq!([below(64), below(128), below(256), below(1_024)], [2, 4, 5, 6]);
        assert_eq!((below(1 << 24), classes.len()), (7, 20));
        assert_eq!(classes.last(), Some(&(Duration::MAX, 2)));
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary(), Latency::default());
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 1000);
        assert_eq!(summary.max, Duration::from_micros(1000));
        assert!((500..=563).contains(&summary.p50.as_micros()), "{summary:?}");
        assert!((990..=1000).contains(&summary.p99.as_micros()), "{summary:?}");
    }
}
