//! Answers an OCSP request: filter, shelf, live signing, error.

mod engine;
mod gate;
mod issuers;
pub mod live;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

pub use self::engine::{Responder, Settings, UNHEARD};
pub use self::gate::Refused;
pub use self::issuers::IssuerDirectory;
use crate::clock::UnixTime;

/// One OCSP response, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The OCSPResponse in DER.
    pub body: Bytes,
    /// What an HTTP cache may know of it; none for errors and for answers made for one client
    /// (a nonce), which must not be kept.
    pub cache: Option<CacheFacts>,
    /// How it came about, for metrics.
    pub outcome: Outcome,
}

/// What the HTTP headers of a cacheable answer are made from (RFC 9919 sections 6 and 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheFacts {
    /// thisUpdate and producedAt, which are equal: `Last-Modified`.
    pub this_update: UnixTime,
    /// nextUpdate: `Expires`.
    pub next_update: UnixTime,
    /// When a newer answer is planned: `max-age` ends here, before nextUpdate.
    pub renewed_at: UnixTime,
    /// SHA-256 of the body: the strong `ETag`.
    pub digest: [u8; 32],
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Signed ahead of time.
    Stored,
    /// Signed for this request.
    Live,
    /// malformedRequest.
    Malformed,
    /// internalError.
    InternalError,
    /// tryLater.
    TryLater,
    /// sigRequired.
    SigRequired,
    /// unauthorized.
    Unauthorized,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Stored,
        Self::Live,
        Self::Malformed,
        Self::InternalError,
        Self::TryLater,
        Self::SigRequired,
        Self::Unauthorized,
    ];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Live => "live",
            Self::Malformed => "malformed_request",
            Self::InternalError => "internal_error",
            Self::TryLater => "try_later",
            Self::SigRequired => "sig_required",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// Whatever answers OCSP requests.
pub trait Respond: Send + Sync + 'static {
    /// Answers one request, given as the octets of an OCSPRequest. Every request gets an answer;
    /// most are ready at once, a live-signed one waits for the token.
    fn respond(&self, request: &[u8]) -> impl Future<Output = Answer> + Send;
}

/// A setting's text is none of its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {known}")]
pub struct UnknownSetting {
    given: String,
    known: &'static str,
}

macro_rules! setting {
    ($(#[$doc:meta])* $name:ident, $known:literal, $($(#[$each:meta])* $variant:ident = $text:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$each])* $variant),+
        }

        impl FromStr for $name {
            type Err = UnknownSetting;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownSetting { given: text.to_owned(), known: $known }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text),+
                })
            }
        }
    };
}

setting! {
    /// What is said of a serial number that is on no record (L7, C20).
    UnknownSerial, "unauthorized, unknown, revoked",
    /// The error status unauthorized, as RFC 9919 asks.
    Unauthorized = "unauthorized",
    /// A signed `unknown`.
    Unknown = "unknown",
    /// A signed `revoked` (certificateHold, 1970-01-01, extended-revoke): RFC 6960 section 2.2.
    Revoked = "revoked"
}

setting! {
    /// What is done with a nonce (RFC 9654).
    NoncePolicy, "ignore, echo",
    /// The stored answer is given, without it (RFC 9919 section 3.1.1).
    Ignore = "ignore",
    /// An answer with it is signed on the spot.
    Echo = "echo"
}

setting! {
    /// How an answer names its signer (L5).
    ResponderIdForm, "by-key, by-name",
    /// By the SHA-1 of its key.
    ByKey = "by-key",
    /// By its subject name.
    ByName = "by-name"
}
