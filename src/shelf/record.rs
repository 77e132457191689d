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
//!
//! In a pack ([`super::pack`]) word 2, ResponseData and signature stand in the pack's own record; the
//! lengths in word 1 give way to the place of that.

use smallvec::SmallVec;

use super::pack::PackPlace;
use super::template::{Statement, Subject, Template, Templates};
use super::{Entry, Slot};
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation, Serial, SignatureAlgorithm, ecdsa};

pub(super) const WORD: usize = size_of::<u64>();
/// Octets of the words before the serial number.
pub(super) const FIXED: usize = 4 * WORD;

pub(super) const ANSWER: u8 = 1;
const NOT_BEFORE: u8 = 2;
const REVOKED: u8 = 4;
/// The signature is r‖s, not the SEQUENCE that is served.
pub(super) const PLAIN_ECDSA: u8 = 8;
/// In the octet of the serial number's length: the answer is a pack's.
const PACKED: u8 = 0x80;
/// The reason stands in the upper half of the flags; RFC 5280 has no reason 7.
pub(super) const NO_REASON: u8 = 7;

/// An ECDSA signature as r‖s, where it is one that comes out again.
pub(super) fn plain_ecdsa(
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Option<impl std::ops::Deref<Target = [u8]> + use<>> {
    let is_ecdsa =
        matches!(algorithm, SignatureAlgorithm::EcdsaP256Sha256 | SignatureAlgorithm::EcdsaP384Sha384);
    is_ecdsa.then(|| ecdsa::plain(signature)).flatten()
}

pub(super) fn short(time: UnixTime) -> u32 {
    u32::try_from(time.0.max(0)).unwrap_or(u32::MAX)
}

pub(super) fn long(time: u32) -> UnixTime {
    UnixTime(i64::from(time))
}

/// What word 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) template: u16,
    pub(super) data: u16,
    pub(super) signature: u16,
    pub(super) serial: u8,
    pub(super) flags: u8,
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

    pub(super) const fn octets(self) -> [u8; WORD] {
        let [signature, data, template] =
            [self.signature.to_le_bytes(), self.data.to_le_bytes(), self.template.to_le_bytes()];
        [self.flags, self.serial, signature[0], signature[1], data[0], data[1], template[0], template[1]]
    }

    /// Octets of the serial number.
    pub(super) fn serial(self) -> usize {
        usize::from(self.serial & !PACKED)
    }

    /// Where its pack stands.
    pub(super) fn pack(self) -> Option<PackPlace> {
        let place = u32::from(self.data) << 16 | u32::from(self.signature);
        (self.serial & PACKED != 0).then_some(PackPlace(place))
    }

    /// Octets of a ResponseData kept whole.
    fn data(self) -> usize {
        if self.serial & PACKED == 0 { usize::from(self.data) } else { 0 }
    }

    fn signature(self) -> usize {
        if self.serial & PACKED == 0 { usize::from(self.signature) } else { 0 }
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Octets before the serial number.
    pub(super) const fn fixed(self) -> usize {
        if self.serial & PACKED == 0 { FIXED } else { FIXED - WORD }
    }

    fn data_at(self) -> usize {
        let times = usize::from(self.has(NOT_BEFORE)) + usize::from(self.has(REVOKED));
        self.fixed() + self.serial() + 4 * times
    }

    fn signature_at(self) -> usize {
        self.data_at() + self.data()
    }

    /// Words of the whole record.
    pub(super) fn words(self) -> usize {
        (self.signature_at() + self.signature()).div_ceil(WORD)
    }
}

/// The issuer in word 0.
pub(super) const fn issuer(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Words as octets. Those of a record with an RSA-4096 signature take no heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(SmallVec<[u8; 592]>);

impl Words {
    pub(super) fn read(count: usize, words: impl Iterator<Item = u64>) -> Self {
        let mut octets = SmallVec::from_elem(0, count * WORD);
        for (place, word) in octets.chunks_exact_mut(WORD).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Self(octets)
    }

    /// Of these octets, with zeros up to a whole word.
    pub(super) fn of(mut octets: SmallVec<[u8; 592]>) -> Self {
        octets.resize(octets.len().next_multiple_of(WORD), 0);
        Self(octets)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = u64> {
        (0..self.0.len() / WORD).map(|number| self.word(number))
    }

    pub(super) fn word(&self, number: usize) -> u64 {
        self.0[number * WORD..].first_chunk().map_or(0, |octets| u64::from_le_bytes(*octets))
    }

    pub(super) fn u32_at(&self, at: usize) -> u32 {
        self.0[at..].first_chunk().map_or(0, |octets| u32::from_le_bytes(*octets))
    }

    /// What word 1 says.
    pub(super) fn header(&self) -> Header {
        Header::of(self.word(1))
    }

    /// thisUpdate, in word 2; the record of a certificate in a pack has none.
    pub(super) fn this_update(&self) -> UnixTime {
        long(self.u32_at(2 * WORD))
    }

    /// nextUpdate, in word 2.
    pub(super) fn next_update(&self) -> UnixTime {
        long(self.u32_at(2 * WORD + 4))
    }

    /// So many octets from a place on; nothing where there are fewer.
    pub(super) fn octets(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    /// The content of the signature BIT STRING, from how it is kept.
    pub(super) fn signature(&self, at: usize, length: usize) -> SmallVec<[u8; 512]> {
        let octets = self.octets(at, length);
        if self.header().has(PLAIN_ECDSA) { ecdsa::der(octets) } else { SmallVec::from_slice(octets) }
    }
}

/// A certificate.
#[derive(Clone, Debug)]
pub(super) struct Record(Words);

impl Record {
    /// From its words.
    pub(super) fn read(count: usize, words: impl Iterator<Item = u64>) -> Self {
        Self(Words::read(count, words))
    }

    pub(super) fn issuer(&self) -> u32 {
        issuer(self.0.word(0))
    }

    pub(super) fn version(&self) -> u32 {
        self.0.u32_at(4)
    }

    pub(super) fn has_answer(&self) -> bool {
        self.0.header().has(ANSWER)
    }

    pub(super) fn template(&self) -> u16 {
        self.0.header().template
    }

    /// thisUpdate and nextUpdate of the answer, if it has one of its own.
    pub(super) fn times(&self) -> Option<(UnixTime, UnixTime)> {
        let own = self.has_answer() && self.pack().is_none();
        own.then(|| (self.0.this_update(), self.0.next_update()))
    }

    pub(super) fn not_after(&self) -> UnixTime {
        long(self.0.u32_at(self.0.header().fixed() - WORD + 4))
    }

    /// The content octets of the serial number.
    pub(super) fn serial(&self) -> &[u8] {
        let header = self.0.header();
        self.0.octets(header.fixed(), header.serial())
    }

    pub(super) fn revocation(&self) -> Option<Revocation> {
        let header = self.0.header();
        header.has(REVOKED).then(|| Revocation {
            time: long(self.0.u32_at(header.data_at() - 4)),
            reason: Some(header.flags >> 4).filter(|code| *code != NO_REASON).and_then(CrlReason::from_code),
        })
    }

    /// A ResponseData that was kept whole; empty for one that a template writes.
    pub(super) fn whole_data(&self) -> &[u8] {
        let header = self.0.header();
        self.0.octets(header.data_at(), header.data())
    }

    /// The content of the signature BIT STRING.
    pub(super) fn signature(&self) -> SmallVec<[u8; 512]> {
        let header = self.0.header();
        self.0.signature(header.signature_at(), header.signature())
    }

    /// The certificate that it is the record of.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { serial: self.serial(), revocation: self.revocation() }
    }

    /// Where its pack stands.
    pub(super) fn pack(&self) -> Option<PackPlace> {
        self.0.header().pack()
    }

    /// When a newer answer is planned.
    pub(super) fn renewed_at(&self) -> UnixTime {
        long(self.0.u32_at(self.0.header().fixed() - WORD))
    }

    /// The certificate, without its answer.
    pub(super) fn slot(&self) -> Slot {
        let header = self.0.header();
        Slot {
            version: i64::from(self.version()),
            not_before: header.has(NOT_BEFORE).then(|| long(self.0.u32_at(header.fixed() + header.serial()))),
            not_after: self.not_after(),
            revocation: self.revocation(),
            answer: None,
        }
    }

    /// The OCSPResponse in DER; of a packed one the pack has it.
    pub(super) fn response(&self, template: &Template) -> Vec<u8> {
        template.response(&self.statement(&[self.subject()]), self.whole_data(), &self.signature())
    }

    /// The ResponseData in DER.
    pub(super) fn write_data(&self, template: &Template, out: &mut Vec<u8>) {
        template.write_data(&self.statement(&[self.subject()]), self.whole_data(), out);
    }

    fn statement<'a>(&self, subjects: &'a [Subject<'a>]) -> Statement<'a> {
        Statement { this_update: self.0.this_update(), next_update: self.0.next_update(), subjects }
    }

    /// Packs a certificate. Its answer is left to a template where one writes exactly those octets, or to
    /// the record of the pack that stands at `pack` with that template.
    pub(super) fn of(
        issuer: u32,
        serial: &Serial,
        entry: &Entry<'_>,
        templates: &Templates,
        pack: Option<(PackPlace, u16)>,
    ) -> Self {
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
        if let (Some(_), Some((place, template))) = (answer, pack) {
            header.flags |= ANSWER;
            header.serial |= PACKED;
            (header.data, header.signature) = ((place.0 >> 16) as u16, place.0 as u16);
            header.template = template;
            octets.drain(2 * WORD..3 * WORD);
        } else if let Some(answer) = answer {
            header.flags |= ANSWER;
            let plain = plain_ecdsa(answer.frame.algorithm, answer.signature);
            let signature = plain.as_deref().unwrap_or(answer.signature);
            header.flags |= if plain.is_some() { PLAIN_ECDSA } else { 0 };
            // Bounded by what a token signs: a few hundred octets.
            header.signature = signature.len() as u16;
            let subject = Subject { serial: serial.as_der_content(), revocation: entry.revocation };
            let statement = Statement {
                this_update: long(short(answer.this_update)),
                next_update: long(short(answer.next_update)),
                subjects: &[subject],
            };
            let (template, is_whole) = templates.fit(issuer, answer, &statement);
            header.template = template;
            if is_whole {
                header.data = answer.response_data.len() as u16;
                octets.extend_from_slice(answer.response_data);
            }
            octets.extend_from_slice(signature);
        }
        octets[WORD..2 * WORD].copy_from_slice(&header.octets());
        Self(Words::of(octets))
    }

    /// Its words.
    pub(super) fn words(&self) -> impl ExactSizeIterator<Item = u64> {
        self.0.iter()
    }
}
