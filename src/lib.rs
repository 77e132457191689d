//! Goodstanding signs OCSP responses ahead of time through PKCS#11, serves them over HTTP, and knows
//! what its HSM can carry. `ARCHITECTURE.md` shows the house; imports run downward only.

// core
pub mod clock;
pub mod ocsp;
pub mod shutdown;
pub mod telemetry;

// engines
pub mod responder;

// resources
pub mod signer;
pub mod store;

// edges
pub mod import;
pub mod server;
