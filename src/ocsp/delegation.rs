//! Whether a certificate may sign OCSP answers for an issuer (RFC 6960 section 4.2.2.2, BR 4.9.9
//! and 7.1.2.8, RFC 9919 section 3.2).

use std::time::Duration;

use der::asn1::ObjectIdentifier;

use super::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use super::certificate::{Certificate, oids};
use super::issuer::Issuer;
use super::tlv::{self, Reader};
use crate::clock::UnixTime;

/// A certificate whose key may sign for an issuer, every rule checked.
#[derive(Clone, Debug)]
pub struct Delegation {
    certificate: Certificate,
    key: KeyAlgorithm,
    delegated: bool,
    warnings: Vec<Warning>,
}

/// A rule that is broken, and the certificate is refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelegationError {
    /// C18: another CA issued it.
    #[error(
        "it was issued by {found:?}, not by the issuer {issuer:?} that it is to answer for (RFC 6960 4.2.2.2)"
    )]
    OtherIssuer {
        /// The issuer in the certificate.
        found: String,
        /// The issuer expected.
        issuer: String,
    },
    /// C18: the issuer's key did not sign it.
    #[error("its signature does not verify with the key of the issuer {0:?} (RFC 6960 4.2.2.2)")]
    NotSignedByIssuer(String),
    /// C18: no id-kp-OCSPSigning.
    #[error("its extended key usage lacks id-kp-OCSPSigning (RFC 6960 4.2.2.2)")]
    NoOcspSigning,
    /// B12: the key usage forbids signing.
    #[error("its key usage lacks digitalSignature (Baseline Requirements 7.1.2.8)")]
    NoDigitalSignature,
    /// B14: a CA key signs OCSP itself only if its certificate says so.
    #[error(
        "the CA's own certificate lacks digitalSignature in its key usage, so its key may not sign OCSP answers: install a delegated responder certificate (Baseline Requirements 7.1.2.1.2)"
    )]
    CaWithoutDigitalSignature,
    /// It is a CA certificate, and not the issuer's own.
    #[error("it is a CA certificate (Baseline Requirements 7.1.2.8)")]
    IsCa,
    /// Its key is none that answers are signed with.
    #[error(
        "its public key is of no kind that signs here: RSA of 2048, 3072 or 4096 bits, P-256, P-384 or Ed25519"
    )]
    UnusableKey,
    /// The chosen signature algorithm does not fit its key.
    #[error("the signature algorithm {algorithm} does not fit its {key} key")]
    AlgorithmMismatch {
        /// The algorithm chosen.
        algorithm: SignatureAlgorithm,
        /// The key in the certificate.
        key: KeyAlgorithm,
    },
    /// It has ended.
    #[error("it ended at {0}")]
    Ended(UnixTime),
}

/// A rule that is bent: the certificate works, and a linter would say something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// C19, L6.
    #[error("it lacks id-pkix-ocsp-nocheck, so clients may ask for its own status (RFC 9919 3.2.2)")]
    NoNoCheck,
    /// C19.
    #[error("its id-pkix-ocsp-nocheck is critical or not NULL (RFC 6960 4.2.2.2.1)")]
    OddNoCheck,
    /// B12.
    #[error("its extended key usage allows more than OCSPSigning (Baseline Requirements 7.1.2.8)")]
    OtherUsages,
    /// B12.
    #[error("its key usage is not critical with digitalSignature only (Baseline Requirements 7.1.2.8)")]
    KeyUsage,
    /// L6, B12.
    #[error("it has CRL distribution points (RFC 9919 3.2.2)")]
    CrlDistributionPoints,
    /// L6.
    #[error("it points to an OCSP responder of its own (RFC 9919 3.2.2)")]
    OcspAccess,
    /// B12.
    #[error("it has a subject alternative name (Baseline Requirements 7.1.2.8)")]
    SubjectAltName,
    /// L6.
    #[error("it lasts {0} days; a certificate that nobody can revoke should be short-lived (RFC 9919 3.2.2)")]
    LongLived(u64),
    /// It is not in force yet.
    #[error("it is not valid before {0}")]
    NotYetValid(UnixTime),
    /// It ends soon.
    #[error("it ends at {0}, and answers cannot outlive it")]
    EndsSoon(UnixTime),
    /// Its issuer's signature is of a kind that is not verified here.
    #[error("the issuer signed it with an algorithm that is not verified here; only its name was compared")]
    Unverified,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Delegation {
    /// Judges `certificate` for signing `issuer`'s answers at `now`.
    ///
    /// # Errors
    /// [`DelegationError`] for the first rule that makes it unusable (C18, B12, B14).
    pub fn check(issuer: &Issuer, certificate: Certificate, now: UnixTime) -> Result<Self, DelegationError> {
        let key = certificate.key_algorithm().ok_or(DelegationError::UnusableKey)?;
        if certificate.not_after() < now {
            return Err(DelegationError::Ended(certificate.not_after()));
        }
        let mut warnings = Vec::new();
        // The key decides: a renewed CA certificate is the CA's own as well.
        let delegated = certificate.public_key() != issuer.certificate().public_key();
        if delegated {
            check_delegated(issuer, &certificate, &mut warnings)?;
        } else if certificate.key_usage().is_some_and(|(_, usage)| !usage.digital_signature()) {
            return Err(DelegationError::CaWithoutDigitalSignature);
        }
        if now < certificate.not_before() {
            warnings.push(Warning::NotYetValid(certificate.not_before()));
        }
        if certificate.not_after().since(now) < 7 * DAY {
            warnings.push(Warning::EndsSoon(certificate.not_after()));
        }
        Ok(Self { certificate, key, delegated, warnings })
    }

    /// The responder's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The kind of its key.
    #[must_use]
    pub const fn key(&self) -> KeyAlgorithm {
        self.key
    }

    /// Whether it is a delegate's, which goes into `certs`, and not the CA's own.
    #[must_use]
    pub const fn is_delegated(&self) -> bool {
        self.delegated
    }

    /// The rules that are bent.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The signature algorithm to use: the one wanted if it fits the key, else the key's usual one.
    ///
    /// # Errors
    /// [`DelegationError::AlgorithmMismatch`].
    pub fn signature_algorithm(
        &self,
        wanted: Option<SignatureAlgorithm>,
    ) -> Result<SignatureAlgorithm, DelegationError> {
        let algorithm = wanted.unwrap_or_else(|| self.key.default_signature());
        if algorithm.fits(self.key) {
            Ok(algorithm)
        } else {
            Err(DelegationError::AlgorithmMismatch { algorithm, key: self.key })
        }
    }
}

