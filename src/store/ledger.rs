//! The contract of the limiter's ledger: what counts, durable and in one order for all processes.
//!
//! The ledger is a set of records, each with the position at which it was last written. A writer
//! reads what is after the position it knows, decides, and appends what it decided together with
//! that position: when another process wrote meanwhile, nothing is changed and it reads on. So a
//! decision never rests on a state that others have left behind, and no process needs to trust its
//! memory.
//!
//! Rules that every engine keeps:
//! - [`Ledger::ledger_append`] is one transaction: all of its records, or none.
//! - Positions rise by one with each record written and are never used again.
//! - A call that returns `Ok` is durable. A call that returns an error may have been applied all the
//!   same (the answer was lost): the caller reads after its position before it goes on.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::clock::UnixTime;

/// A record's number: the position at which it was first written. Never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LedgerId(pub i64);

impl std::fmt::Display for LedgerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for LedgerId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A place in the ledger; 0 before the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerPosition(pub i64);

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRecord {
    /// Its number.
    pub id: LedgerId,
    /// When it may be forgotten.
    pub keep_until: UnixTime,
    /// What it says.
    pub entry: LedgerEntry,
}

/// What a record says. Kept as JSON; times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LedgerEntry {
    /// An account was made.
    Registration(RegistrationEntry),
    /// A certificate was ordered.
    Order(OrderEntry),
    /// The operator set other numbers for one key of one limit.
    Override(OverrideEntry),
}

/// The making of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationEntry {
    /// When.
    #[serde(with = "seconds")]
    pub at: UnixTime,
    /// From where.
    pub ip: std::net::IpAddr,
    /// The caller's key for this request with its scope, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
}

/// An order and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEntry {
    /// When it was accepted.
    #[serde(with = "seconds")]
    pub at: UnixTime,
    /// Whose it is.
    pub account: String,
    /// What the certificate is for: A-labels and addresses, sorted, each once.
    pub identifiers: Vec<String>,
    /// The caller's key for this request with its scope, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// The certificate it was said to replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The order whose certificate it renews: exempt as a renewal is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<LedgerId>,
    /// How it stands.
    pub state: OrderState,
}

/// How an order stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OrderState {
    /// Its places are held.
    Reserved {
        /// Until then.
        #[serde(with = "seconds")]
        expires: UnixTime,
    },
    /// Its certificate was issued.
    Issued {
        /// When: it counts from here.
        #[serde(with = "seconds")]
        at: UnixTime,
        /// The certificate's name for people and callers, for example issuer and serial.
        certificate: String,
        /// Its CertID for ARI (RFC 9773 section 4.1), if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ari: Option<String>,
        /// When it ends.
        #[serde(with = "seconds")]
        not_after: UnixTime,
    },
    /// It was given up.
    Released {
        /// When.
        #[serde(with = "seconds")]
        at: UnixTime,
        /// The identifiers whose authorisation failed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failed: Vec<String>,
    },
}

/// Other numbers for one key of one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideEntry {
    /// When it was set.
    #[serde(with = "seconds")]
    pub at: UnixTime,
    /// The limit's name.
    pub limit: String,
    /// The key.
    pub key: String,
    /// Its tiers, as they are written.
    pub tiers: Vec<String>,
    /// When it ends.
    #[serde(with = "seconds")]
    pub until: UnixTime,
    /// Why.
    pub reason: String,
    /// Taken back before its end.
    #[serde(default)]
    pub removed: bool,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Written; the end of the ledger now.
    Done(LedgerPosition),
    /// Nothing was written: the ledger ends here and not at the position expected.
    Behind(LedgerPosition),
}

/// Where the limiter's records are kept.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// The end of the ledger.
    async fn ledger_end(&self) -> Result<LedgerPosition, StoreError>;

    /// Records written after `position`, each with its position, in order of it, `limit` at the most.
    /// A record that was written twice appears once, at its later position; one that was forgotten
    /// does not appear.
    async fn ledger_after(
        &self,
        position: LedgerPosition,
        limit: u32,
    ) -> Result<Vec<(LedgerPosition, LedgerRecord)>, StoreError>;

    /// Writes records at the positions after `expected`, if that is the end of the ledger. A record
    /// with the number of one that is there takes its place.
    async fn ledger_append(
        &self,
        expected: LedgerPosition,
        records: &[LedgerRecord],
    ) -> Result<Appended, StoreError>;

    /// Forgets those of the records `ids` whose `keep_until` is not after `now`. Positions stay as
    /// they are. How many were forgotten.
    async fn ledger_forget(&self, ids: &[LedgerId], now: UnixTime) -> Result<u64, StoreError>;
}

/// A time as its number of seconds.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::clock::UnixTime;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(time: &UnixTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(time.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixTime, D::Error> {
        i64::deserialize(from).map(UnixTime)
    }
}
