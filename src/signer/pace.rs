//! A hard cap on signatures a second, where others share the token.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use super::module::lock;
use crate::clock::Stopwatch;

/// Gives out start times one interval apart. Unused time is not saved up beyond [`Pace::SLACK`], so no
/// second sees more than `rate × (1 + SLACK)` signatures.
pub(crate) struct Pace {
    interval: Duration,
    since: Stopwatch,
    next: Mutex<Duration>,
}

impl Pace {
    /// Covers the jitter of waking threads.
    const SLACK: Duration = Duration::from_millis(5);

    pub(crate) fn new(rate: NonZeroU32) -> Self {
        Self {
            interval: Duration::from_secs(1) / rate.get(),
            since: Stopwatch::start(),
            next: Mutex::new(Duration::ZERO),
        }
    }

    /// How long to wait for the next start.
    pub(crate) fn wait(&self) -> Duration {
        lock(&self.next).saturating_sub(self.since.elapsed())
    }

    /// Books the next start: how long to wait until then.
    pub(crate) fn book(&self) -> Duration {
        let now = self.since.elapsed();
        let mut next = lock(&self.next);
        let start = (*next).max(now.saturating_sub(Self::SLACK));
        *next = start + self.interval;
        start.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_booked_one_interval_apart() {
        let pace = Pace::new(NonZeroU32::new(10).unwrap());
        let waits: Vec<Duration> = (0..5).map(|_| pace.book()).collect();
        assert!(waits[0] <= Duration::from_millis(1));
        for (at, wait) in waits.iter().enumerate().skip(1) {
            let due = Duration::from_millis(100) * u32::try_from(at).unwrap();
            assert!(*wait <= due && *wait + Duration::from_millis(90) >= due, "{at}: {wait:?}");
        }
    }
}
