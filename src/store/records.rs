//! What goes into the store and comes out of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::UnixTime;
use crate::ocsp::{CertStatus, Revocation, Serial};

/// An issuer's number in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId(pub i64);

/// A delegated responder certificate's number in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponderNumber(pub i64);

/// One of [`Shard::COUNT`] parts of the fleet: the unit of lease, scheduling and partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u8);

impl Shard {
    /// How many shards there are.
    pub const COUNT: usize = 256;

    /// The shard of a certificate.
    #[must_use]
    pub fn of(issuer: IssuerId, serial: &Serial) -> Self {
        Self(serial.scatter(issuer.0.cast_unsigned()).to_le_bytes()[0])
    }

    /// Every shard, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }
}

/// Where a certificate stands in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateKey {
    /// Its shard.
    pub shard: Shard,
    /// Its row, unique within the shard at least.
    pub row: i64,
}

/// A certification authority whose certificates are kept in good standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRecord {
    /// Its number.
    pub id: IssuerId,
    /// The operator's name for it.
    pub name: String,
    /// Its certificate in DER, as given.
    pub certificate: Vec<u8>,
}

/// A delegated responder certificate to install, and the key that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewResponder {
    /// The issuer that it answers for.
    pub issuer: IssuerId,
    /// The configured name of the token that holds the key.
    pub token: String,
    /// How the key is found in the token: CKA_LABEL, or `id:` and CKA_ID in hex.
    pub key: String,
    /// The name of the signature algorithm it signs with.
    pub algorithm: String,
    /// The delegated responder certificate in DER, as given.
    pub certificate: Vec<u8>,
    /// When that certificate ends.
    pub not_after: UnixTime,
    /// When it takes over from the issuer's other responders, where the operator chose a time.
    pub from: Option<UnixTime>,
}

/// An installed responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponderRecord {
    /// Its number; never used again for another certificate.
    pub number: ResponderNumber,
    /// What was installed.
    pub responder: NewResponder,
    /// When.
    pub installed_at: UnixTime,
    /// When it was taken out of use, if it was.
    pub retired_at: Option<UnixTime>,
}

/// What an import or a registration says of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEntry {
    /// Its serial number.
    pub serial: Serial,
    /// The start of its validity, where the source has it (`index.txt` does not).
    pub not_before: Option<UnixTime>,
    /// The end of its validity, inclusive (RFC 5280 section 4.1.2.5).
    pub not_after: UnixTime,
    /// Its revocation, if it is revoked.
    pub revocation: Option<Revocation>,
}

/// A certificate as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Where it stands.
    pub key: CertificateKey,
    /// Its issuer.
    pub issuer: IssuerId,
    /// Its serial number.
    pub serial: Serial,
    /// The start of its validity, where known.
    pub not_before: Option<UnixTime>,
    /// The end of its validity.
    pub not_after: UnixTime,
    /// Its revocation, if it is revoked.
    pub revocation: Option<Revocation>,
    /// Rises with every change of status; starts at 1.
    pub version: i64,
}

impl CertificateRecord {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> CertStatus {
        self.revocation.map_or(CertStatus::Good, CertStatus::Revoked)
    }
}

/// A signed answer to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAnswer {
    /// The certificate it is for.
    pub key: CertificateKey,
    /// The certificate's version when its status was read for signing.
    pub version: i64,
    /// The responder whose key signed it.
    pub responder: ResponderNumber,
    /// thisUpdate (and producedAt).
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// The ResponseData in DER, octet for octet as signed.
    pub response_data: Bytes,
    /// The content of the signature BIT STRING (without the unused-bits octet).
    pub signature: Bytes,
    /// Whether it answers for other certificates too: with those of the same call that have the same
    /// signature it is a pack, whose octets are kept once.
    pub packed: bool,
}

/// A pack's number in this store; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(pub i64);

/// The pack that an answer is: several certificates' statuses under one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InPack {
    /// Its number.
    pub number: PackNumber,
    /// Whether the status of one of its certificates has changed since: those that are left in it are to
    /// get other answers.
    pub broken: bool,
}

/// The answer the store keeps for a certificate: the newest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The certificate's version that it was signed for.
    pub version: i64,
    /// The responder whose key signed it.
    pub responder: ResponderNumber,
    /// thisUpdate (and producedAt).
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// The ResponseData in DER, octet for octet as signed.
    pub response_data: Bytes,
    /// The content of the signature BIT STRING (without the unused-bits octet).
    pub signature: Bytes,
    /// The pack that it is, if it answers for other certificates too.
    pub pack: Option<InPack>,
}

