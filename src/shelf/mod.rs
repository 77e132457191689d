//! The answers in memory that the endpoint serves from.
//!
//! Every unexpired certificate has a slot, with or without an answer: that is how a certificate
//! whose first answer is still to be signed is told from a serial number that was never issued.
//!
//! What is the same for every answer of a responder (who signs, the CertIDs' algorithms and hashes, the
//! octets around) stands once in a template; a slot holds what differs, packed into words
//! (`record`) in one of 256 parts (`part`). The answer is written out when it is served, octet for
//! octet as it was signed: [`Shelf::put`] keeps whole what does not come out so.
//!
//! Reads take no lock. Memory a certificate: its serial number and signature (an ECDSA signature as r‖s),
//! 32 octets of times and status, about 6 of index.

mod memory;
mod part;
mod record;
mod template;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::clock::UnixTime;
use crate::ocsp::{CertStatus, HashAlgorithm, Revocation, Serial, SignatureAlgorithm};
use crate::store::IssuerId;

use part::Part;
use record::Record;
use template::{Template, Templates};

/// What stands around the answers of one responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How it signs.
    pub algorithm: SignatureAlgorithm,
    /// Its certificate in DER, unless the CA itself signs.
    pub certificate: Option<Vec<u8>>,
}

/// A certificate to put on the shelf.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its version: a slot never goes back to an older one.
    pub version: i64,
    /// The start of its validity, where known.
    pub not_before: Option<UnixTime>,
    /// The last moment at which it is answered for: the end of its validity, or later where history
    /// is served.
    pub not_after: UnixTime,
    /// Its revocation, if it is revoked.
    pub revocation: Option<Revocation>,
    /// The answer for this version.
    pub answer: Option<SignedAnswer<'a>>,
}

/// An answer to put on the shelf.
#[derive(Clone, Debug)]
pub struct SignedAnswer<'a> {
    /// What stands around it.
    pub frame: Arc<Frame>,
    /// The ResponseData in DER, as signed.
    pub response_data: &'a [u8],
    /// The content of the signature BIT STRING (without the unused-bits octet).
    pub signature: &'a [u8],
    /// thisUpdate and producedAt.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// When a newer one is planned.
    pub renewed_at: UnixTime,
}

/// A certificate on the shelf.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its version.
    pub version: i64,
    /// The start of its validity, where known.
    pub not_before: Option<UnixTime>,
    /// The last moment at which it is answered for: the end of its validity, or later where history
    /// is served. One after 2106-02-07 reads as that day.
    pub not_after: UnixTime,
    /// Its revocation, if it is revoked.
    pub revocation: Option<Revocation>,
    /// The answer for this version.
    pub answer: Option<ShelfAnswer>,
}

impl Slot {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> CertStatus {
        self.revocation.map_or(CertStatus::Good, CertStatus::Revoked)
    }

    /// Whether the certificate is answered for at `now`: within its validity, and where history is
    /// served after it too (C17, C23, L7).
    #[must_use]
    pub fn is_in_force_at(&self, now: UnixTime) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now) && now <= self.not_after
    }
}

/// An answer on the shelf.
#[derive(Clone, Debug)]
pub struct ShelfAnswer {
    /// thisUpdate and producedAt.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// When a newer one is planned.
    pub renewed_at: UnixTime,
    template: Arc<Template>,
    record: Record,
}

impl ShelfAnswer {
    /// The OCSPResponse in DER.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.template.response(&self.record)
    }

    /// The ResponseData as signed.
    #[must_use]
    pub fn response_data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        self.template.write_data(&self.record, &mut data);
        data
    }

    /// Whether it has a CertID made with this hash, so that it answers such a question (C8).
    #[must_use]
    pub fn has_hash(&self, hash: HashAlgorithm) -> bool {
        self.template.has_hash(hash)
    }
}

const PARTS: usize = 256;

