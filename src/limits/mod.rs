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
mod error;
mod fingerprint;
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
pub use self::error::LimitsError;
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
