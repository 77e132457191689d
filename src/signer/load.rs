//! How fast a token is and how much is on its way to it: what one more job has to expect.
//!
//! The rate is what comes out verified while work waits, over busy seconds: an idle token is not a
//! slow one. It is taken in slices of a second of busy time, of which the last [`SLICES`] count.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::lane::Lane;
use crate::clock::Stopwatch;

/// The busy time of a slice at the least.
const SLICE: Duration = Duration::from_secs(1);
/// How many slices count.
const SLICES: usize = 30;
/// Nothing came out for so long, and for so many times the usual: the token may be stuck.
const STUCK: (Duration, f64) = (Duration::from_millis(50), 4.0);

/// The sustained rate of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Verified signatures a second of busy time.
    pub per_second: f64,
    /// The busy time that it was measured over.
    pub busy: Duration,
}

/// Measures the rate; times are ages of one clock.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    busy_since: Option<Duration>,
    /// Busy time of the open slice before `busy_since`.
    busy: Duration,
    /// What had been counted when the open slice began.
    before: u64,
    slices: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// Whether work waits for sessions that all work.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy_since.is_some()
    }

    /// Notes that work begins or ends to wait.
    pub(crate) fn set_busy(&mut self, busy: bool, now: impl FnOnce() -> Duration) {
        match (self.busy_since, busy) {
            (None, true) => self.busy_since = Some(now()),
            (Some(since), false) => {
                self.busy += now().saturating_sub(since);
                self.busy_since = None;
            }
            _ => {}
        }
    }

    /// Closes the open slice if it is long enough, with what has been `counted` until now: the rate.
    pub(crate) fn close_slice(&mut self, now: Duration, counted: u64) -> Option<Rate> {
        let busy = self.busy + self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if busy < SLICE {
            return None;
        }
        self.slices.push_back((busy, counted.saturating_sub(self.before)));
        if self.slices.len() > SLICES {
            self.slices.pop_front();
        }
        self.begin_slice(now, counted);
        self.rate()
    }

    /// Throws the open slice away: what it would say is not how fast the token is.
    pub(crate) fn discard_slice(&mut self, now: Duration, counted: u64) {
        self.begin_slice(now, counted);
    }

    fn begin_slice(&mut self, now: Duration, counted: u64) {
        self.busy = Duration::ZERO;
        self.busy_since = self.busy_since.map(|_| now);
        self.before = counted;
    }

    /// The rate over the closed slices.
    pub(crate) fn rate(&self) -> Option<Rate> {
        let busy: Duration = self.slices.iter().map(|slice| slice.0).sum();
        let count: u64 = self.slices.iter().map(|slice| slice.1).sum();
        (!busy.is_zero()).then(|| Rate { per_second: count as f64 / busy.as_secs_f64(), busy })
    }
}

/// What is on its way to a token, and what it is expected to do.
pub(crate) struct Load {
    age: Stopwatch,
    outstanding: [AtomicUsize; Lane::ALL.len()],
    all: AtomicUsize,
    /// When a signature came out last, or work came in after idle time: microseconds of age.
    progress: AtomicU64,
    /// Signatures a second, as the bits of a float: measured, or guessed from the first signature.
    rate: AtomicU64,
    measured: AtomicUsize,
}

/// A job that is on its way, until it is dropped.
pub(crate) struct Outstanding {
    load: Arc<Load>,
    lane: Lane,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.load.outstanding[self.lane.index()].fetch_sub(1, Ordering::Relaxed);
        self.load.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            age: Stopwatch::start(),
            outstanding: std::array::from_fn(|_| AtomicUsize::new(0)),
            all: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            rate: AtomicU64::new(1.0_f64.to_bits()),
            measured: AtomicUsize::new(0),
        }
    }
}

impl Load {
    /// Counts a job in.
    pub(crate) fn enter(self: &Arc<Self>, lane: Lane) -> Outstanding {
        if self.all.fetch_add(1, Ordering::Relaxed) == 0 {
            self.note_progress();
        }
        self.outstanding[lane.index()].fetch_add(1, Ordering::Relaxed);
        Outstanding { load: Arc::clone(self), lane }
    }

    /// Notes that the token has signed.
    pub(crate) fn note_progress(&self) {
        self.progress.store(micros(self.age.elapsed()), Ordering::Relaxed);
    }

    /// Guesses the rate from one signature, as long as nothing was measured.
    pub(crate) fn guess(&self, sessions: u16, signature: Duration) {
        if self.measured.load(Ordering::Relaxed) == 0 {
            let rate = f64::from(sessions) / signature.as_secs_f64().max(1e-5);
            self.rate.store(rate.to_bits(), Ordering::Relaxed);
        }
    }

    /// Takes over the measured rate. One of nothing is no rate to reckon with.
    pub(crate) fn measured(&self, rate: Rate) {
        self.measured.store(1, Ordering::Relaxed);
        self.rate.store(rate.per_second.max(1e-3).to_bits(), Ordering::Relaxed);
    }

