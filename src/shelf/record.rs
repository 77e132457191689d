//! A certificate in words of eight octets.
//!
//! ```text
//! word 0   version (32) · issuer (32)
//! word 1   template (16) · length of a ResponseData kept whole (16) · of the signature (16) · of the serial (8) · flags (8)
//! word 2   nextUpdate (32) · thisUpdate (32)
//! word 3   notAfter (32) · planned renewal (32)
//! octets   serial · notBefore (32, if known) · revocation time (32, if revoked) · ResponseData · signature
//! ```
//! The lower half of a word comes first. Times are seconds since 1970 in 32 bits, good until 2106.

use std::sync::Arc;

use smallvec::SmallVec;

use super::template::{Template, Templates};
use super::{Entry, ShelfAnswer, Slot};
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation, Serial, SignatureAlgorithm, ecdsa};

pub(super) const WORD: usize = size_of::<u64>();
/// Octets of the words before the serial number.
pub(super) const FIXED: usize = 4 * WORD;

const ANSWER: u8 = 1;
const NOT_BEFORE: u8 = 2;
const REVOKED: u8 = 4;
/// The signature is r‖s, not the SEQUENCE that is served.
const PLAIN_ECDSA: u8 = 8;
/// The reason stands in the upper half of the flags; RFC 5280 has no reason 7.
const NO_REASON: u8 = 7;

fn short(time: UnixTime) -> u32 {
    u32::try_from(time.0.max(0)).unwrap_or(u32::MAX)
}

fn long(time: u32) -> UnixTime {
    UnixTime(i64::from(time))
}

/// What word 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    template: u16,
    data: u16,
    signature: u16,
    serial: u8,
    flags: u8,
}

impl Header {
    pub(super) const fn of(word: u64) -> Self {
        let octets = word.to_le_bytes();
        Self {
            flags: octets[0],
            serial: octets[1],
            signature: u16::from_le_bytes([octets[2], octets[3]]),
            data: u16::from_le_bytes([octets[4], octets[5]]),
            template: u16::from_le_bytes([octets[6], octets[7]]),
        }
    }

    const fn octets(self) -> [u8; WORD] {
        let [signature, data, template] =
            [self.signature.to_le_bytes(), self.data.to_le_bytes(), self.template.to_le_bytes()];
        [self.flags, self.serial, signature[0], signature[1], data[0], data[1], template[0], template[1]]
    }

    /// Octets of the serial number.
    pub(super) fn serial(self) -> usize {
        usize::from(self.serial)
    }

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn data_at(self) -> usize {
        let times = usize::from(self.has(NOT_BEFORE)) + usize::from(self.has(REVOKED));
        FIXED + self.serial() + 4 * times
    }

    fn signature_at(self) -> usize {
        self.data_at() + usize::from(self.data)
    }

    /// Words of the whole record.
    pub(super) fn words(self) -> usize {
        (self.signature_at() + usize::from(self.signature)).div_ceil(WORD)
    }
}

