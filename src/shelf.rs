//! The answers in memory that the endpoint serves from.
//!
//! Every unexpired certificate has a slot, with or without an answer: that is how a certificate
//! whose first answer is still to be signed is told from a serial number that was never issued. A
//! slot holds what was signed; the octets around it are the same for every answer of a responder
//! and are put back when the answer is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use papaya::{Compute, HashMap, Operation};

use crate::clock::UnixTime;
use crate::ocsp::{CertStatus, HashAlgorithm, Revocation, Serial, SignatureAlgorithm, response};
use crate::store::IssuerId;

/// What stands around the answers of one responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How it signs.
    pub algorithm: SignatureAlgorithm,
    /// Its certificate in DER, unless the CA itself signs.
    pub certificate: Option<Vec<u8>>,
}

/// A certificate on the shelf.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its version: a slot never goes back to an older one.
    pub version: i64,
    /// The start of its validity, where known.
    pub not_before: Option<UnixTime>,
    /// The end of its validity.
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

    /// Whether `now` lies in the certificate's validity: only then is there an authoritative answer
    /// (C17, L7).
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
    /// SHA-256 of the whole OCSPResponse.
    pub digest: [u8; 32],
    frame: Arc<Frame>,
    /// One bit a hash that a CertID in it is made with.
    hashes: u8,
    /// ResponseData and signature, one behind the other.
    octets: Box<[u8]>,
    data_length: u32,
}

impl ShelfAnswer {
    /// An answer from what was signed; `renewed_at` is when the next one is planned.
    #[must_use]
    pub fn new(
        frame: Arc<Frame>,
        response_data: &[u8],
        signature: &[u8],
        [this_update, next_update, renewed_at]: [UnixTime; 3],
    ) -> Self {
        let octets = [response_data, signature].concat().into_boxed_slice();
        let hashes = response::cert_id_hashes(response_data).fold(0, |bits, hash| bits | 1 << hash as u8);
        // A ResponseData is at most some kilobytes, whatever it answers.
        let data_length = response_data.len() as u32;
        let mut answer = Self {
            this_update,
            next_update,
            renewed_at,
            digest: [0; 32],
            frame,
            hashes,
            octets,
            data_length,
        };
        let digest = HashAlgorithm::Sha256.digest(&answer.body());
        answer.digest.copy_from_slice(&digest);
        answer
    }

    /// The OCSPResponse in DER.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let (data, signature) = self.octets.split_at(self.data_length as usize);
        response::assemble(data, self.frame.algorithm, signature, self.frame.certificate.as_deref())
    }

    /// Whether it has a CertID made with this hash, so that it answers such a question (C8).
    #[must_use]
    pub const fn has_hash(&self, hash: HashAlgorithm) -> bool {
        self.hashes & 1 << hash as u8 != 0
    }

    /// The ResponseData as signed.
    #[must_use]
    pub fn response_data(&self) -> &[u8] {
        &self.octets[..self.data_length as usize]
    }
}

/// The shelf. Reads take no lock.
#[derive(Debug, Default)]
pub struct Shelf {
    slots: HashMap<(IssuerId, Serial), Arc<Slot>>,
    complete: AtomicBool,
    answers: AtomicUsize,
}

impl Shelf {
    /// An empty shelf, not complete yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot of a certificate.
    #[must_use]
    pub fn get(&self, issuer: IssuerId, serial: &Serial) -> Option<Arc<Slot>> {
        self.slots.pin().get(&(issuer, *serial)).map(Arc::clone)
    }

    /// Puts a certificate on the shelf, unless what stands there is of a later version, or of the
    /// same version with a newer answer. Returns whether it was put.
    pub fn put(&self, issuer: IssuerId, serial: Serial, slot: Slot) -> bool {
        self.put_at(issuer, serial, slot, UnixTime::MAX)
    }

