//! One of the shelf's parts: records in chunks of memory, and an index over them.
//!
//! A writer holds the part's lock and makes the sequence number odd while it changes what readers see; a
//! reader that finds the number odd, or changed after it has read, reads again (a sequence lock; every
//! word is an atomic, so that a read that comes to nothing is no data race). Records are found by linear
//! probing in entries of 32 bits: 8 of the hash, 24 of the place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::Put;
use super::record::{FIXED, Header, Record, WORD, issuer as issuer_of};
use crate::clock::UnixTime;

/// Words of a chunk; a record lies in one chunk.
const CHUNK: usize = 4_096;
/// Entries of the smallest index.
const SMALLEST: usize = 64;
/// An entry that was never used.
const EMPTY: u32 = 0;
/// An entry that was used: its place lies beyond all chunks.
const GONE: u32 = PLACE;
const PLACE: u32 = 0x00ff_ffff;
/// Looks at a writer's number before the processor is left to it.
const SPINS: u32 = 100;

/// The memory of a part, as a reader sees it.
#[derive(Debug, Default)]
struct Layout {
    index: Arc<[AtomicU32]>,
    chunks: Vec<Arc<[AtomicU64]>>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Entries that are not empty.
    used: usize,
    /// Entries that lead to a record.
    live: usize,
    /// The first word that no record has had. Place 0 is not given out.
    end: usize,
    /// Places that are free, by their number of words.
    free: BTreeMap<usize, Vec<u32>>,
}

/// A part of the shelf.
#[derive(Debug, Default)]
pub(super) struct Part {
    sequence: AtomicU64,
    layout: ArcSwap<Layout>,
    writer: Mutex<Writer>,
}

/// What a sweep took off and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) certificates: usize,
    pub(super) answers: usize,
    pub(super) late: usize,
}

fn zeroed<T: Default>(count: usize) -> Arc<[T]> {
    (0..count).map(|_| T::default()).collect()
}

fn mark(hash: u64) -> u32 {
    u32::from(hash.to_le_bytes()[1]) << 24
}

impl Layout {
    /// The words at a place, up to the end of its chunk.
    fn at(&self, place: u32) -> &[AtomicU64] {
        let place = place as usize;
        self.chunks.get(place / CHUNK).map_or(&[], |chunk| &chunk[place % CHUNK..])
    }

    /// The record at a place; none where there is none, which only a read during a change can find.
    fn record(&self, place: u32) -> Option<Record> {
        let words = self.at(place);
        let count = Header::of(words.get(1)?.load(Ordering::Relaxed)).words();
        let words = words.get(..count)?;
        Some(Record::read(count, words.iter().map(|word| word.load(Ordering::Relaxed))))
    }

    fn is(&self, place: u32, issuer: u32, serial: &[u8]) -> bool {
        let words = self.at(place);
        let (Some(first), Some(second)) = (words.first(), words.get(1)) else { return false };
        let length = Header::of(second.load(Ordering::Relaxed)).serial();
        if issuer_of(first.load(Ordering::Relaxed)) != issuer || length != serial.len() {
            return false;
        }
        let words = words.get(FIXED / WORD..).unwrap_or_default();
        serial.chunks(WORD).zip(words).all(|(octets, word)| {
            word.load(Ordering::Relaxed).to_le_bytes()[..octets.len()] == *octets
        })
    }

    /// Entries in the order in which a hash visits them.
    fn probe(&self, hash: u64) -> impl Iterator<Item = (usize, u32)> {
        let count = self.index.len();
        let start = ((hash >> 32) * count as u64 >> 32) as usize;
        (start..count).chain(0..start).map(|at| (at, self.index[at].load(Ordering::Relaxed)))
    }

    /// The entry and place of a certificate's record.
    fn find(&self, hash: u64, issuer: u32, serial: &[u8]) -> Option<(usize, u32)> {
        self.probe(hash)
            .take_while(|(_, entry)| *entry != EMPTY)
            .filter(|(_, entry)| *entry != GONE && entry & !PLACE == mark(hash))
            .map(|(at, entry)| (at, entry & PLACE))
            .find(|(_, place)| self.is(*place, issuer, serial))
    }

    fn write(&self, place: u32, record: &Record) {
        for (place, word) in self.at(place).iter().zip(record.words()) {
            place.store(word, Ordering::Relaxed);
        }
    }
}

