//! The written contract of storage, and the engines that keep it.
//!
//! Everything that must survive a restart goes through [`Store`]. The contract is stated here once;
//! the suite in `contract.rs` proves it for every engine. Nothing in it belongs to one database.
//!
//! Rules that every engine keeps:
//! - A certificate is identified by issuer and serial. Its [`CertificateKey`] is given when it is
//!   registered and never changes; the shard is [`Shard::of`] issuer and serial.
//! - A certificate's version starts at 1 and rises in the transaction that changes its status. An
//!   answer carries the version it was signed for and is stored only while that version stands.
//! - A revocation is for good, except `certificateHold`.
//! - A pack is broken in the transaction that changes the status of one of its certificates, and it is
//!   kept as long as it is the answer of any.
//! - A call that returns `Ok` is durable; a call that returns an error has changed nothing.
//! - Whatever changes a certificate or its answer is announced in the feed ([`Store::changes`]) in
//!   the same transaction.
//! - What changes something writes a line into the audit log ([`audit::AuditLog`]) in the same
//!   transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::UnixTime;
use crate::ocsp::{Revocation, Serial};

pub mod audit;
#[cfg(test)]
mod contract;
mod error;
mod ledger;
mod records;
pub mod replies;
mod rules;
pub mod sqlite;

pub use error::StoreError;
pub use ledger::*;
pub use records::*;
pub use rules::{RevokeRule, may_revoke};

/// Where issuers, responders, certificates and answers are kept.
///
/// Lists may be of any length; an engine cuts them into the portions it likes, but each call is one
/// transaction.
#[async_trait]
pub trait Store: audit::AuditLog + replies::ReplyLog {
    /// The database's URL without credentials, for messages.
    fn url(&self) -> &str;

    /// Adds an issuer; the same name with the same certificate again is no change.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name stands for another certificate or the certificate has
    /// another name.
    async fn add_issuer(&self, name: &str, certificate: &[u8]) -> Result<IssuerRecord, StoreError>;

    /// Every issuer, by number.
    async fn issuers(&self) -> Result<Vec<IssuerRecord>, StoreError>;

    /// Installs a responder. The same issuer and certificate again keeps its number, the time it was
    /// installed and whether it is retired, and takes over token, key and, where one is given, the time
    /// it is used from; another algorithm is another responder.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such issuer.
    async fn add_responder(
        &self,
        responder: &NewResponder,
        now: UnixTime,
    ) -> Result<ResponderRecord, StoreError>;

    /// Takes a responder out of use at a time, or back into it with none. One that is out of use
    /// already keeps its time.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such responder.
    async fn retire_responder(
        &self,
        number: ResponderNumber,
        at: Option<UnixTime>,
    ) -> Result<ResponderRecord, StoreError>;

    /// Every responder ever installed, by number.
    async fn responders(&self) -> Result<Vec<ResponderRecord>, StoreError>;

    /// Registers certificates. One that is there already keeps what it has: a revocation is added
    /// where there was none (or a hold becomes one for good), never taken away or altered; a
    /// missing not_before is filled in; not_after follows the entry. A serial that is repeated
    /// within `entries` counts as registered one after the other. Only a change of the revocation
    /// raises the version; every change is announced.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such issuer.
    async fn register(
        &self,
        issuer: IssuerId,
        entries: &[CertificateEntry],
    ) -> Result<Registered, StoreError>;

    /// Revokes certificates; one outcome an entry, in order. A hold may be followed by a revocation
    /// for good. An unchanged outcome is one with the same time and reason, or a repeated hold
    /// (which keeps its first time). See [`may_revoke`].
    async fn revoke(
        &self,
        issuer: IssuerId,
        entries: &[(Serial, Revocation)],
    ) -> Result<Vec<StatusChange>, StoreError>;

    /// Takes back a certificateHold. Refused when it is revoked for another reason, unchanged when
    /// it is not revoked.
    async fn unhold(&self, issuer: IssuerId, serial: &Serial) -> Result<StatusChange, StoreError>;

    /// One certificate with its answer.
    async fn certificate(
        &self,
        issuer: IssuerId,
        serial: &Serial,
    ) -> Result<Option<CertificateState>, StoreError>;

    /// Certificates by key with their answers, in no order; keys that do not exist are left out.
    async fn certificates(&self, keys: &[CertificateKey]) -> Result<Vec<CertificateState>, StoreError>;

    /// As [`Store::certificates`], without the octets of the answers.
    async fn due(&self, keys: &[CertificateKey]) -> Result<Vec<DueCertificate>, StoreError>;

