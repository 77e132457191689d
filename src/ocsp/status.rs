//! What a CA says of a certificate: good, revoked, or nothing.

use std::fmt;
use std::str::FromStr;

use crate::clock::UnixTime;

/// Why a certificate was revoked (RFC 5280 section 5.3.1). The discriminants are the wire values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CrlReason {
    /// No reason given; RFC 5280 asks that the field be left out instead.
    Unspecified = 0,
    /// The certificate's private key is known to somebody else.
    KeyCompromise = 1,
    /// The issuing CA's key is.
    CaCompromise = 2,
    /// The subject's name or other data changed.
    AffiliationChanged = 3,
    /// Replaced by another certificate.
    Superseded = 4,
    /// No longer needed.
    CessationOfOperation = 5,
    /// On hold: the only reason that can be taken back.
    CertificateHold = 6,
    /// Removed from a delta CRL (an end of hold); never in an OCSP answer.
    RemoveFromCrl = 8,
    /// A privilege in the certificate was withdrawn.
    PrivilegeWithdrawn = 9,
    /// An attribute authority's key is compromised.
    AaCompromise = 10,
}

impl CrlReason {
    /// Every reason, in wire order.
    pub const ALL: [Self; 10] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::RemoveFromCrl,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number, if there is one (7 is unused).
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The field's name for it, as OpenSSL writes it in `index.txt`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "CACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::RemoveFromCrl => "removeFromCRL",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "AACompromise",
        }
    }
}

impl fmt::Display for CrlReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no revocation reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no revocation reason; one of unspecified, keyCompromise, CACompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold, privilegeWithdrawn, AACompromise"
)]
pub struct UnknownReason(pub String);

impl FromStr for CrlReason {
    type Err = UnknownReason;

    /// By name in any case, or by number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let by_name = Self::ALL.into_iter().find(|reason| reason.name().eq_ignore_ascii_case(text));
        by_name
            .or_else(|| text.parse().ok().and_then(Self::from_code))
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

/// When and why a certificate was revoked (RFC 6960 `RevokedInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// The revocation time.
    pub time: UnixTime,
    /// The reason, left out of the answer when there is none.
    pub reason: Option<CrlReason>,
}

/// The status in an answer (RFC 6960 `CertStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertStatus {
    /// Issued and not revoked.
    Good,
    /// Revoked, for good or on hold.
    Revoked(Revocation),
    /// The responder does not know the certificate.
    Unknown,
}

impl CertStatus {
    /// RFC 6960 section 2.2: the status of a certificate that was never issued (C20).
    pub const NEVER_ISSUED: Self =
        Self::Revoked(Revocation { time: UnixTime::EPOCH, reason: Some(CrlReason::CertificateHold) });
}

impl CertStatus {
    /// `good`, `revoked` or `unknown`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked(_) => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back_by_name_and_by_number() {
        for reason in CrlReason::ALL {
            assert_eq!(reason.name().to_uppercase().parse::<CrlReason>().unwrap(), reason);
            assert_eq!(reason.code().to_string().parse::<CrlReason>().unwrap(), reason);
        }
        assert!("7".parse::<CrlReason>().is_err());
        assert!("stolen".parse::<CrlReason>().unwrap_err().to_string().contains("keyCompromise"));
    }
}
