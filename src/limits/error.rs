//! Why the limiter could not decide.

use std::sync::Arc;

use super::OrderId;
#[cfg(doc)]
use super::decision::Outcome;
use super::identifiers::IdentifierError;
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
