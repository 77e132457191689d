//! Live signatures a second over the last seven days: what the live reserve is reckoned from (F2).

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::UnixTime;

/// The days that are looked at, today included.
const DAYS: i64 = 7;
const DAY: i64 = 86_400;
/// Rates are kept in buckets, each a quarter wider than the one before: bucket 0 is for none at all, the
/// first of the others for up to this many a second.
const LEAST: f64 = 0.1;
const GROWTH: f64 = 1.25;
const BUCKETS: usize = 60;

/// How long each rate was asked for on one day.
#[derive(Clone, Debug)]
struct Day {
    number: i64,
    seconds: [f64; BUCKETS],
}

/// The rates of the last days.
#[derive(Clone, Debug, Default)]
pub struct LiveDemand(VecDeque<Day>);

impl LiveDemand {
    /// Notes so many live signatures within the time until `now`.
    pub fn note(&mut self, signatures: u64, within: Duration, now: UnixTime) {
        let seconds = within.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let number = now.0.div_euclid(DAY);
        if self.0.back().is_none_or(|day| day.number != number) {
            self.0.push_back(Day { number, seconds: [0.0; BUCKETS] });
        }
        self.0.retain(|day| (number - DAYS..=number).contains(&day.number));
        let rate = signatures as f64 / seconds;
        let bucket = if rate <= 0.0 {
            0
        } else {
            // Within the buckets, so the cast is exact.
            ((rate / LEAST).log(GROWTH).ceil().max(0.0) as usize + 1).min(BUCKETS - 1)
        };
        if let Some(today) = self.0.back_mut() {
            today.seconds[bucket] += seconds;
        }
    }

    /// The rate that was not exceeded for 99 of 100 seconds, in signatures a second; up to a quarter too
    /// high. Before a day was watched, as if nothing had been asked for in what is missing: the first
    /// minutes after a start are not taken for the week.
    #[must_use]
    pub fn p99(&self) -> f64 {
        let of_bucket = |bucket: usize| self.0.iter().map(move |day| day.seconds[bucket]).sum::<f64>();
        let watched: f64 = (0..BUCKETS).map(of_bucket).sum();
        let whole = watched.max(DAY as f64);
        let mut above = 0.0;
        for bucket in (1..BUCKETS).rev() {
            above += of_bucket(bucket);
            if above > whole / 100.0 {
                return LEAST * GROWTH.powi(bucket as i32 - 1);
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn at(day: i64, look: i64) -> UnixTime {
        UnixTime(day * DAY + look * 10)
    }

    #[test]
    fn a_peak_of_less_than_a_hundredth_of_the_time_is_no_demand_and_one_of_more_is() {
        let mut demand = LiveDemand::default();
        assert_eq!(demand.p99(), 0.0);
        (0..86).for_each(|look| demand.note(500, TEN, at(100, look)));
        assert_eq!(demand.p99(), 0.0, "so much of a day");
        (86..1_000).for_each(|look| demand.note(0, TEN, at(100, look)));
        assert_eq!(demand.p99(), 0.0);
        (1_000..1_002).for_each(|look| demand.note(500, TEN, at(100, look)));
        assert!((50.0..=62.5).contains(&demand.p99()), "{}", demand.p99());
    }

    #[test]
    fn a_rate_is_told_within_a_quarter_and_forgotten_after_a_week() {
        for rate in [1u64, 3, 10, 77, 400, 2_000] {
            let mut demand = LiveDemand::default();
            (0..100).for_each(|look| demand.note(rate * 10, TEN, at(100, look)));
            let told = demand.p99() / rate as f64;
            assert!((1.0 - 1e-9..=GROWTH).contains(&told), "{rate}: {told}");
            demand.note(0, TEN, at(107, 0));
            assert!(demand.p99() > 0.0);
            demand.note(0, TEN, at(108, 0));
            assert_eq!(demand.p99(), 0.0, "{rate}");
        }
    }

    #[test]
    fn what_is_beyond_every_bucket_is_the_last_one() {
        let mut demand = LiveDemand::default();
        demand.note(u64::MAX, Duration::from_secs(2_000), at(1, 0));
        assert!(demand.p99().is_finite() && demand.p99() > 40_000.0, "{}", demand.p99());
        demand.note(1, Duration::ZERO, at(1, 1));
    }
}