/// The shelf. Reads take no lock.
#[derive(Debug)]
pub struct Shelf {
    hasher: RandomState,
    parts: Box<[Part]>,
    templates: Templates,
    complete: AtomicBool,
    certificates: AtomicUsize,
    answers: AtomicUsize,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            templates: Templates::default(),
            complete: AtomicBool::default(),
            certificates: AtomicUsize::default(),
            answers: AtomicUsize::default(),
        }
    }
}

/// What changed when a certificate was put on the shelf or taken off: how many answers went and came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// What stood there stays.
    Refused,
    /// It is new.
    New,
    /// It stands in the place of another, with an answer or without.
    Replaced { answered: bool },
}

impl Shelf {
    /// An empty shelf, not complete yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn hash(&self, issuer: u32, serial: &[u8]) -> u64 {
        self.hasher.hash_one((issuer, serial))
    }

    fn part(&self, hash: u64) -> &Part {
        &self.parts[usize::from(hash.to_le_bytes()[0])]
    }

    /// The slot of a certificate.
    #[must_use]
    pub fn get(&self, issuer: IssuerId, serial: &Serial) -> Option<Slot> {
        let issuer = u32::try_from(issuer.0).ok()?;
        let serial = serial.as_der_content();
        let hash = self.hash(issuer, serial);
        let record = self.part(hash).get(hash, issuer, serial)?;
        let template = record.has_answer().then(|| self.templates.get(record.template()));
        Some(record.into_slot(template.flatten()))
    }

    /// Puts a certificate on the shelf, unless what stands there is of a later version, or of the
    /// same version with a newer answer. Returns whether it was put.
    pub fn put(&self, issuer: IssuerId, serial: Serial, entry: &Entry<'_>) -> bool {
        self.put_at(issuer, serial, entry, UnixTime::MAX)
    }

    /// As [`Shelf::put`], but an answer that lies after `now` gives way: it was made while the clock was
    /// ahead.
    pub fn put_at(&self, issuer: IssuerId, serial: Serial, entry: &Entry<'_>, now: UnixTime) -> bool {
        let Ok(issuer_number) = u32::try_from(issuer.0) else {
            // Numbers are given one after the other by the store.
            tracing::error!(%issuer, "an issuer's number is beyond what the shelf holds");
            return false;
        };
        let content = serial.as_der_content();
        let hash = self.hash(issuer_number, content);
        let record = Record::pack(issuer_number, &serial, entry, &self.templates);
        let gives_way = |old: &Record| !record.is_older_than(old, now);
        let again = |issuer: u32, serial: &[u8]| self.hash(issuer, serial);
        let answered = record.has_answer();
        let before = match self.part(hash).put(hash, &record, gives_way, again) {
            Put::Refused => return false,
            Put::New => {
                self.certificates.fetch_add(1, Ordering::Relaxed);
                false
            }
            Put::Replaced { answered } => answered,
        };
        if answered && !before {
            self.answers.fetch_add(1, Ordering::Relaxed);
        } else if before && !answered {
            self.answers.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Takes certificates off that have expired by `now`. Returns how many of the answers that stay
    /// have passed nextUpdate, so that they are not served.
    pub fn sweep(&self, now: UnixTime) -> usize {
        let mut late = 0;
        for part in &self.parts {
            let swept = part.sweep(now);
            self.certificates.fetch_sub(swept.certificates, Ordering::Relaxed);
            self.answers.fetch_sub(swept.answers, Ordering::Relaxed);
            late += swept.late;
        }
        late
    }

    /// Certificates on the shelf.
    #[must_use]
    pub fn certificates(&self) -> usize {
        self.certificates.load(Ordering::Relaxed)
    }

    /// Certificates on the shelf that have an answer.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Octets of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.parts.iter().map(Part::memory).sum()
    }

    /// Whether everything that the store holds was put here, so that what is missing is on no
    /// record.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Says that it is complete from now on.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }
}
