//! An answer, and what a cache may know of it.

use bytes::Bytes;

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
    /// Whether it is older than its issuer's rules allow (BR 4.9.9): past the legal deadline, though not
    /// past nextUpdate.
    pub is_stale: bool,
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
