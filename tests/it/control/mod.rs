//! The control listener: its API, who may call it, and the log of what they changed.

mod audit;
mod certificates;
mod credentials;
mod idempotency;
mod limits;
mod schema;
mod tls;
