//! One of the shelf's parts: records, and an index over them.
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
use super::memory::Memory;
use super::pack::{Pack, PackPlace};
use super::record::{FIXED, Header, Record, WORD, issuer as issuer_of};
use crate::clock::UnixTime;

/// Entries of the smallest index.
const SMALLEST: usize = 64;
/// An entry that was never used.
const EMPTY: u32 = 0;
/// An entry that was used: its place lies beyond all chunks.
const GONE: u32 = PLACE;
const PLACE: u32 = 0x00ff_ffff;
/// Looks at a writer's number before the processor is left to it.
const SPINS: u32 = 100;

/// Where records stand.
#[derive(Debug, Default)]
struct Index(Box<[AtomicU32]>);

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
    index: ArcSwap<Index>,
    memory: Memory,
    writer: Mutex<Writer>,
}

/// What a sweep took off and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) certificates: usize,
    pub(super) answers: usize,
    pub(super) late: usize,
    /// The packs that those taken off were in.
    pub(super) packs: Vec<PackPlace>,
}

fn mark(hash: u64) -> u32 {
    u32::from(hash.to_le_bytes()[1]) << 24
}

impl Index {
    fn with_entries(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU32::new(EMPTY)).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// Entries in the order in which a hash visits them.
    fn probe(&self, hash: u64) -> impl Iterator<Item = (usize, u32)> {
        let count = self.len();
        let start = (((hash >> 32) * count as u64) >> 32) as usize;
        (start..count).chain(0..start).map(|at| (at, self.0[at].load(Ordering::Relaxed)))
    }

    /// Where entries stand, and where they lead.
    fn places(&self) -> impl Iterator<Item = (usize, u32)> {
        let entries = self.0.iter().map(|entry| entry.load(Ordering::Relaxed)).enumerate();
        let used = entries.filter(|(_, entry)| *entry != EMPTY && *entry != GONE);
        used.map(|(at, entry)| (at, entry & PLACE))
    }

    fn set(&self, at: usize, hash: u64, place: u32) {
        self.0[at].store(mark(hash) | place, Ordering::Relaxed);
    }

    fn forget(&self, at: usize) {
        self.0[at].store(GONE, Ordering::Relaxed);
    }
}

impl Memory {
    /// The record at a place; none where there is none, which only a read during a change can find.
    fn record(&self, place: u32) -> Option<Record> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let chunk = self.in_chunk(place);
        let second = chunk.get(1).or_else(|| self.from(place).nth(1))?;
        let count = Header::of(load(second)).words();
        Some(match chunk.get(..count) {
            Some(words) => Record::read(count, words.iter().map(load)),
            None => Record::read(count, self.from(place).map(load)),
        })
    }

    /// Whether the record at a place is that of a certificate.
    fn holds(&self, place: u32, issuer: u32, serial: &[u8]) -> bool {
        // One more than it is in a pack.
        let count = FIXED / WORD + serial.len().div_ceil(WORD);
        match self.in_chunk(place).get(..count) {
            Some(words) => is_of(words.iter(), issuer, serial),
            None => is_of(self.from(place), issuer, serial),
        }
    }

    fn write(&self, place: u32, words: impl Iterator<Item = u64>) {
        for (place, word) in self.from(place).zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    /// The pack at a place; none where there is none.
    fn pack(&self, place: u32) -> Option<Pack> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let mut words = self.from(place).map(load);
        let count = Pack::length(words.nth(1)?, words.nth(1)?)?;
        Some(Pack::read(count, self.from(place).map(load)))
    }

    /// Sets a word of what stands at a place.
    fn set(&self, place: u32, number: usize, word: u64) {
        if let Some(at) = self.from(place).nth(number) {
            at.store(word, Ordering::Relaxed);
        }
    }
}

/// Whether the words of a record are those of a certificate.
fn is_of<'w>(words: impl Iterator<Item = &'w AtomicU64>, issuer: u32, serial: &[u8]) -> bool {
    let mut words = words.map(|word| word.load(Ordering::Relaxed));
    let (Some(first), Some(second)) = (words.next(), words.next()) else { return false };
    let octets = |(octets, word): (&[u8], u64)| word.to_le_bytes()[..octets.len()] == *octets;
    let header = Header::of(second);
    issuer_of(first) == issuer
        && header.serial() == serial.len()
        && serial.chunks(WORD).zip(words.skip(header.fixed() / WORD - 2)).all(octets)
}

impl Part {
    /// The record of a certificate.
    pub(super) fn get(&self, hash: u64, issuer: u32, serial: &[u8]) -> Option<Record> {
        self.read(|| {
            let found = self.find(&self.index.load(), hash, issuer, serial);
            found.and_then(|(_, place)| self.memory.record(place))
        })
    }

    /// The pack at a place, as far as one stands there.
    pub(super) fn pack(&self, place: u32) -> Option<Pack> {
        self.read(|| self.memory.pack(place))
    }

