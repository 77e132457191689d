//! The issuance limiter: how many accounts and certificates, to whom, and when more.
//!
//! The arithmetic is pure, state and time in, decision out: [`Profile`] (the numbers), [`Identifier`]
//! (what is counted), [`Window`](window::Window) (exact sliding windows), [`Book`] (everything that
//! counts now) and [`decide`]. [`Limiter`] stands beside it: it keeps a [`Book`] in memory, and what
//! the book says in the [`Ledger`](crate::store::Ledger), which is the truth.
//!
//! What counts, and until when:
//! - An event counts from its second until exactly `period` later: of five in seven days the sixth is
//!   refused, and the first frees a place in the second that is seven days after it.
//! - A certificate is reserved by its order, counts from its issuance, and counts nothing when the
//!   order is released or times out. A reservation counts against every tier while it lives, so that
//!   orders side by side never issue more than the limit in any period.
//! - Revoking gives nothing back: the status must be signed until the certificate expires.

mod actor;
mod batch;
mod book;
mod charges;
mod decide;
mod decision;
mod identifiers;
mod known;
mod metrics;
mod overrides;
mod pressure;
mod profile;
mod service;
mod show;
mod text;
mod tier;
mod times;
mod turn;
pub mod window;

#[cfg(test)]
mod tests;

pub use self::book::{Book, Entered};
pub use self::decide::{Ask, OrderAsk, decide};
pub use self::decision::{
    CapacityCause, Counted, Decision, LimitState, Outcome, Refusal, RefusalCause, Renewal, TierState, Warning,
};
pub use self::identifiers::{Identifier, IdentifierError, Identifiers, PrefixLength, registered_domain};
pub use self::known::{Mismatch, same_names};
pub use self::overrides::{NewOverride, Override, OverrideKey};
pub use self::pressure::{GuardState, Lease, Pressure};
pub use self::profile::{Counts, Limit, Per, Profile, ProfileError, is_help_page};
pub use self::service::{
    Committed, IssuedCertificate, KnownCertificate, Limiter, OrderRequest, OrderView, ReleaseCause, Released,
    Settings, Tally,
};
pub use self::show::{LimitStanding, Standing, Subject};
pub use self::text::{rate_limit, rate_limit_policy};
pub use self::tier::{Tier, TierError};
pub use crate::store::LedgerId as OrderId;

use std::sync::Arc;

use crate::store::StoreError;

/// Why the limiter could not decide. A refusal is no error: see [`Outcome::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// A name, address or account that cannot be counted. The caller's mistake.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// The idempotency key was used for another request. The caller's mistake.
    #[error(
        "the idempotency key {key:?} was used for another request at {at}: use a new key for a new request"
    )]
    Idempotency {
        /// The key.
        key: String,
        /// When it was used.
        at: crate::clock::UnixTime,
    },
    /// An idempotency key that cannot be kept. The caller's mistake.
    #[error("an idempotency key has 1 to {longest} characters and no control characters")]
    IdempotencyKey {
        /// The longest.
        longest: usize,
    },
    /// There is no such order, or it is so old that it was forgotten.
    #[error("there is no order {0}: it was never accepted here, or ended so long ago that it was forgotten")]
    NoOrder(OrderId),
    /// The order has its certificate already.
    #[error("order {order} was issued as {certificate} at {at}: {why}")]
    Issued {
        /// The order.
        order: OrderId,
        /// Its certificate.
        certificate: String,
        /// When it was issued.
        at: crate::clock::UnixTime,
        /// What cannot be done, and what to do.
        why: &'static str,
    },
    /// The profile has no such limit, or the override does not fit it.
    #[error("{0}")]
    Override(String),
    /// More is waiting to be decided than can be in time.
    #[error(
        "the limiter did not decide within {waited:?}: {queued} requests are waiting for the database; try again later"
    )]
    Overloaded {
        /// How long was waited.
        waited: std::time::Duration,
        /// Requests in the queue.
        queued: usize,
    },
    /// The limiter has ended.
    #[error("the limiter has stopped: this process is ending")]
    Stopped,
    /// The ledger could not be read or written; nothing was decided.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl From<StoreError> for LimitsError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