/// The issuer in word 0.
pub(super) const fn issuer(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A record as octets. One with an RSA-4096 signature takes no heap.
#[derive(Clone, Debug)]
pub(super) struct Record(SmallVec<[u8; 592]>);

impl Record {
    /// From its words.
    pub(super) fn read(count: usize, words: impl Iterator<Item = u64>) -> Self {
        let mut octets = SmallVec::from_elem(0, count * WORD);
        for (place, word) in octets.chunks_exact_mut(WORD).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Self(octets)
    }

    fn word(&self, number: usize) -> u64 {
        self.0[number * WORD..].first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets))
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.0[at..].first_chunk().map_or(0, |octets| u32::from_le_bytes(*octets))
    }

    fn header(&self) -> Header {
        Header::of(self.word(1))
    }

    pub(super) fn issuer(&self) -> u32 {
        issuer(self.word(0))
    }

    pub(super) fn version(&self) -> u32 {
        self.u32_at(4)
    }

    pub(super) fn has_answer(&self) -> bool {
        self.header().has(ANSWER)
    }

    pub(super) fn template(&self) -> u16 {
        self.header().template
    }

    pub(super) fn this_update(&self) -> UnixTime {
        long(self.u32_at(2 * WORD))
    }

    pub(super) fn next_update(&self) -> UnixTime {
        long(self.u32_at(2 * WORD + 4))
    }

    pub(super) fn not_after(&self) -> UnixTime {
        long(self.u32_at(3 * WORD + 4))
    }

    /// The content octets of the serial number.
    pub(super) fn serial(&self) -> &[u8] {
        &self.0[FIXED..FIXED + self.header().serial()]
    }

    pub(super) fn revocation(&self) -> Option<Revocation> {
        let header = self.header();
        header.has(REVOKED).then(|| Revocation {
            time: long(self.u32_at(header.data_at() - 4)),
            reason: Some(header.flags >> 4).filter(|code| *code != NO_REASON).and_then(CrlReason::from_code),
        })
    }

    /// A ResponseData that was kept whole; empty for one that a template writes.
    pub(super) fn whole_data(&self) -> &[u8] {
        let header = self.header();
        &self.0[header.data_at()..header.signature_at()]
    }

    /// The content of the signature BIT STRING.
    pub(super) fn signature(&self) -> SmallVec<[u8; 512]> {
        let header = self.header();
        let octets = &self.0[header.signature_at()..][..usize::from(header.signature)];
        if header.has(PLAIN_ECDSA) { ecdsa::der(octets) } else { SmallVec::from_slice(octets) }
    }

    /// Whether it must not be put in the place of `old` at `now`: that is of a later version, or of the
    /// same one with a later answer, unless that answer lies in the future.
    pub(super) fn is_older_than(&self, old: &Self, now: UnixTime) -> bool {
        let made = |record: &Self| record.has_answer().then(|| record.this_update());
        let from_the_future = self.version() == old.version() && made(old).is_some_and(|made| made > now);
        !from_the_future && (self.version(), made(self)) < (old.version(), made(old))
    }

    pub(super) fn into_slot(self, template: Option<Arc<Template>>) -> Slot {
        let header = self.header();
        let slot = Slot {
            version: i64::from(self.version()),
            not_before: header.has(NOT_BEFORE).then(|| long(self.u32_at(FIXED + header.serial()))),
            not_after: self.not_after(),
            revocation: self.revocation(),
            answer: None,
        };
        let answer = template.map(|template| ShelfAnswer {
            this_update: self.this_update(),
            next_update: self.next_update(),
            renewed_at: long(self.u32_at(3 * WORD)),
            template,
            record: self,
        });
        Slot { answer, ..slot }
    }

    /// Packs a certificate. Its answer is left to a template where one writes exactly those octets.
    pub(super) fn pack(issuer: u32, serial: &Serial, entry: &Entry<'_>, templates: &Templates) -> Self {
        let reason = entry.revocation.and_then(|revocation| revocation.reason);
        let mut header = Header {
            template: 0,
            data: 0,
            signature: 0,
            serial: serial.as_der_content().len() as u8,
            flags: reason.map_or(NO_REASON, CrlReason::code) << 4,
        };
        let mut octets = SmallVec::<[u8; 592]>::new();
        octets.extend_from_slice(&issuer.to_le_bytes());
        octets.extend_from_slice(&u32::try_from(entry.version).unwrap_or(u32::MAX).to_le_bytes());
        octets.extend_from_slice(&[0; WORD]);
        let answer = entry.answer.as_ref();
        let times = answer.map_or([UnixTime::EPOCH; 3], |answer| {
            [answer.this_update, answer.next_update, answer.renewed_at]
        });
        for time in [times[0], times[1], times[2], entry.not_after] {
            octets.extend_from_slice(&short(time).to_le_bytes());
        }
        octets.extend_from_slice(serial.as_der_content());
        if let Some(not_before) = entry.not_before {
            header.flags |= NOT_BEFORE;
            octets.extend_from_slice(&short(not_before).to_le_bytes());
        }
        if let Some(revocation) = entry.revocation {
            header.flags |= REVOKED;
            octets.extend_from_slice(&short(revocation.time).to_le_bytes());
        }
        if let Some(answer) = answer {
            header.flags |= ANSWER;
            let is_ecdsa = matches!(
                answer.frame.algorithm,
                SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP384Sha384
            );
            let plain = is_ecdsa.then(|| ecdsa::plain(answer.signature)).flatten();
            let signature = plain.as_deref().unwrap_or(answer.signature);
            header.flags |= if plain.is_some() { PLAIN_ECDSA } else { 0 };
            // Bounded by what a token signs: a few hundred octets.
            header.signature = signature.len() as u16;
            octets[WORD..2 * WORD].copy_from_slice(&header.octets());
            let (template, is_whole) = templates.fit(issuer, answer, &Self(octets.clone()));
            header.template = template;
            if is_whole {
                header.data = answer.response_data.len() as u16;
                octets.extend_from_slice(answer.response_data);
            }
            octets.extend_from_slice(signature);
        }
        octets[WORD..2 * WORD].copy_from_slice(&header.octets());
        octets.resize(octets.len().next_multiple_of(WORD), 0);
        Self(octets)
    }

    /// Its words.
    pub(super) fn words(&self) -> impl ExactSizeIterator<Item = u64> {
        (0..self.0.len() / WORD).map(|number| self.word(number))
    }
}