    /// As [`Shelf::put`], but an answer that lies after `now` gives way: it was made while the clock was
    /// ahead.
    pub fn put_at(&self, issuer: IssuerId, serial: Serial, slot: Slot, now: UnixTime) -> bool {
        let slot = Arc::new(slot);
        let slots = self.slots.pin();
        let result = slots.compute((issuer, serial), |present| match present {
            Some((_, present)) if !supersedes(&slot, present, now) => Operation::Abort(()),
            _ => Operation::Insert(Arc::clone(&slot)),
        });
        let before = match result {
            Compute::Inserted(..) => 0,
            Compute::Updated { old: (_, old), .. } => usize::from(old.answer.is_some()),
            Compute::Removed(..) | Compute::Aborted(()) => return false,
        };
        let after = usize::from(slot.answer.is_some());
        if after > before {
            self.answers.fetch_add(1, Ordering::Relaxed);
        } else if before > after {
            self.answers.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Takes certificates off that have expired by `now`. Returns how many of the answers that stay
    /// have passed nextUpdate, so that they are not served.
    pub fn sweep(&self, now: UnixTime) -> usize {
        let slots = self.slots.pin();
        let mut expired = 0;
        for (key, slot) in &slots {
            if slot.not_after < now
                && let Some((_, old)) = slots.remove_entry(key)
            {
                if old.answer.is_some() {
                    self.answers.fetch_sub(1, Ordering::Relaxed);
                }
            } else if slot.answer.as_ref().is_some_and(|answer| answer.next_update < now) {
                expired += 1;
            }
        }
        expired
    }

    /// Certificates on the shelf.
    #[must_use]
    pub fn certificates(&self) -> usize {
        self.slots.pin().len()
    }

    /// Certificates on the shelf that have an answer.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
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

fn supersedes(new: &Slot, old: &Slot, now: UnixTime) -> bool {
    let made = |slot: &Slot| slot.answer.as_ref().map(|answer| answer.this_update);
    let from_the_future = made(old).is_some_and(|made| made > now);
    (new.version, made(new)) >= (old.version, made(old)) || new.version == old.version && from_the_future
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(version: i64, this_update: Option<i64>) -> Slot {
        let frame = Arc::new(Frame { algorithm: SignatureAlgorithm::Ed25519, certificate: None });
        let answer = this_update.map(|at| {
            ShelfAnswer::new(
                frame,
                &[0x30, 0],
                &[7; 64],
                [UnixTime(at), UnixTime(at + 100), UnixTime(at + 50)],
            )
        });
        Slot { version, not_before: None, not_after: UnixTime(1_000), revocation: None, answer }
    }

    #[test]
    fn an_older_version_or_answer_never_comes_back() {
        let shelf = Shelf::new();
        let (issuer, serial) = (IssuerId(1), "01".parse().unwrap());
        let put = |slot| shelf.put(issuer, serial, slot);
        assert!(put(slot(1, None)));
        assert!(put(slot(1, Some(10))));
        assert!(!put(slot(1, None)), "an answer is not taken away");
        assert!(!put(slot(1, Some(9))), "an older answer does not replace a newer one");
        assert!(put(slot(2, None)), "a revocation takes the old answer away at once");
        assert_eq!(shelf.answers(), 0);
        assert!(!put(slot(1, Some(99))), "an answer for the old version comes too late");
        assert!(put(slot(2, Some(20))));
        assert_eq!((shelf.certificates(), shelf.answers()), (1, 1));
    }

    #[test]
    fn an_answer_from_the_future_gives_way() {
        let shelf = Shelf::new();
        let (issuer, serial) = (IssuerId(1), "01".parse().unwrap());
        assert!(shelf.put_at(issuer, serial, slot(2, Some(900)), UnixTime(900)));
        assert!(!shelf.put_at(issuer, serial, slot(2, Some(20)), UnixTime(900)));
        assert!(shelf.put_at(issuer, serial, slot(2, Some(20)), UnixTime(21)), "the clock was set back");
        assert!(!shelf.put_at(issuer, serial, slot(1, Some(30)), UnixTime(31)), "never an older version");
    }

    #[test]
    fn expired_certificates_are_swept_off() {
        let shelf = Shelf::new();
        for number in 0..100u8 {
            let mut slot = slot(1, Some(1));
            slot.not_after = UnixTime(i64::from(number));
            shelf.put(IssuerId(1), Serial::from_unsigned(&[number]).unwrap(), slot);
        }
        assert_eq!(shelf.sweep(UnixTime(40)), 0, "their answers last until 101");
        assert_eq!((shelf.certificates(), shelf.answers()), (60, 60));
        assert!(shelf.get(IssuerId(1), &"28".parse().unwrap()).is_some());
        assert!(shelf.get(IssuerId(1), &"27".parse().unwrap()).is_none());
        let mut lasting = slot(1, Some(1));
        lasting.not_after = UnixTime(1_000);
        shelf.put(IssuerId(1), "7777".parse().unwrap(), lasting);
        assert_eq!(shelf.sweep(UnixTime(102)), 1, "an answer past nextUpdate is counted");
        assert_eq!(shelf.certificates(), 1);
    }
}