impl StoredAnswer {
    /// What scheduling needs of it.
    #[must_use]
    pub fn times(&self) -> AnswerTimes {
        AnswerTimes {
            this_update: self.this_update,
            next_update: self.next_update,
            responder: self.responder,
            broken: self.pack.is_some_and(|pack| pack.broken),
        }
    }
}

/// A certificate with the answer stored for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateState {
    /// The certificate.
    pub certificate: CertificateRecord,
    /// Its newest answer; its version may be older than the certificate's, then it must not be
    /// served.
    pub answer: Option<StoredAnswer>,
}

/// What signing needs of a certificate, without the octets of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCertificate {
    /// The certificate.
    pub certificate: CertificateRecord,
    /// Its answer; none when it has no answer for its present version.
    pub answer: Option<AnswerTimes>,
}

/// What scheduling needs of a certificate, without the octets of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// Where it stands.
    pub key: CertificateKey,
    /// Its issuer.
    pub issuer: IssuerId,
    /// Its serial number.
    pub serial: Serial,
    /// The start of its validity, where known.
    pub not_before: Option<UnixTime>,
    /// The end of its validity.
    pub not_after: UnixTime,
    /// thisUpdate and nextUpdate of its answer; none when it has no answer for its present version.
    pub answer: Option<AnswerTimes>,
}

/// When a current answer was made and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTimes {
    /// thisUpdate.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
    /// The responder that signed it.
    pub responder: ResponderNumber,
    /// Whether it is a pack in which the status of another certificate has changed since.
    pub broken: bool,
}

/// What became of the rows of a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Certificates that were not there before.
    pub added: u64,
    /// Certificates that were there and learnt something (a revocation, a validity).
    pub changed: u64,
    /// Certificates that were there just so.
    pub unchanged: u64,
}

impl std::ops::AddAssign for Registered {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
    }
}

/// What became of a change of status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// The status changed; the certificate as it is now.
    Changed(CertificateRecord),
    /// It already had that status; the certificate as it is.
    Unchanged(CertificateRecord),
    /// It is revoked for good, and otherwise than asked, or removeFromCRL was asked, which is no
    /// revocation; the certificate as it is.
    Refused(CertificateRecord),
    /// There is no such certificate.
    NotFound,
}

/// What became of an answer handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerOutcome {
    /// It is the certificate's answer now.
    Stored,
    /// It is the certificate's answer now, and a pack.
    Packed(InPack),
    /// The certificate's version has risen, or a newer answer is there: this one was dropped.
    Superseded,
}

/// A place in the feed of changes. Starts at what [`Store::feed_position`](super::Store::feed_position) returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedPosition(pub i64);

/// News from the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Certificates whose status or answer changed, in no order, possibly repeated.
    pub keys: Vec<CertificateKey>,
    /// Whether issuers or responders changed.
    pub registry: bool,
    /// Where to go on from.
    pub position: FeedPosition,
    /// The position asked for had been pruned: everything may have changed.
    pub gap: bool,
}

/// Signatures a second that a token carried, as `hsm bench` measured it.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityProfile {
    /// The configured name of the token.
    pub token: String,
    /// The signature algorithm and key size, for example `rsa-2048`.
    pub algorithm: String,
    /// Sessions used at once.
    pub sessions: u32,
    /// Signatures a second through the pool.
    pub rate: f64,
    /// Signatures a second of the same sessions without the pool.
    pub raw_rate: f64,
    /// Median time of one signature.
    pub p50: Duration,
    /// 99th percentile of the time of one signature.
    pub p99: Duration,
    /// When it was measured.
    pub measured_at: UnixTime,
}

/// Unexpired certificates that are alike to the capacity guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetDay {
    /// Their issuer.
    pub issuer: IssuerId,
    /// Days from notBefore to notAfter, rounded; none where notBefore is not known.
    pub lifetime: Option<u32>,
    /// The day that they end on, counted from 1970-01-01 UTC.
    pub ends: i64,
    /// Whether they are revoked.
    pub revoked: bool,
    /// How many.
    pub certificates: u64,
}

/// What the capacity guard knows, across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRecord {
    /// When it was written.
    pub at: UnixTime,
    /// What it says: a document of the guard's own.
    pub document: String,
}

/// How an issuer's fleet stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Unexpired certificates, revoked ones included.
    pub unexpired: u64,
    /// Unexpired and revoked.
    pub revoked: u64,
    /// Expired ones still on record.
    pub expired: u64,
    /// Unexpired with an answer for the present version that has not reached nextUpdate.
    pub answered: u64,
}

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