    /// Reads until nothing changes meanwhile.
    #[inline]
    fn read<T>(&self, read: impl Fn() -> T) -> T {
        let mut spins = 0;
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let found = read();
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return found;
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

    /// The entry and place of a certificate's record.
    fn find(&self, index: &Index, hash: u64, issuer: u32, serial: &[u8]) -> Option<(usize, u32)> {
        let used = index.probe(hash).take_while(|(_, entry)| *entry != EMPTY);
        used.filter(|(_, entry)| *entry != GONE && entry & !PLACE == mark(hash))
            .map(|(at, entry)| (at, entry & PLACE))
            .find(|(_, place)| self.memory.holds(*place, issuer, serial))
    }

    /// Changes what readers see.
    fn change(&self, change: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.sequence.store(before + 2, Ordering::Release);
    }

    /// Puts a record in its place, if what stands there `gives_way`. `hash_of` gives the hash of another
    /// record.
    pub(super) fn put(
        &self,
        hash: u64,
        record: &Record,
        gives_way: impl Fn(&Record) -> bool,
        hash_of: impl Fn(u32, &[u8]) -> u64,
    ) -> Put {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let words = record.words().len();
        let index = self.index.load();
        if let Some((at, place)) = self.find(&index, hash, record.issuer(), record.serial()) {
            let Some(old) = self.memory.record(place) else { return Put::Refused };
            if !gives_way(&old) {
                return Put::Refused;
            }
            if old.words().len() == words {
                self.change(|| self.memory.write(place, record.words()));
            } else {
                let Some(new) = self.allocate(&mut writer, words) else { return Put::Refused };
                self.memory.write(new, record.words());
                self.change(|| index.set(at, hash, new));
                writer.free.entry(old.words().len()).or_default().push(place);
            }
            return Put::Replaced { answered: old.has_answer(), pack: old.pack() };
        }
        let Some(place) = self.allocate(&mut writer, words) else { return Put::Refused };
        if (writer.used + 1) * 8 > index.len() * 7 {
            self.grow(&mut writer, hash_of);
        }
        let index = self.index.load();
        self.memory.write(place, record.words());
        let free = index.probe(hash).find(|(_, entry)| *entry == EMPTY || *entry == GONE);
        let Some((at, entry)) = free else { return Put::Refused };
        self.change(|| index.set(at, hash, place));
        writer.used += usize::from(entry == EMPTY);
        writer.live += 1;
        Put::New
    }

    /// Keeps a pack that one certificate's record will name. Readers that still look for what stood at its
    /// place see it whole.
    pub(super) fn put_pack(&self, pack: &Pack) -> Option<u32> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.allocate(&mut writer, pack.words().len())?;
        self.change(|| self.memory.write(place, pack.words()));
        Some(place)
    }

    /// One more record will name the pack at a place, if that `is` the one. Returns whether it does.
    pub(super) fn retain_pack(&self, place: u32, is: impl Fn(&Pack) -> bool) -> bool {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pack) = self.memory.pack(place).filter(is) else { return false };
        let first = pack.words().next().unwrap_or_default();
        self.memory.set(place, 0, first + 1);
        true
    }

    /// One record less names the pack at a place; it goes with the last one.
    pub(super) fn release_pack(&self, place: u32) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pack) = self.memory.pack(place) else { return };
        let first = pack.words().next().unwrap_or_default();
        if first & u64::from(u32::MAX) > 1 {
            self.memory.set(place, 0, first - 1);
        } else {
            self.change(|| self.memory.set(place, 1, 0));
            writer.free.entry(pack.words().len()).or_default().push(place);
        }
    }

    /// A place for so many words; none when the part is full, at 128 MiB.
    fn allocate(&self, writer: &mut Writer, words: usize) -> Option<u32> {
        if let Some(place) = writer.free.get_mut(&words).and_then(Vec::pop) {
            return Some(place);
        }
        let place = self.memory.extend(writer.end.max(1), words);
        match place {
            Some(place) => writer.end = place as usize + words,
            None => tracing::error!(
                "a part of the shelf is full, at 128 MiB: there is no room for another certificate"
            ),
        }
        place
    }

    /// Makes a larger index, or one without entries that lead nowhere.
    fn grow(&self, writer: &mut Writer, hash_of: impl Fn(u32, &[u8]) -> u64) {
        let index = Index::with_entries((writer.live * 3 / 2).max(SMALLEST));
        for (_, place) in self.index.load().places() {
            let Some(record) = self.memory.record(place) else { continue };
            let hash = hash_of(record.issuer(), record.serial());
            if let Some((at, _)) = index.probe(hash).find(|(_, entry)| *entry == EMPTY) {
                index.set(at, hash, place);
            }
        }
        writer.used = writer.live;
        self.change(|| self.index.store(Arc::new(index)));
    }

    /// Takes off what has expired by `now`.
    ///
    /// `next_update` tells of a pack when it expires.
    pub(super) fn sweep(&self, now: UnixTime, next_update: impl Fn(PackPlace) -> Option<UnixTime>) -> Swept {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.index.load();
        let mut swept = Swept::default();
        for (at, place) in index.places() {
            let Some(record) = self.memory.record(place) else { continue };
            if record.not_after() < now {
                self.change(|| index.forget(at));
                writer.free.entry(record.words().len()).or_default().push(place);
                writer.live -= 1;
                swept.certificates += 1;
                swept.answers += usize::from(record.has_answer());
                swept.packs.extend(record.pack());
            } else {
                let until = match record.pack() {
                    Some(pack) => next_update(pack),
                    None => record.times().map(|(_, next_update)| next_update),
                };
                swept.late += usize::from(until.is_some_and(|until| until < now));
            }
        }
        swept
    }

    /// Octets of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        self.memory.octets() + self.index.load().len() * size_of::<u32>()
    }
}
