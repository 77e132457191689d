//! When each certificate is due, in memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

use crate::clock::UnixTime;
use crate::store::CertificateKey;

/// When each certificate is due. An entry of a queue counts only while it agrees with `due`, so
/// rescheduling needs no search.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    urgent: VecDeque<CertificateKey>,
    queue: BinaryHeap<Reverse<(UnixTime, CertificateKey)>>,
    due: HashMap<CertificateKey, Due>,
    /// Those whose last attempt failed, by when they were due first.
    failing: BTreeSet<(UnixTime, CertificateKey)>,
    under_way: u64,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    /// When it is taken next.
    at: UnixTime,
    /// When it was due, however often it failed since.
    since: UnixTime,
    failures: u32,
    under_way: bool,
    /// News came while it was under way: it has to be looked at again.
    again: bool,
}

impl Schedule {
    /// Sets when a certificate is due.
    pub(super) fn set(&mut self, key: CertificateKey, at: UnixTime) {
        let due =
            self.due.entry(key).or_insert(Due { at, since: at, failures: 0, under_way: false, again: false });
        self.failing.remove(&(due.since, key));
        (due.at, due.since, due.failures) = (at, at, 0);
        if due.under_way {
            due.again = true;
        } else {
            self.queue.push(Reverse((at, key)));
        }
    }

    /// Sets a certificate due at once, before all others.
    pub(super) fn set_urgent(&mut self, key: CertificateKey, now: UnixTime) {
        self.set(key, now);
        self.urgent.push_back(key);
    }

    /// The next certificate that is due at `now`, which then is under way.
    pub(super) fn take(&mut self, now: UnixTime) -> Option<CertificateKey> {
        while let Some(key) = self.urgent.pop_front() {
            if self.due.get(&key).is_some_and(|due| due.at <= now && !due.under_way) {
                return self.begin(key);
            }
        }
        while let Some(Reverse((at, key))) = self.queue.peek().copied() {
            if now < at {
                return None;
            }
            self.queue.pop();
            if self.due.get(&key).is_some_and(|due| due.at == at && !due.under_way) {
                return self.begin(key);
            }
        }
        None
    }

    fn begin(&mut self, key: CertificateKey) -> Option<CertificateKey> {
        self.due.get_mut(&key)?.under_way = true;
        self.under_way += 1;
        Some(key)
    }

    /// Ends what was under way; sets the next time it is taken, or the one that news brought.
    pub(super) fn finish(&mut self, key: CertificateKey, next: UnixTime, failed: bool) {
        let Some(due) = self.due.get_mut(&key) else { return };
        self.under_way -= u64::from(due.under_way);
        due.under_way = false;
        if std::mem::take(&mut due.again) {
            // What failed or succeeded was the old state of things.
        } else if failed {
            due.failures += 1;
            due.at = next;
            self.failing.insert((due.since, key));
        } else {
            self.failing.remove(&(due.since, key));
            (due.at, due.since, due.failures) = (next, next, 0);
        }
        self.queue.push(Reverse((due.at, key)));
    }

    /// Forgets a certificate that was under way, unless news came meanwhile: then it is due at once.
    pub(super) fn forget(&mut self, key: CertificateKey, now: UnixTime) {
        if self.due.get(&key).is_some_and(|due| due.again) {
            self.finish(key, now, false);
        } else if let Some(due) = self.due.remove(&key) {
            self.under_way -= u64::from(due.under_way);
            self.failing.remove(&(due.since, key));
        }
    }

    /// Tries again at once what failed: something that it may have failed for has changed.
    pub(super) fn wake(&mut self, now: UnixTime) {
        for (_, key) in &self.failing {
            if let Some(due) = self.due.get_mut(key)
                && !due.under_way
                && due.at > now
            {
                due.at = now;
                self.queue.push(Reverse((now, *key)));
            }
        }
    }

    /// How often a certificate has failed since it last succeeded.
    pub(super) fn failures(&self, key: CertificateKey) -> u32 {
        self.due.get(&key).map_or(0, |due| due.failures)
    }

