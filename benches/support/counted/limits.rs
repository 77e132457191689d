//! Of the limiter what decides.

#[path = "../../../src/limits/book.rs"]
mod book;
#[path = "../../../src/limits/charges.rs"]
mod charges;
#[path = "../../../src/limits/decide.rs"]
mod decide;
#[path = "../../../src/limits/decision.rs"]
mod decision;
#[path = "../../../src/limits/error.rs"]
mod error;
#[path = "../../../src/limits/fingerprint.rs"]
mod fingerprint;
#[path = "../../../src/limits/identifiers.rs"]
mod identifiers;
#[path = "../../../src/limits/overrides.rs"]
mod overrides;
#[path = "../../../src/limits/pressure.rs"]
mod pressure;
#[path = "../../../src/limits/profile/mod.rs"]
mod profile;
#[path = "../../../src/limits/text.rs"]
mod text;
#[path = "../../../src/limits/tier.rs"]
mod tier;
#[path = "../../../src/limits/times.rs"]
mod times;
#[path = "../../../src/limits/window.rs"]
pub mod window;

pub use self::book::Book;
pub use self::decide::{Ask, OrderAsk, decide};
pub use self::decision::*;
pub use self::error::LimitsError;
pub use self::identifiers::*;
pub use self::overrides::*;
pub use self::pressure::{GuardState, Lease, Pressure};
pub use self::profile::{Counts, Limit, Per, Profile};
pub use self::text::{rate_limit, rate_limit_policy};
pub use self::tier::Tier;
pub use crate::store::LedgerId as OrderId;
