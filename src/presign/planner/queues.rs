//! Where places wait: the calendar of what is not due yet, and the queue of a lane.
//!
//! Neither searches when a certificate is planned anew: what it had entered before stays, and does
//! not count when it is reached. The planner rebuilds them when too much of that has gathered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// How many wait in a bucket, and the least times among them. Those are exact as long as nothing has
/// left the bucket, and early afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// How many of the entries count.
    pub(super) counting: u32,
    pub(super) due: u32,
    pub(super) stale: u32,
    pub(super) expires: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counting: 0, due: u32::MAX, stale: u32::MAX, expires: u32::MAX }
    }
}

impl Tally {
    fn enter(&mut self, times: Times) {
        self.counting += 1;
        self.due = self.due.min(times.due);
        self.stale = self.stale.min(times.stale);
        self.expires = self.expires.min(times.expires);
    }
}

/// The times of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) due: u32,
    pub(super) stale: u32,
    pub(super) expires: u32,
}

/// Appends to a list that grows by a fourth: there are thousands of them, and doubled ones were half air.
fn append(places: &mut Vec<u32>, place: u32) {
    if places.len() == places.capacity() {
        places.reserve_exact((places.len() / 4).max(4));
    }
    places.push(place);
}

/// Buckets of `1 << shift` seconds from the present one on.
#[derive(Debug)]
pub(super) struct Calendar {
    pub(super) shift: u32,
    /// The number of the first bucket: everything before it is due, or soon.
    first: u32,
    /// Apart from the places, so that a near cache holds those of all buckets.
    tallies: VecDeque<Tally>,
    lists: VecDeque<Vec<u32>>,
    /// Numbers of buckets and the places to put on their lists: many at once, because the end of each
    /// list is far away in memory, and the processor waits for many as long as for one.
    pending: Vec<(u32, u32)>,
}

/// Buckets in the calendar at the most: 2.5 MB.
const LENGTH: u32 = 1 << 16;

/// Places that are put on their lists at once.
const PENDING: usize = 4_096;

impl Calendar {
    pub(super) fn new(shift: u32, now: u32) -> Self {
        // What the bucket of the present second holds is due, or soon.
        let first = (now >> shift) + 1;
        Self { shift, first, tallies: VecDeque::new(), lists: VecDeque::new(), pending: Vec::new() }
    }

    /// When the first bucket begins: all before it has been opened.
    pub(super) const fn begin(&self) -> u32 {
        self.first << self.shift
    }

    /// Seconds from its beginning to its end.
    pub(super) const fn span(&self) -> u32 {
        LENGTH << self.shift
    }

    /// The place of a time in the calendar: before it, in it, or beyond its end.
    fn slot(&self, due: u32) -> Result<usize, Beyond> {
        let number = due >> self.shift;
        match number.checked_sub(self.first) {
            None => Err(Beyond::Before),
            Some(slot) if slot < LENGTH => Ok(slot as usize),
            Some(_) => Err(Beyond::After),
        }
    }

    /// Enters a place.
    pub(super) fn push(&mut self, place: u32, times: Times) -> Result<(), Beyond> {
        let slot = self.slot(times.due)?;
        if self.tallies.len() <= slot {
            self.tallies.resize_with(slot + 1, Tally::default);
            self.lists.resize_with(slot + 1, Vec::new);
        }
        self.tallies[slot].enter(times);
        self.pending.push((times.due >> self.shift, place));
        if self.pending.len() >= PENDING {
            self.settle();
        }
        Ok(())
    }

    /// Puts what is pending on its lists.
    fn settle(&mut self) {
        for (number, place) in self.pending.drain(..) {
            append(&mut self.lists[(number - self.first) as usize], place);
        }
    }

    /// One that waits until `due` does not count any more.
    pub(super) fn leave(&mut self, due: u32) {
        if let Ok(slot) = self.slot(due)
            && let Some(tally) = self.tallies.get_mut(slot)
        {
            tally.counting = tally.counting.saturating_sub(1);
        }
    }

    /// The places of the next bucket that has begun at `now`, with its number.
    pub(super) fn open(&mut self, now: u32) -> Option<(u32, Vec<u32>)> {
        if self.first > now >> self.shift {
            return None;
        }
        self.settle();
        let number = self.first;
        match (self.tallies.pop_front(), self.lists.pop_front()) {
            (Some(_), Some(places)) => {
                self.first += 1;
                Some((number, places))
            }
            _ => {
                self.first = (now >> self.shift) + 1;
                None
            }
        }
    }

