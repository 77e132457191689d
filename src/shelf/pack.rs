//! An answer for several certificates under one signature, kept once; its certificates' records name its
//! place.
//!
//! ```text
//! word 0   certificates whose records name it (32) · certificates in it (32)
//! word 1   as in a certificate's record, with [`MARK`] for the length of the serial
//! word 2   nextUpdate (32) · thisUpdate (32)
//! word 3   octets of the list (32)
//! octets   list · ResponseData, if kept whole · signature
//! list     for each certificate: length of its serial, and whether it is revoked in the highest bit (8) ·
//!          reason (8) · serial · revocation time (32, if revoked)
//! ```
//! A place that was given up may hold something else by the time that it is read: what is read there is
//! believed only if it speaks of the certificate that was asked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::SignedAnswer;
use super::record::{ANSWER, FIXED, Header, NO_REASON, PLAIN_ECDSA, WORD, Words, long, plain_ecdsa, short};
use super::template::{Statement, Subject, Template, Templates, subjects};
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation};

/// In the place of a serial's length; no serial is as long.
const MARK: u8 = 127;
const REVOKED: u8 = 0x80;
/// Octets of the longest list.
const LONGEST: usize = 0xffff;

/// Where a pack stands: the part in the highest eight bits, the place in it in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackPlace(pub(super) u32);

impl PackPlace {
    pub(super) const fn new(part: u8, place: u32) -> Self {
        Self((part as u32) << 24 | place)
    }

    pub(super) const fn part(self) -> usize {
        (self.0 >> 24) as usize
    }

    pub(super) const fn place(self) -> u32 {
        self.0 & 0x00ff_ffff
    }
}

/// A pack as octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pack(Words);

impl Pack {
    /// How many words a pack has, by its words 1 and 3; none where they are no pack's.
    pub(super) fn length(second: u64, fourth: u64) -> Option<usize> {
        let header = Header::of(second);
        let list = (fourth & u64::from(u32::MAX)) as usize;
        let octets = FIXED + list + usize::from(header.data) + usize::from(header.signature);
        // A read during a change may find anything.
        (header.serial == MARK && list <= LONGEST).then(|| octets.div_ceil(WORD))
    }

    /// From its words.
    pub(super) fn read(count: usize, words: impl Iterator<Item = u64>) -> Self {
        Self(Words::read(count, words))
    }

    /// Packs an answer for several certificates, one of which names it; none for one that says more of
    /// them, or otherwise, than fits here.
    pub(super) fn of(issuer: u32, answer: &SignedAnswer<'_>, templates: &Templates) -> Option<Self> {
        let subjects = subjects(answer.response_data).filter(|subjects| subjects.len() > 1)?;
        let statement = Statement {
            this_update: long(short(answer.this_update)),
            next_update: long(short(answer.next_update)),
            subjects: &subjects,
        };
        let mut list = SmallVec::<[u8; 256]>::new();
        for Subject { serial, revocation } in &subjects {
            let length = u8::try_from(serial.len()).ok().filter(|length| *length < MARK)?;
            let reason =
                revocation.and_then(|revocation| revocation.reason).map_or(NO_REASON, CrlReason::code);
            list.extend_from_slice(&[length | if revocation.is_some() { REVOKED } else { 0 }, reason]);
            list.extend_from_slice(serial);
            if let Some(revocation) = revocation {
                list.extend_from_slice(&short(revocation.time).to_le_bytes());
            }
        }
        if list.len() > LONGEST {
            return None;
        }
        let plain = plain_ecdsa(answer.frame.algorithm, answer.signature);
        let signature = plain.as_deref().unwrap_or(answer.signature);
        let (template, is_whole) = templates.fit(issuer, answer, &statement);
        let whole = if is_whole { answer.response_data } else { &[] };
        let header = Header {
            template,
            data: u16::try_from(whole.len()).ok()?,
            signature: u16::try_from(signature.len()).ok()?,
            serial: MARK,
            flags: ANSWER | if plain.is_some() { PLAIN_ECDSA } else { 0 },
        };
        let half = |number: usize| u32::try_from(number).map(u32::to_le_bytes).ok();
        let mut octets = SmallVec::<[u8; 592]>::new();
        octets.extend_from_slice(&1u32.to_le_bytes());
        octets.extend_from_slice(&half(subjects.len())?);
        octets.extend_from_slice(&header.octets());
        octets.extend_from_slice(&short(answer.this_update).to_le_bytes());
        octets.extend_from_slice(&short(answer.next_update).to_le_bytes());
        octets.extend_from_slice(&half(list.len())?);
        octets.extend_from_slice(&[0; 4]);
        for part in [&list, whole, signature] {
            octets.extend_from_slice(part);
        }
        Some(Self(Words::of(octets)))
    }

