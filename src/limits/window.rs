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

/// The events of one key. Nearly every key has one: that one is kept in place, so that a look at a
/// window reads the line of memory that it was found in and no other.
#[derive(Clone, Debug, Default)]
pub struct Window(Events);

#[derive(Clone, Debug, Default)]
enum Events {
    #[default]
    None,
    One(LedgerId, Mark),
    Many(Box<Lists>),
}

/// Each list in the order of its times.
#[derive(Clone, Debug, Default)]
struct Lists {
    counted: Marks,
    held: Marks,
}

impl Lists {
    fn place(&mut self, id: LedgerId, mark: Mark) -> (&mut Marks, (UnixTime, LedgerId)) {
        match mark {
            Mark::Counted(at) => (&mut self.counted, (at, id)),
            Mark::Held(until) => (&mut self.held, (until, id)),
        }
    }

    fn add(&mut self, id: LedgerId, mark: Mark) {
        let (marks, entry) = self.place(id, mark);
        // Nearly always the last.
        let at = marks.partition_point(|other| *other < entry);
        marks.insert(at, entry);
    }

    fn only(&self) -> Option<(LedgerId, Mark)> {
        match (self.counted.len(), self.held.len()) {
            (1, 0) => self.counted.front().map(|(at, id)| (*id, Mark::Counted(*at))),
            (0, 1) => self.held.front().map(|(until, id)| (*id, Mark::Held(*until))),
            _ => None,
        }
    }
}

impl Window {
    /// Adds an event of a record.
    pub fn add(&mut self, id: LedgerId, mark: Mark) {
        match &mut self.0 {
            Events::None => self.0 = Events::One(id, mark),
            Events::One(first, of) => {
                let mut lists = Lists::default();
                lists.add(*first, *of);
                lists.add(id, mark);
                self.0 = Events::Many(Box::new(lists));
            }
            Events::Many(lists) => lists.add(id, mark),
        }
    }

    /// Takes an event away; one that is not there is no matter.
    pub fn remove(&mut self, id: LedgerId, mark: Mark) {
        match &mut self.0 {
            Events::One(one, of) if (*one, *of) == (id, mark) => self.0 = Events::None,
            Events::None | Events::One(..) => {}
            Events::Many(lists) => {
                let (marks, entry) = lists.place(id, mark);
                if let Ok(at) = marks.binary_search(&entry) {
                    marks.remove(at);
                }
                self.shrink();
            }
        }
    }

    /// Puts what is left in its place when it is one.
    fn shrink(&mut self) {
        if let Events::Many(lists) = &self.0 {
            if let Some((id, mark)) = lists.only() {
                self.0 = Events::One(id, mark);
            } else if lists.counted.is_empty() && lists.held.is_empty() {
                self.0 = Events::None;
            }
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Events::None)
    }

    /// Forgets events of before `since`, and places that were held until then at the latest.
    pub fn forget(&mut self, since: UnixTime) {
        match &mut self.0 {
            Events::One(_, Mark::Counted(time) | Mark::Held(time)) if *time <= since => {
                self.0 = Events::None;
            }
            Events::None | Events::One(..) => {}
            Events::Many(lists) => {
                for marks in [&mut lists.counted, &mut lists.held] {
                    while marks.front().is_some_and(|(time, _)| *time <= since) {
                        marks.pop_front();
                    }
                }
                self.shrink();
            }
        }
    }

    /// How many count at `now` in a period.
    #[must_use]
    pub fn count(&self, now: UnixTime, period: Duration) -> u64 {
        match &self.0 {
            Events::None => 0,
            Events::One(_, Mark::Counted(at)) => u64::from(*at > now.minus(period)),
            Events::One(_, Mark::Held(until)) => u64::from(*until > now),
            Events::Many(lists) => {
                let counted = lists.counted.len() - left(&lists.counted, now.minus(period));
                (counted + lists.held.len() - left(&lists.held, now)) as u64
            }
        }
    }

    /// What counts at `now` in a period, the first to leave first.
    pub fn present(&self, now: UnixTime, period: Duration) -> impl Iterator<Item = Present> {
        let leaves = move |mark: Mark| match mark {
            Mark::Counted(at) => at.plus(period),
            Mark::Held(until) => until,
        };
        let present = move |id, mark| Present { id, mark, leaves: leaves(mark) };
        let (one, many) = match &self.0 {
            Events::None => (None, None),
            Events::One(id, mark) => ((self.count(now, period) > 0).then(|| present(*id, *mark)), None),
            Events::Many(lists) => (None, Some(lists)),
        };
        let many = many.into_iter().flat_map(move |lists| {
            let counted = lists.counted.iter().skip(left(&lists.counted, now.minus(period)));
            let mut counted = counted.map(move |&(at, id)| present(id, Mark::Counted(at))).peekable();
            let held = lists.held.iter().skip(left(&lists.held, now));
            let mut held = held.map(move |&(until, id)| present(id, Mark::Held(until))).peekable();
            std::iter::from_fn(move || match (counted.peek(), held.peek()) {
                (Some(one), Some(other)) if one.leaves <= other.leaves => counted.next(),
                (Some(_), None) => counted.next(),
                _ => held.next(),
            })
        });
        one.into_iter().chain(many)
    }

    /// When the first of what counts at `now` in a period leaves.
    #[must_use]
    pub fn first_leaves(&self, now: UnixTime, period: Duration) -> Option<UnixTime> {
        self.present(now, period).next().map(|event| event.leaves)
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
