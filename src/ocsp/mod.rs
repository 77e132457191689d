//! The protocol core of OCSP (RFC 6960, RFC 9919): requests, answers, certificates. Pure: no I/O,
//! no clock, no async.

pub mod algorithm;
pub mod serial;
pub mod status;

pub use algorithm::{BadSignature, HashAlgorithm, KeyAlgorithm, SignatureAlgorithm};
pub use serial::{Serial, SerialError};
pub use status::{CertStatus, CrlReason, Revocation};
