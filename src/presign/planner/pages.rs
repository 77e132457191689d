//! What is planned for each certificate: 16 octets, found by shard and row.

use crate::clock::UnixTime;
use crate::signer::Lane;
use crate::store::{CertificateKey, Shard};

/// Rows in a page. A page is there while one of its rows is.
const ROWS: usize = 256;

/// 2020-01-01T00:00:00Z: times are seconds since then, and last until 2156.
const BEGIN: i64 = 1_577_836_800;

/// Seconds since [`BEGIN`]; 0 stands for everything before.
pub(super) fn pack(time: UnixTime) -> u32 {
    u32::try_from(time.0.saturating_sub(BEGIN).max(0)).unwrap_or(u32::MAX)
}

pub(super) fn unpack(packed: u32) -> UnixTime {
    UnixTime(i64::from(packed) + BEGIN)
}

/// Where a certificate stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// It is not planned.
    #[default]
    Absent,
    /// In the calendar.
    Waiting,
    /// Beyond the calendar's end.
    Far,
    /// Due within the calendar's present bucket.
    Soon,
    /// Due: in the queue of its lane.
    Ready,
    /// Taken, and not finished.
    UnderWay,
}

const LANE: u8 = 0b11;
const WAY_SHIFT: u32 = 2;
const AGAIN: u8 = 1 << 4;
const HASTE: u8 = 1 << 5;
const RETRY: u8 = 1 << 6;

/// A certificate's plan.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Item {
    pub(super) due: u32,
    /// thisUpdate of its answer; 0 when it has none.
    pub(super) this_update: u32,
    /// nextUpdate of its answer.
    pub(super) next_update: u32,
    pub(super) group: u16,
    pub(super) standing: Standing,
    flags: u8,
}

impl Item {
    /// The lane that it is planned for.
    pub(super) fn lane(&self) -> Lane {
        Lane::ALL[usize::from(self.flags & LANE)]
    }

    pub(super) fn set_lane(&mut self, lane: Lane) {
        self.flags = self.flags & !LANE | lane.index() as u8;
    }

    /// The lane that it was taken from, while under way.
    pub(super) fn way(&self) -> Lane {
        Lane::ALL[usize::from(self.flags >> WAY_SHIFT & LANE)]
    }

    pub(super) fn set_way(&mut self, lane: Lane) {
        self.flags = self.flags & !(LANE << WAY_SHIFT) | (lane.index() as u8) << WAY_SHIFT;
    }

    /// News came while it was under way.
    pub(super) const fn again(&self) -> bool {
        self.flags & AGAIN != 0
    }

    pub(super) fn set_again(&mut self, to: bool) {
        self.set(AGAIN, to);
    }

    /// Somebody waits for it.
    pub(super) const fn haste(&self) -> bool {
        self.flags & HASTE != 0
    }

    pub(super) fn set_haste(&mut self, to: bool) {
        self.set(HASTE, to);
    }

    /// It has failed alone.
    pub(super) const fn retry(&self) -> bool {
        self.flags & RETRY != 0
    }

    pub(super) fn set_retry(&mut self, to: bool) {
        self.set(RETRY, to);
    }

    fn set(&mut self, flag: u8, to: bool) {
        if to {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}

/// Every planned certificate.
#[derive(Debug)]
pub(super) struct Pages {
    /// For each shard the page of each [`ROWS`] rows.
    shards: Vec<Vec<u32>>,
    pages: Vec<Page>,
    free: Vec<u32>,
    /// The items of all pages, [`SLAB`] at a time, so that one look finds one.
    slabs: Vec<Box<[Item]>>,
    planned: usize,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    number: u32,
    planned: u16,
    shard: Shard,
}

const NONE: u32 = u32::MAX;

/// Items in a slab: one mebibyte.
const SLAB: usize = 1 << 16;

impl Pages {
    pub(super) fn new() -> Self {
        Self {
            shards: vec![Vec::new(); Shard::COUNT],
            pages: Vec::new(),
            free: Vec::new(),
            slabs: Vec::new(),
            planned: 0,
        }
    }

    /// Certificates that are planned.
    pub(super) const fn planned(&self) -> usize {
        self.planned
    }

    /// A certificate's place, if it is planned. Rows are numbered from 1 to 2³².
    pub(super) fn find(&self, key: CertificateKey) -> Option<u32> {
        let row = u32::try_from(key.row).ok()?;
        let page = *self.shards[usize::from(key.shard.0)].get(row as usize / ROWS)?;
        let place = page.wrapping_mul(ROWS as u32).wrapping_add(row % ROWS as u32);
        (page != NONE && self.get(place).standing != Standing::Absent).then_some(place)
    }

    /// A certificate's place, made if it has none; none for a row that cannot be.
    pub(super) fn place(&mut self, key: CertificateKey) -> Option<u32> {
        let row = u32::try_from(key.row).ok()?;
        let numbers = &mut self.shards[usize::from(key.shard.0)];
        let number = row as usize / ROWS;
        if numbers.len() <= number {
            numbers.resize(number + 1, NONE);
        }
        if numbers[number] == NONE {
            // A page that is free holds absent items only.
            let page = Page { number: number as u32, planned: 0, shard: key.shard };
            numbers[number] = match self.free.pop() {
                Some(free) => {
                    self.pages[free as usize] = page;
                    free
                }
                None => {
                    self.pages.push(page);
                    if self.pages.len() * ROWS > self.slabs.len() * SLAB {
                        self.slabs.push(vec![Item::default(); SLAB].into());
                    }
                    self.pages.len() as u32 - 1
                }
            };
        }
        Some(numbers[number] * ROWS as u32 + row % ROWS as u32)
    }

    /// What is planned at a place; an absent item when nothing is.
    pub(super) fn get(&self, place: u32) -> Item {
        self.slabs[place as usize / SLAB][place as usize % SLAB]
    }

    /// Writes the plan at a place that was found or made.
    pub(super) fn put(&mut self, place: u32, item: Item) {
        let there = &mut self.slabs[place as usize / SLAB][place as usize % SLAB];
        let (was, is) = (there.standing != Standing::Absent, item.standing != Standing::Absent);
        *there = item;
        if was == is {
            return;
        }
        let page = &mut self.pages[place as usize / ROWS];
        if is {
            page.planned += 1;
            self.planned += 1;
        } else {
            page.planned -= 1;
            self.planned -= 1;
            if page.planned == 0 {
                self.shards[usize::from(page.shard.0)][page.number as usize] = NONE;
                self.free.push(place / ROWS as u32);
            }
        }
    }

    /// The certificate at a place.
    pub(super) fn key(&self, place: u32) -> CertificateKey {
        let page = &self.pages[place as usize / ROWS];
        let row = page.number as usize * ROWS + place as usize % ROWS;
        CertificateKey { shard: page.shard, row: row as i64 }
    }

    /// Every place where something is planned.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> {
        let items = self.slabs.iter().flatten().zip(0u32..);
        items.filter(|(item, _)| item.standing != Standing::Absent).map(|(_, place)| place)
    }
}
