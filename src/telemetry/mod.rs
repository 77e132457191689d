//! Logs and metrics: the ground every component reports on. It knows none of them: each component
//! defines its own metric families and registers them here when the process is put together.

pub mod logging;
pub mod metrics;
pub mod scrape;
pub mod sharded;

pub use logging::{LogError, LogFormat, LogSettings};
pub use metrics::Metrics;
pub use scrape::{Encoded, Scrape};
pub use sharded::{ShardedCounters, ShardedHistogram};
