//! The multiplier of new issuance: F9, its slope, and what it does while the guard is blind.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the multiplier moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// m_min: what the forecast alone never goes below.
    pub least: f64,
    /// How much it rises within `every`.
    pub climb: f64,
    /// The time of one climb.
    pub every: Duration,
    /// It begins to rise only when there is so much to gain.
    pub dead_band: f64,
    /// Where it goes to while the guard is blind.
    pub safe: f64,
    /// How long a pressure holds without a new one.
    pub lease: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            least: 0.01,
            climb: 0.05,
            every: Duration::from_secs(900),
            dead_band: 0.05,
            safe: 0.25,
            lease: Duration::from_secs(600),
        }
    }
}

/// The multiplier and whether it is on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Multiplier {
    /// m, from 0 (no new issuance) to 1.
    pub value: f64,
    climbing: bool,
}

impl Multiplier {
    /// One that stands at `value`.
    #[must_use]
    pub fn at(value: f64) -> Self {
        Self { value: value.clamp(0.0, 1.0), climbing: false }
    }

    /// Follows `target`: down at once, up by the slope over the time `since` the last step.
    ///
    /// The dead band holds on the way up only: one on the way down would admit more than fits. It keeps
    /// small gains from being chased; once begun, the climb goes on to the target.
    pub fn follow(&mut self, target: f64, since: Duration, settings: &Settings) {
        let target = target.clamp(0.0, 1.0);
        if target <= self.value {
            // At the very top of a climb the target may tremble; the band decides when to begin again.
            self.climbing = false;
            self.value = target;
            return;
        }
        let whole = target >= 1.0;
        self.climbing |= target - self.value >= settings.dead_band || whole;
        if self.climbing {
            let steps = since.as_secs_f64() / settings.every.as_secs_f64().max(f64::MIN_POSITIVE);
            self.value = (self.value + settings.climb * steps).min(target);
        }
    }

    /// How long it takes to rise to `target`.
    #[must_use]
    pub fn time_to(&self, target: f64, settings: &Settings) -> Duration {
        let steps = (target.min(1.0) - self.value).max(0.0) / settings.climb.max(f64::MIN_POSITIVE);
        Duration::try_from_secs_f64(steps * settings.every.as_secs_f64()).unwrap_or(Duration::MAX)
    }
}

/// m_forecast of F9: what the forecast allows of the `offered` new certificates a day.
#[must_use]
pub fn by_forecast(budget: f64, offered: f64, settings: &Settings) -> f64 {
    if offered <= budget { 1.0 } else { (budget / offered).clamp(settings.least.min(1.0), 1.0) }
}

/// m_backlog of F9: 1 while there are more than `amber` seconds before the first answer is stale, 0 from
/// `red` on.
#[must_use]
pub fn by_backlog(time_to_stale: f64, amber: f64, red: f64) -> f64 {
    if amber > red {
        ((time_to_stale - red) / (amber - red)).clamp(0.0, 1.0)
    } else {
        f64::from(u8::from(time_to_stale >= red))
    }
}

/// What a multiplier that was published `age` ago stands for: it holds for half its lease, then decays to
/// the safe one while the lease runs out. One below the safe one stays: to be blind is no reason to open.
/// The limiter reads a pressure the same way.
#[must_use]
pub fn blind(value: f64, age: Duration, settings: &Settings) -> f64 {
    if value <= settings.safe {
        return value;
    }
    let half = settings.lease.as_secs_f64() / 2.0;
    let part = ((age.as_secs_f64() - half) / half.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    value + (settings.safe - value) * part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUARTER: Duration = Duration::from_secs(900);

    #[test]
    fn it_falls_at_once_and_rises_by_a_twentieth_in_a_quarter_of_an_hour() {
        let settings = Settings::default();
        let mut m = Multiplier::at(1.0);
        m.follow(0.43, Duration::ZERO, &settings);
        assert_eq!(m.value, 0.43);
        m.follow(0.9, QUARTER, &settings);
        assert!((m.value - 0.48).abs() < 1e-12);
        m.follow(0.9, QUARTER / 3, &settings);
        assert!((m.value - 0.48 - 0.05 / 3.0).abs() < 1e-12);
        assert_eq!(m.time_to(1.0, &settings).as_secs(), ((1.0 - m.value) / 0.05 * 900.0) as u64);
    }

    #[test]
    fn a_small_gain_is_not_chased_but_a_climb_goes_on_to_its_end() {
        let settings = Settings::default();
        let mut m = Multiplier::at(0.5);
        m.follow(0.54, QUARTER, &settings);
        assert_eq!(m.value, 0.5);
        for _ in 0..3 {
            m.follow(0.56, QUARTER, &settings);
        }
        assert!((m.value - 0.56).abs() < 1e-12, "{}", m.value);
        let mut m = Multiplier::at(0.97);
        m.follow(1.0, QUARTER, &settings);
        assert_eq!(m.value, 1.0, "open is open");
    }

    #[test]
    fn the_forecast_divides_what_fits_by_what_is_offered() {
        let settings = Settings::default();
        assert!((by_forecast(1_075.0, 2_500.0, &settings) - 0.43).abs() < 1e-9);
        assert_eq!(by_forecast(1_075.0, 1_000.0, &settings), 1.0);
        assert_eq!(by_forecast(0.0, 1_000.0, &settings), settings.least);
        assert_eq!(by_forecast(0.0, 0.0, &settings), 1.0);
    }

    #[test]
    fn the_backlog_shuts_between_amber_and_red() {
        let m = |seconds| by_backlog(seconds, 40_000.0, 20_000.0);
        assert_eq!([m(50_000.0), m(40_000.0), m(30_000.0), m(20_000.0), m(-5.0)], [1.0, 1.0, 0.5, 0.0, 0.0]);
        assert_eq!([by_backlog(0.0, 0.0, 0.0), by_backlog(-1.0, 0.0, 0.0)], [1.0, 0.0], "no slack at all");
    }

    #[test]
    fn a_blind_guard_decays_to_the_safe_multiplier_and_neither_opens_nor_shuts() {
        let settings = Settings::default();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(blind(1.0, minutes(0), &settings), 1.0);
        assert_eq!(blind(1.0, minutes(5), &settings), 1.0);
        assert!((blind(1.0, minutes(450) / 60, &settings) - 0.625).abs() < 1e-12);
        assert_eq!(blind(1.0, minutes(10), &settings), 0.25);
        assert_eq!(blind(1.0, minutes(99), &settings), 0.25);
        assert_eq!(blind(0.1, minutes(99), &settings), 0.1);
    }

    proptest! {
        #[test]
        fn it_never_exceeds_its_target_nor_rises_faster_than_the_slope(
            start in 0.0f64..=1.0,
            targets in prop::collection::vec((0.0f64..=1.0, 1u64..3_600), 1..60),
        ) {
            let settings = Settings::default();
            let mut m = Multiplier::at(start);
            for (target, seconds) in targets {
                let before = m.value;
                m.follow(target, Duration::from_secs(seconds), &settings);
                prop_assert!(m.value <= target.max(0.0) + 1e-12);
                prop_assert!(m.value - before <= 0.05 * seconds as f64 / 900.0 + 1e-12);
            }
        }
    }
}