    /// A place from the first bucket that has one that counts, by `counts`, and how many entries that
    /// do not count were dropped on the way.
    pub(super) fn pop(&mut self, mut counts: impl FnMut(u32) -> bool) -> (Option<u32>, usize) {
        self.settle();
        let mut dropped = 0;
        let buckets = self.tallies.iter_mut().zip(&mut self.lists);
        for (tally, places) in buckets.filter(|(tally, _)| tally.counting > 0) {
            while let Some(place) = places.pop() {
                dropped += 1;
                if counts(place) {
                    tally.counting = tally.counting.saturating_sub(1);
                    return (Some(place), dropped);
                }
            }
            tally.counting = 0;
        }
        (None, dropped)
    }

    /// The buckets that have something, with the time at which each ends.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u32, &Tally)> {
        let end = |slot: usize| self.first.saturating_add(slot as u32 + 1).checked_shl(self.shift);
        let all = self.tallies.iter().enumerate();
        all.filter(|(_, tally)| tally.counting > 0)
            .map(move |(slot, tally)| (end(slot).unwrap_or(u32::MAX), tally))
    }
}

/// What is due within the calendar's present bucket, or earlier than a clock that was set back, with
/// its times.
#[derive(Debug, Default)]
pub(super) struct Soon {
    /// From the bucket that was opened last, the earliest at the end: sorted once, which is cheaper
    /// than to take each out of a heap.
    bucket: Vec<(u32, u32)>,
    /// What came afterwards.
    since: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Soon {
    pub(super) fn push(&mut self, due: u32, place: u32) {
        self.since.push(Reverse((due, place)));
    }

    /// Takes in a bucket's, the latest first. Those of the bucket before have been taken out.
    pub(super) fn open(&mut self, latest_first: Vec<(u32, u32)>) {
        self.bucket = latest_first;
    }

    /// Takes out one that is due at `now`.
    pub(super) fn pop(&mut self, now: u32) -> Option<(u32, u32)> {
        let first = self.bucket.last().copied();
        match self.since.peek().copied() {
            Some(Reverse(late)) if first.is_none_or(|first| late < first) => {
                (late.0 <= now).then(|| self.since.pop()).flatten().map(|Reverse(late)| late)
            }
            _ => self.bucket.pop_if(|(due, _)| *due <= now),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bucket.len() + self.since.len()
    }
}

/// A time that is not in the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    Before,
    After,
}

/// Places of one rank.
#[derive(Debug, Default)]
struct Bucket {
    places: Vec<u32>,
    tally: Tally,
}

/// What is due in one lane, by rank.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buckets: BTreeMap<u32, Bucket>,
    counting: usize,
}

impl Queue {
    pub(super) fn push(&mut self, rank: u32, place: u32, times: Times) {
        let bucket = self.buckets.entry(rank).or_default();
        bucket.tally.enter(times);
        append(&mut bucket.places, place);
        self.counting += 1;
    }

    /// One of this rank does not count any more.
    pub(super) fn leave(&mut self, rank: u32) {
        if let Some(bucket) = self.buckets.get_mut(&rank) {
            bucket.tally.counting = bucket.tally.counting.saturating_sub(1);
            self.counting = self.counting.saturating_sub(1);
        }
    }

    /// The least rank; it may be that of an entry that does not count.
    pub(super) fn rank(&self) -> Option<u32> {
        if self.counting == 0 { None } else { self.buckets.first_key_value().map(|(rank, _)| *rank) }
    }

    /// Entries that count.
    pub(super) const fn counting(&self) -> usize {
        self.counting
    }

    /// The place of the least rank that counts, by `counts`, and how many entries were dropped.
    pub(super) fn pop(&mut self, mut counts: impl FnMut(u32, u32) -> bool) -> (Option<u32>, usize) {
        let mut dropped = 0;
        while let Some(mut first) = self.buckets.first_entry() {
            let rank = *first.key();
            let bucket = first.get_mut();
            while bucket.tally.counting > 0
                && let Some(place) = bucket.places.pop()
            {
                dropped += 1;
                if counts(place, rank) {
                    bucket.tally.counting -= 1;
                    self.counting = self.counting.saturating_sub(1);
                    return (Some(place), dropped);
                }
            }
            dropped += bucket.places.len();
            first.remove();
        }
        (None, dropped)
    }

    /// The buckets that have something, by rank.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u32, &Tally)> {
        let all = self.buckets.iter().map(|(rank, bucket)| (*rank, &bucket.tally));
        all.filter(|(_, tally)| tally.counting > 0)
    }
}
