//! The protocol core of OCSP (RFC 6960, RFC 9919): requests, answers, certificates. Pure: no I/O,
//! no clock, no async.

pub mod algorithm;
pub mod cert_id;
pub mod certificate;
pub mod delegation;
pub mod ecdsa;
mod fixed_base;
pub mod freshness;
pub mod issue;
pub mod issuer;
pub mod names;
pub mod oid;
pub mod received;
pub mod request;
pub mod response;
pub mod serial;
pub mod status;
pub mod tlv;
pub mod verifier;

pub use algorithm::{BadSignature, HashAlgorithm, KeyAlgorithm, SignatureAlgorithm};
pub use cert_id::CertId;
pub use certificate::{Certificate, CertificateError};
pub use freshness::{Freshness, FreshnessError, Preset};
pub use issuer::Issuer;
pub use names::AltNames;
pub use received::Received;
pub use request::{Request, RequestError};
pub use response::{ErrorStatus, ResponderId, ResponseData, SingleResponse};
pub use serial::{Serial, SerialError};
pub use status::{CertStatus, CrlReason, Revocation};
pub use verifier::Verifier;
