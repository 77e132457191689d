//! Goodstanding signs OCSP responses ahead of time through PKCS#11, serves them over HTTP, and knows
//! what its HSM can carry. `ARCHITECTURE.md` shows the house; imports run downward only.

// entry
pub mod cli;

// composition
pub mod app;
pub mod config;

// edges
pub mod checker;
pub mod import;
pub mod server;

// engines
pub mod capacity;
pub mod limits;
pub mod presign;
pub mod responder;

// resources
pub mod shelf;
pub mod signer;
pub mod store;

// core
pub mod clock;
pub mod ocsp;
mod reader;
pub mod shutdown;
pub mod telemetry;