    /// Since when the oldest certificate has been due that waits or fails at `now`.
    pub(super) fn oldest_due(&self, now: UnixTime) -> Option<UnixTime> {
        let waiting = self.queue.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= now);
        let failing = self.failing.first().map(|(since, _)| *since);
        [waiting, failing].into_iter().flatten().min()
    }

    /// Certificates taken and not finished.
    pub(super) const fn under_way(&self) -> u64 {
        self.under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Shard;

    fn key(row: i64) -> CertificateKey {
        CertificateKey { shard: Shard(0), row }
    }

    #[test]
    fn certificates_are_taken_in_the_order_of_their_due_times() {
        let mut schedule = Schedule::default();
        for (row, at) in [(1, 30), (2, 10), (3, 20), (4, 99)] {
            schedule.set(key(row), UnixTime(at));
        }
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take(UnixTime(50))).map(|key| key.row).collect();
        assert_eq!(taken, [2, 3, 1]);
        assert_eq!(schedule.under_way(), 3);
    }

    #[test]
    fn rescheduling_counts_and_the_old_due_time_does_not() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        schedule.set(key(1), UnixTime(40));
        assert_eq!(schedule.take(UnixTime(20)), None);
        assert_eq!(schedule.take(UnixTime(40)), Some(key(1)));
        assert_eq!(schedule.take(UnixTime(40)), None, "taken once only");
    }

    #[test]
    fn news_while_under_way_bring_it_back_at_once() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        assert_eq!(schedule.take(UnixTime(10)), Some(key(1)));
        schedule.set(key(1), UnixTime(11));
        assert_eq!(schedule.take(UnixTime(50)), None, "never twice at once");
        schedule.finish(key(1), UnixTime(1_000), false);
        assert_eq!(schedule.take(UnixTime(50)), Some(key(1)));
        schedule.finish(key(1), UnixTime(1_000), false);
        assert_eq!(schedule.take(UnixTime(999)), None);
        assert_eq!(schedule.under_way(), 0);
    }

    #[test]
    fn failures_are_counted_until_it_succeeds() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        for failures in 1..=3 {
            let at = UnixTime(10 + i64::from(failures));
            assert!(schedule.take(at).is_some());
            schedule.finish(key(1), at, true);
            assert_eq!(schedule.failures(key(1)), failures);
        }
        assert!(schedule.take(UnixTime(20)).is_some());
        schedule.finish(key(1), UnixTime(90), false);
        assert_eq!(schedule.failures(key(1)), 0);
    }

    #[test]
    fn what_is_urgent_goes_before_what_is_due_longer() {
        let mut schedule = Schedule::default();
        for row in 1..=5 {
            schedule.set(key(row), UnixTime(row));
        }
        schedule.set_urgent(key(9), UnixTime(50));
        assert_eq!(schedule.take(UnixTime(50)), Some(key(9)));
        assert_eq!(schedule.take(UnixTime(50)), Some(key(1)));
        schedule.finish(key(9), UnixTime(99), false);
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take(UnixTime(50))).map(|key| key.row).collect();
        assert_eq!(taken, [2, 3, 4, 5]);
    }

    #[test]
    fn a_failing_certificate_stays_due_since_it_was() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        schedule.take(UnixTime(12)).unwrap();
        schedule.finish(key(1), UnixTime(500), true);
        assert_eq!(schedule.oldest_due(UnixTime(20)), Some(UnixTime(10)));
        assert_eq!(schedule.take(UnixTime(20)), None, "it waits");
        schedule.wake(UnixTime(21));
        assert_eq!(schedule.take(UnixTime(21)), Some(key(1)), "until something has changed");
        schedule.finish(key(1), UnixTime(900), false);
        assert_eq!(schedule.oldest_due(UnixTime(30)), None);
    }

    #[test]
    fn a_forgotten_certificate_comes_back_when_there_were_news() {
        let mut schedule = Schedule::default();
        schedule.set(key(1), UnixTime(10));
        schedule.take(UnixTime(10)).unwrap();
        schedule.set(key(1), UnixTime(11));
        schedule.forget(key(1), UnixTime(12));
        assert_eq!(schedule.take(UnixTime(12)), Some(key(1)));
        schedule.forget(key(1), UnixTime(13));
        assert_eq!(schedule.take(UnixTime(99)), None);
        assert_eq!(schedule.under_way(), 0);
    }
}
