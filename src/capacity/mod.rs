//! The capacity guard: what the HSMs can carry, held against what the fleet will ask for.
//!
//! [`model`], [`fleet`] and [`forecast`] are the arithmetic, [`ladder`] and [`throttle`] the levers,
//! [`guard`] puts them together: readings in, a [`Report`] out. [`simulation`] runs the same guard over
//! a [`scenario`] in virtual time.

mod answers;
pub mod chart;
pub mod fleet;
pub mod follow;
pub mod forecast;
pub mod guard;
pub mod inventory;
pub mod ladder;
pub mod live;
pub mod live_demand;
pub mod model;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod simulation;
pub mod throttle;

use crate::ocsp::Freshness;

pub use report::{Lever, Report, State};

/// The last part of R over which [`Freshness::due_at`] spreads the refreshes of a fleet.
pub const SPREAD: f64 = 0.25;

impl From<Freshness> for model::Terms {
    fn from(freshness: Freshness) -> Self {
        Self {
            validity: freshness.validity(),
            refresh: freshness.refresh(),
            deadline: freshness.preset().deadline(freshness.validity()),
            spread: SPREAD,
        }
    }
}
