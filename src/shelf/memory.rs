//! Memory that grows without moving: readers may hold a place while more is added.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use super::record::WORD;

/// Chunks of one size; then the size doubles. So at most one word in so many is not used yet.
const STEPS: usize = 32;
/// Words of the first chunks.
const FIRST: usize = 64;
/// Places are reckoned from here, so that the position of the highest bit tells the chunk's size.
const BASE: usize = STEPS * FIRST;
/// Words at the most: places have 24 bits, and the last one stands for none.
const WORDS: usize = (1 << 24) - 1;
const CHUNKS: usize = ((WORDS + BASE).ilog2() - BASE.ilog2() + 1) as usize * STEPS;

/// Words in chunks. What is written may lie in several.
#[derive(Debug)]
pub(super) struct Memory(Box<[OnceLock<Box<[AtomicU64]>>]>);

impl Default for Memory {
    fn default() -> Self {
        Self((0..CHUNKS).map(|_| OnceLock::new()).collect())
    }
}

/// The number of the chunk that a place lies in, the place in it, and its length.
const fn locate(place: usize) -> (usize, usize, usize) {
    let place = place + BASE;
    let octave = (place.ilog2() - BASE.ilog2()) as usize;
    let length = FIRST << octave;
    let step = place / length - STEPS;
    (octave * STEPS + step, place % length, length)
}

impl Memory {
    /// The words from a place on, as far as there is memory.
    pub(super) fn from(&self, place: u32) -> impl Iterator<Item = &AtomicU64> {
        let (first, at, _) = locate(place as usize);
        let chunks = self.0.get(first..).unwrap_or_default().iter().map_while(OnceLock::get);
        chunks.enumerate().flat_map(move |(number, chunk)| &chunk[if number == 0 { at } else { 0 }..])
    }

    /// The words from a place to the end of its chunk: most records lie in one.
    #[inline]
    pub(super) fn in_chunk(&self, place: u32) -> &[AtomicU64] {
        let (chunk, at, _) = locate(place as usize);
        self.0.get(chunk).and_then(OnceLock::get).map_or(&[], |chunk| &chunk[at..])
    }

    /// Makes room for so many words from `start` on. Returns the place; none beyond the last one.
    pub(super) fn extend(&self, start: usize, words: usize) -> Option<u32> {
        let end = start.checked_add(words).filter(|end| *end <= WORDS)?;
        let mut place = start;
        while place < end {
            let (chunk, at, length) = locate(place);
            self.0.get(chunk)?.get_or_init(|| (0..length).map(|_| AtomicU64::new(0)).collect());
            place += length - at;
        }
        u32::try_from(start).ok()
    }

    /// Octets of memory that it takes.
    pub(super) fn octets(&self) -> usize {
        let words: usize = self.0.iter().filter_map(OnceLock::get).map(|chunk| chunk.len()).sum();
        words * WORD + size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn places_lie_one_after_the_other_up_to_the_last() {
        let mut place = 0;
        for chunk in 0..CHUNKS {
            let length = FIRST << (chunk / STEPS);
            for at in [0, 1, length / 2, length - 1] {
                assert_eq!(locate(place + at), (chunk, at, length));
            }
            place += length;
        }
        assert!(place > WORDS);
        assert!(locate(WORDS).0 < CHUNKS);
    }

    #[test]
    fn what_is_written_across_chunks_is_read_back() {
        let memory = Memory::default();
        let mut end = 1;
        for length in (1..600).step_by(7) {
            let place = memory.extend(end, length).unwrap();
            assert_eq!(place as usize, end);
            memory.from(place).take(length).for_each(|word| word.store(length as u64, Ordering::Relaxed));
            end += length;
        }
        let mut at = 1;
        for length in (1..600).step_by(7) {
            let read: Vec<u64> =
                memory.from(at).take(length).map(|word| word.load(Ordering::Relaxed)).collect();
            assert_eq!(read, vec![length as u64; length]);
            at += length as u32;
        }
        assert_eq!(memory.extend(WORDS - 10, 11), None);
        assert_eq!(memory.from(WORDS as u32).count(), 0);
    }
}
