//! Token buckets by key: so many at once, then so many a minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Keys remembered at the most; those whose bucket is full again are forgotten first.
const KEYS: usize = 10_000;

/// How much a bucket holds and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Taken at once at the most.
    pub(super) burst: f64,
    /// Filled up again.
    pub(super) per_second: f64,
}

impl Rate {
    /// A minute's worth at once, and that rate from then on.
    pub(super) fn a_minute(count: u32) -> Self {
        Self { burst: f64::from(count), per_second: f64::from(count) / 60.0 }
    }
}

/// What is left, and when that was so.
#[derive(Clone, Copy)]
struct Level {
    left: f64,
    at: Duration,
}

impl Level {
    fn at(self, now: Duration, rate: Rate) -> f64 {
        let gained = now.saturating_sub(self.at).as_secs_f64() * rate.per_second;
        (self.left + gained).min(rate.burst)
    }
}

/// The buckets.
pub(super) struct Buckets<K> {
    clock: Stopwatch,
    levels: Mutex<HashMap<K, (Level, Rate)>>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new() -> Self {
        Self { clock: Stopwatch::start(), levels: Mutex::default() }
    }

    /// Takes one; how long until there is one when there is none.
    pub(super) fn take(&self, key: K, rate: Rate) -> Result<(), Duration> {
        self.take_at(key, rate, self.clock.elapsed())
    }

    fn take_at(&self, key: K, rate: Rate, now: Duration) -> Result<(), Duration> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= KEYS && !levels.contains_key(&key) {
            levels.retain(|_, (level, rate)| level.at(now, *rate) < rate.burst);
            if levels.len() >= KEYS {
                // A flood from everywhere: nobody new gets in before the first bucket is full again.
                return Err(Duration::from_secs(60));
            }
        }
        let (level, known) = levels.entry(key).or_insert((Level { left: rate.burst, at: now }, rate));
        *known = rate;
        let left = level.at(now, rate);
        *level = Level { left, at: now };
        if left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left) / rate.per_second));
        }
        level.left -= 1.0;
        Ok(())
    }

    /// Gives one back.
    pub(super) fn give_back(&self, key: &K) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((level, rate)) = levels.get_mut(key) {
            level.left = (level.left + 1.0).min(rate.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate_and_says_when() {
        let buckets = Buckets::new();
        let rate = Rate::a_minute(6);
        let at = |seconds: u64| buckets.take_at("a", rate, Duration::from_secs(seconds));
        for _ in 0..6 {
            at(0).unwrap();
        }
        assert_eq!(at(0), Err(Duration::from_secs(10)));
        assert_eq!(at(4), Err(Duration::from_secs(6)));
        at(10).unwrap();
        assert!(at(10).is_err());
        assert!(buckets.take_at("b", rate, Duration::from_secs(10)).is_ok(), "another key has its own");
        buckets.give_back(&"a");
        at(10).unwrap();
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_passes() {
        let buckets = Buckets::new();
        let rate = Rate::a_minute(60);
        for key in 0..KEYS {
            buckets.take_at(key, rate, Duration::ZERO).unwrap();
        }
        assert!(buckets.take_at(KEYS, rate, Duration::ZERO).is_err());
        assert!(buckets.take_at(3, rate, Duration::ZERO).is_ok(), "who was there before goes on");
        assert!(buckets.take_at(KEYS, rate, Duration::from_secs(2)).is_ok());
        assert!(buckets.levels.lock().unwrap().len() < KEYS);
    }
}
