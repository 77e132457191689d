//! Where places wait: the calendar of what is not due yet, and the queue of a lane.
//!
//! Neither searches when a certificate is planned anew: what it had entered before stays, and does
//! not count when it is reached. The planner rebuilds them when too much of that has gathered.

use std::collections::{BTreeMap, VecDeque};

/// Places that wait for the same span of time, and the least times among them. Those are exact as
/// long as nothing has left the bucket, and early afterwards.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) places: Vec<u32>,
    /// How many of the entries count.
    pub(super) counting: u32,
    pub(super) due: u32,
    pub(super) stale: u32,
    pub(super) expires: u32,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { places: Vec::new(), counting: 0, due: u32::MAX, stale: u32::MAX, expires: u32::MAX }
    }
}

/// The times of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) due: u32,
    pub(super) stale: u32,
    pub(super) expires: u32,
}

impl Bucket {
    fn push(&mut self, place: u32, times: Times) {
        self.places.push(place);
        self.counting += 1;
        self.due = self.due.min(times.due);
        self.stale = self.stale.min(times.stale);
        self.expires = self.expires.min(times.expires);
    }
}

/// Buckets of `1 << shift` seconds from the present one on.
#[derive(Debug)]
pub(super) struct Calendar {
    pub(super) shift: u32,
    /// The number of the first bucket: everything before it is due, or soon.
    first: u32,
    buckets: VecDeque<Bucket>,
}

/// Buckets in the calendar at the most: 2.5 MB.
const LENGTH: u32 = 1 << 16;

impl Calendar {
    pub(super) fn new(shift: u32, now: u32) -> Self {
        // What the bucket of the present second holds is due, or soon.
        Self { shift, first: (now >> shift) + 1, buckets: VecDeque::new() }
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
        if self.buckets.len() <= slot {
            self.buckets.resize_with(slot + 1, Bucket::default);
        }
        self.buckets[slot].push(place, times);
        Ok(())
    }

    /// One that waits until `due` does not count any more.
    pub(super) fn leave(&mut self, due: u32) {
        if let Ok(slot) = self.slot(due)
            && let Some(bucket) = self.buckets.get_mut(slot)
        {
            bucket.counting = bucket.counting.saturating_sub(1);
        }
    }

    /// The next bucket that has begun at `now`, with its number.
    pub(super) fn open(&mut self, now: u32) -> Option<(u32, Bucket)> {
        if self.first > now >> self.shift {
            return None;
        }
        let number = self.first;
        match self.buckets.pop_front() {
            Some(bucket) => {
                self.first += 1;
                Some((number, bucket))
            }
            None => {
                self.first = (now >> self.shift) + 1;
                None
            }
        }
    }

    /// A place from the first bucket that has one that counts, by `counts`, and how many entries that
    /// do not count were dropped on the way.
    pub(super) fn pop(&mut self, mut counts: impl FnMut(u32) -> bool) -> (Option<u32>, usize) {
        let mut dropped = 0;
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.counting > 0) {
            while let Some(place) = bucket.places.pop() {
                dropped += 1;
                if counts(place) {
                    bucket.counting = bucket.counting.saturating_sub(1);
                    return (Some(place), dropped);
                }
            }
            bucket.counting = 0;
        }
        (None, dropped)
    }

    /// The buckets that have something, with the time at which each ends.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u32, &Bucket)> {
        let end = |slot: usize| self.first.saturating_add(slot as u32 + 1).checked_shl(self.shift);
        let all = self.buckets.iter().enumerate();
        all.filter(|(_, bucket)| bucket.counting > 0)
            .map(move |(slot, bucket)| (end(slot).unwrap_or(u32::MAX), bucket))
    }
}

/// A time that is not in the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    Before,
    After,
}

/// What is due in one lane, by rank.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buckets: BTreeMap<u32, Bucket>,
    counting: usize,
}

impl Queue {
    pub(super) fn push(&mut self, rank: u32, place: u32, times: Times) {
        self.buckets.entry(rank).or_default().push(place, times);
        self.counting += 1;
    }

    /// One of this rank does not count any more.
    pub(super) fn leave(&mut self, rank: u32) {
        if let Some(bucket) = self.buckets.get_mut(&rank) {
            bucket.counting = bucket.counting.saturating_sub(1);
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
            while bucket.counting > 0
                && let Some(place) = bucket.places.pop()
            {
                dropped += 1;
                if counts(place, rank) {
                    bucket.counting -= 1;
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
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u32, &Bucket)> {
        self.buckets.iter().filter(|(_, bucket)| bucket.counting > 0).map(|(rank, bucket)| (*rank, bucket))
    }
}