    /// A page of a shard with answers, by row, beginning after `after` (0 at first), `limit` rows at
    /// the most; an empty page ends the shard. Expired certificates (not_after before `now`) are
    /// left out.
    async fn states(
        &self,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<CertificateState>, StoreError>;

    /// As [`Store::states`], without the octets of the answers.
    async fn schedule(
        &self,
        shard: Shard,
        after: i64,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<ScheduleEntry>, StoreError>;

    /// Stores answers; one outcome an answer, in order. An answer is stored when the certificate's
    /// version is still the one it was signed for and no stored answer of that version has a later
    /// thisUpdate, except one that lies after `now`: it was made while the clock was ahead, and gives way. A
    /// certificate that does not exist gives [`AnswerOutcome::Superseded`]. A pack of which one is not
    /// stored is broken from the start. Only what is stored is announced.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when an answer names a responder that was never installed.
    async fn store_answers(
        &self,
        answers: &[NewAnswer],
        now: UnixTime,
    ) -> Result<Vec<AnswerOutcome>, StoreError>;

    /// The certificates whose answer a pack is, in no order.
    async fn pack_members(&self, pack: PackNumber) -> Result<Vec<CertificateKey>, StoreError>;

    /// How an issuer's fleet stands at `now`. Reads the whole fleet: for reports, not for loops.
    async fn counts(&self, issuer: IssuerId, now: UnixTime) -> Result<FleetCounts, StoreError>;

    /// The unexpired certificates of a shard by issuer, lifetime and day of expiry, in no order. One shard
    /// at a time: a report on the whole fleet must not hold up those that read and write meanwhile.
    async fn fleet_days(&self, shard: Shard, now: UnixTime) -> Result<Vec<FleetDay>, StoreError>;

    /// Keeps what the capacity guard knows, in place of what it knew before.
    async fn keep_guard(&self, record: &GuardRecord) -> Result<(), StoreError>;

    /// What the capacity guard knew; none before its first look.
    async fn guard(&self) -> Result<Option<GuardRecord>, StoreError>;

    /// Counts new certificates that a limiter apart from the guard was asked for.
    async fn add_offered(&self, orders: u64) -> Result<(), StoreError>;

    /// How many such limiters were asked for, ever.
    async fn offered(&self) -> Result<u64, StoreError>;

    /// The end of the feed: changes after now come after this.
    async fn feed_position(&self) -> Result<FeedPosition, StoreError>;

    /// What changed after `position` through any other handle on the database than this one.
    ///
    /// A reader that is far behind catches up in portions: it goes on from the returned position
    /// until that stands still. A position beyond the end of the feed (the database was put back
    /// from a backup) is a gap too.
    async fn changes(&self, position: FeedPosition) -> Result<Changes, StoreError>;

    /// Forgets feed entries older than `keep`. A reader behind that sees [`Changes::gap`].
    ///
    /// An entry's age counts from the first call after it, so that ages come from one clock: call it
    /// at intervals that are short beside `keep`.
    async fn prune_feed(&self, now: UnixTime, keep: Duration) -> Result<(), StoreError>;

    /// Records a token's capacity profile, replacing that of the same token, algorithm and sessions.
    async fn record_profile(&self, profile: &CapacityProfile) -> Result<(), StoreError>;

    /// Every capacity profile.
    async fn profiles(&self) -> Result<Vec<CapacityProfile>, StoreError>;

    /// The limiter's ledger in the same database.
    fn ledger(self: Arc<Self>) -> Arc<dyn Ledger>;

    /// Finishes what is under way and lets go of the database.
    async fn close(&self);
}

/// Opens the database at `url`, creating it when it is not there.
///
/// `sqlite://PATH` (the folder must be there; `sqlite:///PATH` is absolute).
///
/// # Errors
/// [`StoreError::Unavailable`] when it cannot be opened or its kind is not known,
/// [`StoreError::UnknownSchema`] when a newer version made it, [`StoreError::Corrupt`] when it is
/// another program's.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let unsupported = |why: &str| StoreError::Unavailable {
        action: "opening",
        url: without_credentials(url),
        source: why.into(),
    };
    match url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
        Some("sqlite") => Ok(Arc::new(sqlite::SqliteStore::open(url).await?)),
        Some("postgres" | "postgresql") => {
            Err(unsupported("PostgreSQL is not supported in this version: use sqlite://PATH"))
        }
        _ => Err(unsupported("no kind of database that is known: use sqlite://PATH")),
    }
}

/// The URL without user and password, and without parameters (which may hold a password too).
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.find('/').unwrap_or(rest.len());
    let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[host..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_show_in_a_url() {
        for (url, shown) in [
            ("postgres://user:p@ss@db:5432/fleet?password=x", "postgres://db:5432/fleet"),
            ("sqlite://var/a@b.db", "sqlite://var/a@b.db"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[tokio::test]
    async fn an_unknown_kind_of_database_is_refused_with_advice() {
        for url in ["postgres://user:secret@db/fleet", "mysql://db/fleet", "fleet.db", ""] {
            let error = open(url).await.err().unwrap().to_string();
            assert!(error.contains("use sqlite://PATH") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_shard_of_a_certificate_never_changes() {
        let serial: Serial = "0123456789abcdef".parse().unwrap();
        assert_eq!(Shard::of(IssuerId(1), &serial), Shard(190));
        assert_eq!(Shard::all().count(), Shard::COUNT);
    }
}
