//! An exact sliding window: what counts for one key of one limit, and when it leaves.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::store::LedgerId;

/// What an event is to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It counts from this second until exactly a period later.
    Counted(UnixTime),
    /// A place is held until this second; it counts in every period until then.
    Held(UnixTime),
}

/// An event that counts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// The record it comes from.
    pub id: LedgerId,
    /// What it is.
    pub mark: Mark,
    /// When it leaves, if nothing happens to it before.
    pub leaves: UnixTime,
}

type Marks = VecDeque<(UnixTime, LedgerId)>;

/// The events of one key, each list in the order of its times.
#[derive(Clone, Debug, Default)]
pub struct Window {
    counted: Marks,
    held: Marks,
}

impl Window {
    /// Adds an event of a record.
    pub fn add(&mut self, id: LedgerId, mark: Mark) {
        let (marks, entry) = self.place(id, mark);
        // Nearly always the last.
        let at = marks.partition_point(|other| *other < entry);
        marks.insert(at, entry);
    }

    /// Takes an event away; one that is not there is no matter.
    pub fn remove(&mut self, id: LedgerId, mark: Mark) {
        let (marks, entry) = self.place(id, mark);
        if let Ok(at) = marks.binary_search(&entry) {
            marks.remove(at);
        }
    }

    fn place(&mut self, id: LedgerId, mark: Mark) -> (&mut Marks, (UnixTime, LedgerId)) {
        match mark {
            Mark::Counted(at) => (&mut self.counted, (at, id)),
            Mark::Held(until) => (&mut self.held, (until, id)),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.held.is_empty()
    }

    /// Forgets events of before `since`, and places that were held until then at the latest.
    pub fn forget(&mut self, since: UnixTime) {
        for marks in [&mut self.counted, &mut self.held] {
            while marks.front().is_some_and(|(time, _)| *time <= since) {
                marks.pop_front();
            }
        }
    }

    /// How many count at `now` in a period.
    #[must_use]
    pub fn count(&self, now: UnixTime, period: Duration) -> u64 {
        (self.counted.len() - left(&self.counted, now.minus(period)) + self.held.len()
            - left(&self.held, now)) as u64
    }

    /// What counts at `now` in a period, the first to leave first.
    pub fn present(&self, now: UnixTime, period: Duration) -> impl Iterator<Item = Present> {
        let mut counted = self.counted.iter().skip(left(&self.counted, now.minus(period))).peekable();
        let mut held = self.held.iter().skip(left(&self.held, now)).peekable();
        std::iter::from_fn(move || {
            let next = |at: UnixTime| at.plus(period);
            let counted_first = match (counted.peek(), held.peek()) {
                (Some((at, _)), Some((until, _))) => next(*at) <= *until,
                (first, _) => first.is_some(),
            };
            if counted_first {
                counted.next().map(|&(at, id)| Present { id, mark: Mark::Counted(at), leaves: next(at) })
            } else {
                held.next().map(|&(until, id)| Present { id, mark: Mark::Held(until), leaves: until })
            }
        })
    }

    /// The first moment from `now` on at which fewer than `allowed` count, if nothing happens until
    /// then; none when nothing is allowed.
    #[must_use]
    pub fn frees(&self, now: UnixTime, period: Duration, allowed: u64) -> Option<UnixTime> {
        let count = self.count(now, period);
        if count < allowed {
            return Some(now);
        }
        let place = usize::try_from(count.checked_sub(allowed)?).ok()?;
        (allowed > 0).then(|| self.present(now, period).nth(place).map(|event| event.leaves))?
    }
}

/// How many of `marks` are of `until` or before.
fn left(marks: &Marks, until: UnixTime) -> usize {
    marks.partition_point(|(time, _)| *time <= until)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn day(text: &str) -> UnixTime {
        UnixTime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn an_event_counts_from_its_second_until_exactly_a_period_later() {
        let mut window = Window::default();
        window.add(LedgerId(1), Mark::Counted(UnixTime(1_000)));
        let period = Duration::from_secs(10);
        for (now, count) in [(1_000, 1), (1_009, 1), (1_010, 0), (1_011, 0)] {
            assert_eq!(window.count(UnixTime(now), period), count, "{now}");
        }
        // A clock that was put back: what happened since then has happened.
        assert_eq!(window.count(UnixTime(500), period), 1);
    }

    #[test]
    fn the_first_of_five_on_the_17th_frees_a_place_on_the_24th() {
        let mut window = Window::default();
        for hour in 0..5 {
            let at = day(&format!("2016-01-17T1{hour}:00:00Z"));
            window.add(LedgerId(hour), Mark::Counted(at));
        }
        let now = day("2016-01-20T00:00:00Z");
        assert_eq!(window.count(now, WEEK), 5);
        assert_eq!(window.frees(now, WEEK, 5), Some(day("2016-01-24T10:00:00Z")));
        assert_eq!(window.frees(now, WEEK, 3), Some(day("2016-01-24T12:00:00Z")));
        assert_eq!(window.frees(now, WEEK, 6), Some(now));
        assert_eq!(window.frees(now, WEEK, 0), None);
        assert_eq!(window.count(day("2016-01-24T09:59:59Z"), WEEK), 5);
        assert_eq!(window.count(day("2016-01-24T10:00:00Z"), WEEK), 4);
    }

    #[test]
    fn a_held_place_counts_in_every_period_until_it_ends() {
        let mut window = Window::default();
        window.add(LedgerId(1), Mark::Held(UnixTime(2_000)));
        window.add(LedgerId(2), Mark::Counted(UnixTime(1_000)));
        let second = Duration::from_secs(1);
        assert_eq!(window.count(UnixTime(1_999), second), 1);
        assert_eq!(window.count(UnixTime(2_000), second), 0);
        let order: Vec<_> =
            window.present(UnixTime(1_500), Duration::from_secs(5_000)).map(|event| event.id.0).collect();
        assert_eq!(order, [1, 2], "by the time they leave");
        window.remove(LedgerId(1), Mark::Held(UnixTime(2_000)));
        window.remove(LedgerId(9), Mark::Held(UnixTime(2_000)));
        assert_eq!(window.count(UnixTime(1_500), second), 0);
        window.forget(UnixTime(1_000));
        assert!(window.is_empty());
    }
}
