//! Tells the operator when answers are served that are older than the rules allow.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::UnixTime;
use crate::store::IssuerId;

/// Seconds between two warnings: a fleet of stale answers is one event, not one a request.
const PAUSE: i64 = 60;

/// When it was last told.
#[derive(Debug)]
pub(super) struct StaleAlarm {
    told_at: AtomicI64,
}

impl Default for StaleAlarm {
    fn default() -> Self {
        Self { told_at: AtomicI64::new(i64::MIN) }
    }
}

impl StaleAlarm {
    /// Warns of an answer, unless it was warned of one within the last minute. Returns whether it did.
    pub(super) fn warn(&self, issuer: IssuerId, this_update: UnixTime, now: UnixTime) -> bool {
        let told_at = self.told_at.load(Ordering::Relaxed);
        // A clock that was set back must not silence it.
        if (told_at..told_at.saturating_add(PAUSE)).contains(&now.0) {
            return false;
        }
        if self.told_at.compare_exchange(told_at, now.0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false; // another thread tells it
        }
        tracing::warn!(
            %issuer,
            %this_update,
            "answers are served that are older than the issuer's policy allows; they were not signed again in time: see the state of the tokens (`goodstanding hsm test`) and of the guard (`goodstanding capacity report`)"
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_answers_are_told_at_most_once_a_minute() {
        let alarm = StaleAlarm::default();
        let warn = |now| alarm.warn(IssuerId(1), UnixTime(0), UnixTime(now));
        assert!(warn(1_000));
        assert!(!warn(1_000) && !warn(1_059));
        assert!(warn(1_060) && !warn(1_061));
        assert!(warn(500), "the clock was set back");
    }
}