    /// Its words.
    pub(super) fn words(&self) -> impl ExactSizeIterator<Item = u64> {
        self.0.iter()
    }

    /// Certificates in it.
    pub(super) fn certificates(&self) -> u32 {
        self.0.u32_at(4)
    }

    pub(super) fn template(&self) -> u16 {
        self.0.header().template
    }

    pub(super) fn this_update(&self) -> UnixTime {
        self.0.this_update()
    }

    pub(super) fn next_update(&self) -> UnixTime {
        self.0.next_update()
    }

    fn list(&self) -> &[u8] {
        self.0.octets(FIXED, self.0.u32_at(3 * WORD) as usize)
    }

    fn subjects(&self) -> SmallVec<[Subject<'_>; 8]> {
        let mut found = SmallVec::new();
        let mut rest = self.list();
        while let Some(([length, reason], after)) = rest.split_first_chunk()
            && let Some((serial, mut after)) = after.split_at_checked(usize::from(length & !REVOKED))
        {
            let mut revocation = None;
            if length & REVOKED != 0
                && let Some((time, next)) = after.split_first_chunk()
            {
                let reason = Some(*reason).filter(|code| *code != NO_REASON).and_then(CrlReason::from_code);
                revocation = Some(Revocation { time: long(u32::from_le_bytes(*time)), reason });
                after = next;
            }
            found.push(Subject { serial, revocation });
            rest = after;
        }
        found
    }

    fn whole_data(&self) -> &[u8] {
        self.0.octets(FIXED + self.list().len(), usize::from(self.0.header().data))
    }

    fn signature(&self) -> SmallVec<[u8; 512]> {
        let header = self.0.header();
        let start = FIXED + self.list().len() + usize::from(header.data);
        self.0.signature(start, usize::from(header.signature))
    }

    /// Whether it tells this status of this certificate: then it is an answer for it.
    pub(super) fn speaks_of(&self, subject: &Subject<'_>) -> bool {
        // "unspecified" is left out of answers.
        let said = |revocation: Option<Revocation>| {
            revocation.map(|revocation| {
                let reason = revocation.reason.filter(|reason| *reason != CrlReason::Unspecified);
                Revocation { reason, ..revocation }
            })
        };
        let asked = said(subject.revocation);
        self.subjects().iter().any(|each| each.serial == subject.serial && said(each.revocation) == asked)
    }

    /// Whether it is this answer.
    pub(super) fn is(&self, answer: &SignedAnswer<'_>) -> bool {
        (self.this_update(), self.next_update())
            == (long(short(answer.this_update)), long(short(answer.next_update)))
            && self.signature()[..] == *answer.signature
    }

    /// The OCSPResponse in DER.
    pub(super) fn response(&self, template: &Template) -> Vec<u8> {
        let subjects = self.subjects();
        template.response(&self.statement(&subjects), self.whole_data(), &self.signature())
    }

    /// The ResponseData in DER.
    pub(super) fn write_data(&self, template: &Template, out: &mut Vec<u8>) {
        template.write_data(&self.statement(&self.subjects()), self.whole_data(), out);
    }

    fn statement<'a>(&self, subjects: &'a [Subject<'a>]) -> Statement<'a> {
        Statement { this_update: self.this_update(), next_update: self.next_update(), subjects }
    }
}

/// A pack of which not all certificates have come yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) place: PackPlace,
    pub(super) template: u16,
    /// How many certificates are still to come.
    pub(super) left: u32,
}

/// Where the packs stand of which not all certificates have come yet, by their number in the store.
#[derive(Debug, Default)]
pub(super) struct OpenPacks(Mutex<HashMap<i64, Opened>>);

impl OpenPacks {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<i64, Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
