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
//! An answer for several certificates (a pack) is kept once, and goes with the last of them (`pack`).
//!
//! Reads take no lock. Memory a certificate: its serial number and signature (an ECDSA signature as r‖s),
//! 32 octets of times and status, about 6 of index.

mod memory;
mod pack;
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

use pack::{OpenPacks, Opened, Pack, PackPlace};
use part::Part;
use record::{Record, long, short};
use template::{Subject, Template, Templates};

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
    /// The number of its pack in the store, if it answers for other certificates too.
    pub pack: Option<i64>,
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
    source: Source,
}

/// What an answer is written out from.
#[derive(Clone, Debug)]
enum Source {
    Record(Record),
    Pack(Pack),
}

impl ShelfAnswer {
    /// The OCSPResponse in DER.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        match &self.source {
            Source::Record(record) => record.response(&self.template),
            Source::Pack(pack) => pack.response(&self.template),
        }
    }

    /// The ResponseData as signed.
    #[must_use]
    pub fn response_data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        match &self.source {
            Source::Record(record) => record.write_data(&self.template, &mut data),
            Source::Pack(pack) => pack.write_data(&self.template, &mut data),
        }
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
    packs: OpenPacks,
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
            packs: OpenPacks::default(),
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
    Replaced { answered: bool, pack: Option<PackPlace> },
}

/// Looks at a pack whose place is given up meanwhile, until another thread's mistake must be assumed.
const LOOKS: usize = 64;

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
        let part = self.part(hash);
        let mut record = part.get(hash, issuer, serial)?;
        let mut slot = record.slot();
        for _ in 0..LOOKS {
            if !record.has_answer() {
                break;
            }
            let renewed_at = record.renewed_at();
            let answer = match (record.pack(), record.times()) {
                (Some(place), _) => {
                    let Some(pack) = self.pack(place).filter(|pack| pack.speaks_of(&record.subject())) else {
                        // The certificate has another answer meanwhile.
                        record = part.get(hash, issuer, serial)?;
                        slot = record.slot();
                        continue;
                    };
                    let (this_update, next_update) = (pack.this_update(), pack.next_update());
                    self.templates.get(pack.template()).map(|template| {
                        let source = Source::Pack(pack);
                        ShelfAnswer { this_update, next_update, renewed_at, template, source }
                    })
                }
                (None, Some((this_update, next_update))) => {
                    self.templates.get(record.template()).map(|template| {
                        let source = Source::Record(record);
                        ShelfAnswer { this_update, next_update, renewed_at, template, source }
                    })
                }
                (None, None) => None,
            };
            slot.answer = answer;
            break;
        }
        Some(slot)
    }

    /// Whether an answer made then, or none, must not be put in the place of a record at `now`: that is of
    /// a later version, or of the same one with a later answer, unless that answer lies in the future.
    fn is_older(&self, version: u32, made: Option<UnixTime>, old: &Record, now: UnixTime) -> bool {
        let before = match old.pack() {
            Some(place) => self.pack(place).map(|pack| pack.this_update()),
            None => old.times().map(|(this_update, _)| this_update),
        };
        let from_the_future = version == old.version() && before.is_some_and(|before| before > now);
        !from_the_future && (version, made) < (old.version(), before)
    }

    fn pack(&self, place: PackPlace) -> Option<Pack> {
        self.parts[place.part()].pack(place.place())
    }

    fn release(&self, place: PackPlace) {
        self.parts[place.part()].release_pack(place.place());
    }

    /// Where the pack of an answer stands, and its template: a certificate's record will name it. None for
    /// an answer that is no pack, or cannot be kept as one.
    fn retain(
        &self,
        issuer: u32,
        hash: u64,
        subject: &Subject<'_>,
        answer: &SignedAnswer<'_>,
    ) -> Option<(PackPlace, u16)> {
        let number = answer.pack?;
        let is_kept = |place: PackPlace| {
            let is = |pack: &Pack| pack.is(answer) && pack.speaks_of(subject);
            self.parts[place.part()].retain_pack(place.place(), is)
        };
        // Shelved once more.
        if let Some(record) = self.part(hash).get(hash, issuer, subject.serial)
            && let Some(place) = record.pack().filter(|place| is_kept(*place))
        {
            return Some((place, record.template()));
        }
        let mut open = self.packs.lock();
        if let Some(opened) = open.get_mut(&number)
            && is_kept(opened.place)
        {
            let Opened { place, template, .. } = *opened;
            opened.left = opened.left.saturating_sub(1);
            if opened.left == 0 {
                open.remove(&number);
            }
            return Some((place, template));
        }
        let pack = Pack::of(issuer, answer, &self.templates).filter(|pack| pack.speaks_of(subject))?;
        let part = number.to_le_bytes()[0];
        let place = PackPlace::new(part, self.parts[usize::from(part)].put_pack(&pack)?);
        let left = pack.certificates() - 1;
        open.insert(number, Opened { place, template: pack.template(), left });
        Some((place, pack.template()))
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
        let pack = entry.answer.as_ref();
        // As the record and the pack hold it: in seconds that fit into 32 bits.
        let revocation = entry
            .revocation
            .map(|revocation| Revocation { time: long(short(revocation.time)), ..revocation });
        let subject = Subject { serial: content, revocation };
        let pack = pack.and_then(|answer| self.retain(issuer_number, hash, &subject, answer));
        let record = Record::of(issuer_number, &serial, entry, &self.templates, pack);
        let made = entry.answer.as_ref().map(|answer| long(short(answer.this_update)));
        let gives_way = |old: &Record| !self.is_older(record.version(), made, old, now);
        let again = |issuer: u32, serial: &[u8]| self.hash(issuer, serial);
        let answered = record.has_answer();
        let before = match self.part(hash).put(hash, &record, gives_way, again) {
            Put::Refused => {
                if let Some((place, _)) = pack {
                    self.release(place);
                }
                return false;
            }
            Put::New => {
                self.certificates.fetch_add(1, Ordering::Relaxed);
                false
            }
            Put::Replaced { answered, pack } => {
                if let Some(place) = pack {
                    self.release(place);
                }
                answered
            }
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
            let swept = part.sweep(now, |place| self.pack(place).map(|pack| pack.next_update()));
            self.certificates.fetch_sub(swept.certificates, Ordering::Relaxed);
            self.answers.fetch_sub(swept.answers, Ordering::Relaxed);
            late += swept.late;
            swept.packs.into_iter().for_each(|place| self.release(place));
        }
        // Of some packs not every certificate comes.
        self.packs.lock().retain(|_, opened| self.pack(opened.place).is_some());
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
