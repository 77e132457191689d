//! Time as a parameter. Nothing outside this module reads a clock (clippy enforces it).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment in whole seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// OCSP times carry no fractions (RFC 9919 section 3.2.4), so this is the only resolution used for
/// statuses and schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The Unix epoch: also the revocation time of RFC 6960's "never issued" answer.
    pub const EPOCH: Self = Self(0);
    /// Later than any time that can be written as GeneralizedTime (9999-12-31T23:59:59Z).
    pub const MAX: Self = Self(253_402_300_799);

    /// The moment `span` later; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)))
    }

    /// The moment `span` earlier; saturates.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)))
    }

    /// The span from `earlier` to this moment, zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same moment as chrono's type, which is also rasn's `GeneralizedTime`.
    ///
    /// Moments outside the years 0 to 9999 are clamped into them.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.clamp(-62_167_219_200, Self::MAX.0), 0).unwrap_or_default()
    }

    /// Reads an RFC 3339 time; fractions are cut off.
    ///
    /// # Errors
    /// The chrono error when `text` is no RFC 3339 time.
    pub fn parse_rfc3339(text: &str) -> Result<Self, chrono::ParseError> {
        DateTime::parse_from_rfc3339(text).map(|time| Self(time.timestamp()))
    }
}

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC, for example `2026-11-22T02:37:34Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::Secs, true))
    }
}

impl<Tz: chrono::TimeZone> From<DateTime<Tz>> for UnixTime {
    fn from(time: DateTime<Tz>) -> Self {
        Self(time.timestamp())
    }
}

/// Where the time comes from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall clock, cut to whole seconds.
    fn now(&self) -> UnixTime;
}

/// A clock that components share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, ready to share.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> UnixTime {
        UnixTime(Utc::now().timestamp())
    }
}

/// A clock that stands still until it is moved: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: UnixTime) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().plus(span));
    }

    /// Sets the clock, backwards too.
    pub fn set(&self, to: UnixTime) {
        self.0.store(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::SeqCst))
    }
}

/// Measures how long something took, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_prints_as_rfc_3339_and_reads_back() {
        let moment = UnixTime(1_795_315_054);
        assert_eq!(moment.to_string(), "2026-11-22T02:37:34Z");
        assert_eq!(UnixTime::parse_rfc3339("2026-11-22T02:37:34Z").unwrap(), moment);
        assert_eq!(UnixTime::parse_rfc3339("2026-11-22T03:37:34.9+01:00").unwrap(), moment);
    }

    #[test]
    fn spans_saturate_instead_of_wrapping() {
        assert_eq!(UnixTime(5).since(UnixTime(9)), Duration::ZERO);
        assert_eq!(UnixTime(5).plus(Duration::MAX), UnixTime(i64::MAX));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(UnixTime(100));
        clock.advance(Duration::from_secs(7));
        assert_eq!(clock.now(), UnixTime(107));
        clock.set(UnixTime(3));
        assert_eq!(clock.now(), UnixTime(3));
    }
}
