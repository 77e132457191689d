//! Steps of the wall clock, seen by the monotonic one.

use std::time::Duration;

use crate::clock::UnixTime;

/// A difference that no slewing makes between two looks.
const NOTICED: i64 = 30;

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// By how much: negative when it was set back.
    pub seconds: i64,
}

/// Compares the two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClockWatch {
    last: Option<(UnixTime, Duration)>,
    steps: u64,
}

impl ClockWatch {
    /// Looks at both clocks; returns the step since the last look.
    pub(super) fn look(&mut self, now: UnixTime, monotonic: Duration) -> Option<Step> {
        let (wall, then) = self.last.replace((now, monotonic))?;
        let passed = monotonic.saturating_sub(then).as_secs();
        let expected = wall.plus(Duration::from_secs(passed));
        let seconds = now.0.saturating_sub(expected.0);
        (seconds.abs() >= NOTICED).then(|| {
            self.steps += 1;
            Step { seconds }
        })
    }

    /// How many there were.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }
}
