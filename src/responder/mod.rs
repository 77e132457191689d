//! Answers an OCSP request: filter, shelf, live signing, error.

mod answer;
pub mod early;
mod engine;
mod gate;
mod issuers;
pub mod live;
mod stale;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use self::answer::{Answer, CacheFacts, Outcome};
pub use self::engine::{Responder, Settings, UNHEARD};
pub use self::gate::Refused;
pub use self::issuers::IssuerDirectory;

/// Whatever answers OCSP requests.
pub trait Respond: Send + Sync + 'static {
    /// Answers one request, given as the octets of an OCSPRequest. Every request gets an answer;
    /// most are ready at once, a live-signed one waits for the token.
    fn respond(&self, request: &[u8]) -> impl Future<Output = Answer> + Send;

    /// The same answer where it is ready at once; none where [`Respond::respond`] has to wait for it.
    fn respond_at_once(&self, request: &[u8]) -> Option<Answer>;
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
