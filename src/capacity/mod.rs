//! The capacity guard: what the HSMs can carry, held against what the fleet will ask for.

pub mod fleet;
pub mod forecast;
pub mod guard;
pub mod ladder;
pub mod model;
pub mod report;
pub mod throttle;