fn check_delegated(
    issuer: &Issuer,
    certificate: &Certificate,
    warnings: &mut Vec<Warning>,
) -> Result<(), DelegationError> {
    if certificate.issuer_name() != issuer.certificate().subject_name() {
        return Err(DelegationError::OtherIssuer {
            found: certificate.issuer(),
            issuer: issuer.certificate().subject(),
        });
    }
    match issuer.has_signed(certificate.signature_algorithm(), certificate.tbs(), certificate.signature()) {
        Some(true) => {}
        Some(false) => return Err(DelegationError::NotSignedByIssuer(issuer.certificate().subject())),
        None => warnings.push(Warning::Unverified),
    }
    let usages = extended_key_usages(certificate);
    if !usages.contains(&oids::OCSP_SIGNING) {
        return Err(DelegationError::NoOcspSigning);
    }
    if certificate.is_ca() {
        return Err(DelegationError::IsCa);
    }
    match certificate.key_usage() {
        Some((_, usage)) if !usage.digital_signature() => return Err(DelegationError::NoDigitalSignature),
        Some((true, usage)) if usage.0.into_iter().count() == 1 => {}
        _ => warnings.push(Warning::KeyUsage),
    }
    match certificate.extension(oids::OCSP_NO_CHECK) {
        Some((false, [tlv::NULL, 0])) => {}
        Some(_) => warnings.push(Warning::OddNoCheck),
        None => warnings.push(Warning::NoNoCheck),
    }
    let has = |oid| certificate.extension(oid).is_some();
    let lifetime = certificate.not_after().since(certificate.not_before());
    let bent = [
        (usages.len() > 1, Warning::OtherUsages),
        (has(oids::CRL_DISTRIBUTION_POINTS), Warning::CrlDistributionPoints),
        (has(oids::SUBJECT_ALT_NAME), Warning::SubjectAltName),
        (points_to_ocsp(certificate), Warning::OcspAccess),
        (lifetime > 92 * DAY, Warning::LongLived(lifetime.as_secs() / DAY.as_secs())),
    ];
    warnings.extend(bent.into_iter().filter_map(|(is, warning)| is.then_some(warning)));
    Ok(())
}

fn extended_key_usages(certificate: &Certificate) -> Vec<ObjectIdentifier> {
    let Some((_, der)) = certificate.extension(oids::EXTENDED_KEY_USAGE) else { return Vec::new() };
    let mut reader = Reader::new(tlv::only(der, tlv::SEQUENCE).unwrap_or_default());
    let mut usages = Vec::new();
    while let Some(usage) = reader.expect(tlv::OBJECT_IDENTIFIER) {
        usages.extend(ObjectIdentifier::from_bytes(usage.content));
    }
    usages
}

fn points_to_ocsp(certificate: &Certificate) -> bool {
    let Some((_, der)) = certificate.extension(oids::AUTHORITY_INFO_ACCESS) else { return false };
    let mut reader = Reader::new(tlv::only(der, tlv::SEQUENCE).unwrap_or_default());
    while let Some(access) = reader.expect(tlv::SEQUENCE) {
        let method = Reader::new(access.content).expect(tlv::OBJECT_IDENTIFIER);
        if method.is_some_and(|method| method.content == oids::ACCESS_OCSP.as_bytes()) {
            return true;
        }
    }
    false
}