impl Part {
    /// The record of a certificate.
    pub(super) fn get(&self, hash: u64, issuer: u32, serial: &[u8]) -> Option<Record> {
        let mut spins = 0;
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let layout = self.layout.load();
                let record = layout.find(hash, issuer, serial).and_then(|(_, place)| layout.record(place));
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return record;
                }
            }
            spins += 1;
            if spins % SPINS == 0 {
                // The writer may have lost the processor in the middle of its change.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Changes what readers see.
    fn change(&self, change: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.sequence.store(before + 2, Ordering::Release);
    }

    /// Puts a record in its place. `hash_of` gives the hash of another one.
    pub(super) fn put(
        &self,
        hash: u64,
        issuer: u32,
        serial: &[u8],
        record: &Record,
        hash_of: impl Fn(u32, &[u8]) -> u64,
    ) -> Put {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = self.layout.load_full();
        let words = record.words().len();
        if words > CHUNK {
            tracing::error!(octets = words * WORD, "an answer is longer than the shelf takes");
            return Put::Refused;
        }
        if let Some((at, place)) = layout.find(hash, issuer, serial) {
            let Some(old) = layout.record(place) else { return Put::Refused };
            if record.is_older_than(&old) {
                return Put::Refused;
            }
            if old.words().len() == words {
                self.change(|| layout.write(place, record));
            } else {
                let Some(new) = self.allocate(&mut writer, words) else { return Put::Refused };
                let layout = self.layout.load();
                layout.write(new, record);
                self.change(|| layout.index[at].store(mark(hash) | new, Ordering::Relaxed));
                writer.free.entry(old.words().len()).or_default().push(place);
            }
            return Put::Replaced { answered: old.has_answer() };
        }
        let Some(place) = self.allocate(&mut writer, words) else { return Put::Refused };
        if (writer.used + 1) * 8 > layout.index.len() * 7 {
            self.grow(&mut writer, hash_of);
        }
        let layout = self.layout.load();
        layout.write(place, record);
        let free = layout.probe(hash).find(|(_, entry)| *entry == EMPTY || *entry == GONE);
        let Some((at, entry)) = free else { return Put::Refused };
        self.change(|| layout.index[at].store(mark(hash) | place, Ordering::Relaxed));
        writer.used += usize::from(entry == EMPTY);
        writer.live += 1;
        Put::New
    }

    /// A place for so many words; none when the part is full, at 128 MiB.
    fn allocate(&self, writer: &mut Writer, words: usize) -> Option<u32> {
        if let Some(place) = writer.free.get_mut(&words).and_then(Vec::pop) {
            return Some(place);
        }
        let end = writer.end.max(1);
        let left = end.next_multiple_of(CHUNK) - end;
        let start = if left < words { end.next_multiple_of(CHUNK) } else { end };
        let place = u32::try_from(start).ok().filter(|place| place + (CHUNK as u32) < PLACE);
        if place.is_none() {
            tracing::error!("a part of the shelf is full; serve from more processes, each with fewer issuers");
        }
        writer.end = start + words;
        let present = self.layout.load();
        if present.chunks.len() * CHUNK < writer.end {
            let mut chunks = present.chunks.clone();
            chunks.push(zeroed(CHUNK));
            self.layout.store(Arc::new(Layout { index: Arc::clone(&present.index), chunks }));
        }
        place
    }

    /// Makes a larger index, or one without entries that lead nowhere.
    fn grow(&self, writer: &mut Writer, hash_of: impl Fn(u32, &[u8]) -> u64) {
        let old = self.layout.load_full();
        let count = (writer.live * 3 / 2).max(SMALLEST);
        let layout = Layout { index: zeroed(count), chunks: old.chunks.clone() };
        for place in old.places() {
            let Some(record) = layout.record(place) else { continue };
            let hash = hash_of(record.issuer(), record.serial());
            let at = layout.probe(hash).find(|(_, entry)| *entry == EMPTY).map(|(at, _)| at);
            if let Some(at) = at {
                layout.index[at].store(mark(hash) | place, Ordering::Relaxed);
            }
        }
        writer.used = writer.live;
        self.change(|| self.layout.store(Arc::new(layout)));
    }

    /// Takes off what has expired by `now`.
    pub(super) fn sweep(&self, now: UnixTime) -> Swept {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = self.layout.load_full();
        let mut swept = Swept::default();
        for (at, entry) in layout.entries() {
            let Some(record) = layout.record(entry) else { continue };
            if record.not_after() < now {
                self.change(|| layout.index[at].store(GONE, Ordering::Relaxed));
                writer.free.entry(record.words().len()).or_default().push(entry);
                writer.live -= 1;
                swept.certificates += 1;
                swept.answers += usize::from(record.has_answer());
            } else if record.has_answer() && record.next_update() < now {
                swept.late += 1;
            }
        }
        swept
    }

    /// Octets of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        let layout = self.layout.load();
        layout.chunks.len() * CHUNK * WORD + layout.index.len() * size_of::<u32>()
    }
}

impl Layout {
    /// Where entries lead, and where they stand.
    fn entries(&self) -> impl Iterator<Item = (usize, u32)> {
        let entries = self.index.iter().map(|entry| entry.load(Ordering::Relaxed));
        entries.enumerate().filter(|(_, entry)| *entry != EMPTY && *entry != GONE).map(|(at, entry)| (at, entry & PLACE))
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        self.entries().map(|(_, place)| place)
    }
}