    /// How long one more job of this lane would take to come out, if the token goes on as it did.
    pub(crate) fn expected_wait(&self, lane: Lane, sessions: u16, cap: Option<f64>) -> Duration {
        let rate = f64::from_bits(self.rate.load(Ordering::Relaxed)).min(cap.unwrap_or(f64::INFINITY));
        let count = |lane: Lane| self.outstanding[lane.index()].load(Ordering::Relaxed);
        let before: usize = Lane::ALL.into_iter().filter(|each| *each <= lane).map(count).sum();
        // Those of later lanes are in the way as far as sessions have begun with them.
        let begun: usize = Lane::ALL.into_iter().filter(|each| *each > lane).map(count).sum();
        let ahead = before + begun.min(usize::from(sessions));
        let mut seconds = (ahead + 1) as f64 / rate;
        if before + begun > 0 {
            // What has said nothing for long will say nothing for as long again.
            let silent = self
                .age
                .elapsed()
                .saturating_sub(Duration::from_micros(self.progress.load(Ordering::Relaxed)));
            if silent > STUCK.0 && silent.as_secs_f64() > STUCK.1 / rate {
                seconds += silent.as_secs_f64();
            }
        }
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(span: u64) -> Duration {
        Duration::from_millis(span)
    }

    #[test]
    fn idle_time_is_no_part_of_the_rate() {
        let mut meter = Meter::default();
        let (mut now, mut counted) = (Duration::ZERO, 0);
        // A quarter of each second is busy, at 40 signatures a busy second.
        for _ in 0..40 {
            meter.set_busy(true, || now);
            now += millis(250);
            counted += 10;
            meter.close_slice(now, counted);
            meter.set_busy(false, || now);
            now += millis(750);
        }
        let rate = meter.rate().unwrap();
        assert!((rate.per_second - 40.0).abs() < 0.5, "{rate:?}");
        assert_eq!(rate.busy, Duration::from_secs(10));
    }

    #[test]
    fn the_rate_follows_within_the_window() {
        let mut meter = Meter::default();
        meter.set_busy(true, || Duration::ZERO);
        let mut counted = 0;
        for second in 1..=60_u64 {
            counted += if second <= 30 { 100 } else { 20 };
            meter.close_slice(Duration::from_secs(second), counted);
        }
        let rate = meter.rate().unwrap();
        assert!((rate.per_second - 20.0).abs() < 1e-9 && rate.busy == Duration::from_secs(30), "{rate:?}");
    }

    #[test]
    fn an_outage_is_no_part_of_the_rate() {
        let mut meter = Meter::default();
        meter.set_busy(true, || Duration::ZERO);
        assert_eq!(meter.close_slice(Duration::from_secs(1), 50).unwrap().per_second, 50.0);
        assert!(meter.close_slice(millis(1_500), 75).is_none());
        meter.discard_slice(Duration::from_secs(20), 75);
        assert_eq!(meter.close_slice(Duration::from_secs(21), 125).unwrap().per_second, 50.0);
    }

    #[test]
    fn a_job_expects_to_wait_for_those_before_it_in_its_lane_and_those_above() {
        let load = Arc::new(Load::default());
        load.measured(Rate { per_second: 100.0, busy: SLICE });
        let wait = |lane| load.expected_wait(lane, 2, None).as_millis();
        assert_eq!(Lane::ALL.map(wait), [10; 4]);
        let jobs: Vec<_> = (0..10).map(|_| load.enter(Lane::Refresh)).collect();
        let live = load.enter(Lane::Live);
        assert_eq!(Lane::ALL.map(wait), [30, 30, 40, 120]);
        assert_eq!(load.expected_wait(Lane::Revocation, 2, Some(10.0)).as_millis(), 300);
        drop((jobs, live));
        assert_eq!(Lane::ALL.map(wait), [10; 4]);
    }

    #[test]
    fn a_token_that_says_nothing_any_more_is_expected_to_go_on_so() {
        let load = Arc::new(Load::default());
        load.measured(Rate { per_second: 1_000.0, busy: SLICE });
        let _job = load.enter(Lane::Live);
        std::thread::sleep(millis(60));
        assert!(load.expected_wait(Lane::Live, 2, None) >= millis(60));
        load.note_progress();
        assert!(load.expected_wait(Lane::Live, 2, None) < millis(50));
    }

    #[test]
    fn a_guess_gives_way_to_what_was_measured() {
        let load = Arc::new(Load::default());
        load.guess(4, millis(10));
        assert_eq!(load.expected_wait(Lane::Live, 4, None).as_micros(), 2_500);
        load.measured(Rate { per_second: 100.0, busy: SLICE });
        load.guess(4, millis(10));
        assert_eq!(load.expected_wait(Lane::Live, 4, None).as_micros(), 10_000);
    }
}
