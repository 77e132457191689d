//! Making what a delegated responder certificate comes from: the certificate request that the HSM's
//! key signs (RFC 2986), and, for a test CA, the certificate itself (BR 7.1.2.8).

use std::str::FromStr;
use std::time::Duration;

use chrono::Datelike;
use der::{Decode, Encode};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use x509_cert::name::Name;
use x509_cert::request::CertReq;

use super::algorithm::{HashAlgorithm, KeyAlgorithm, SignatureAlgorithm};
use super::certificate::{self, oids};
use super::issuer::Issuer;
use super::tlv;
use crate::clock::UnixTime;

/// Why a request or certificate cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The subject is no distinguished name.
    #[error(
        "{subject:?} is no distinguished name in RFC 4514 form such as \"CN=ocsp,O=Example,C=DE\": {why}"
    )]
    Subject {
        /// As given.
        subject: String,
        /// What x509-cert says.
        why: String,
    },
    /// The request is no PKCS#10 request.
    #[error("not a certificate request: {0}")]
    Request(String),
    /// The request's signature does not verify.
    #[error("the certificate request's signature does not verify with the key in it")]
    RequestSignature,
    /// The CA's key cannot be used.
    #[error(
        "the CA key is not usable: {0}; it must be an unencrypted PKCS#8 key (RSA, P-256, P-384 or Ed25519), as `openssl pkcs8 -topk8 -nodes` writes it"
    )]
    CaKey(String),
    /// The CA's key is not the one in the issuer's certificate.
    #[error("the CA key does not belong to the issuer's certificate")]
    OtherCaKey,
    /// No random numbers.
    #[error("the system gave no random numbers")]
    Random,
}

/// A certificate request still to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo(Vec<u8>);

impl RequestInfo {
    /// A request for `subject` (RFC 4514 form) and a public key (SubjectPublicKeyInfo in DER).
    ///
    /// # Errors
    /// [`IssueError::Subject`].
    pub fn new(subject: &str, public_key_info: &[u8]) -> Result<Self, IssueError> {
        let wrong =
            |why: der::Error| IssueError::Subject { subject: subject.to_owned(), why: why.to_string() };
        let name = Name::from_str(subject).and_then(|name| name.to_der()).map_err(wrong)?;
        let version = [tlv::INTEGER, 1, 0];
        let attributes = [tlv::context(0), 0];
        Ok(Self(tlv::value(tlv::SEQUENCE, &[&version, &name, public_key_info, &attributes])))
    }

    /// The DER to be signed.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// The whole request in DER.
    #[must_use]
    pub fn signed(&self, algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
        signed(&self.0, algorithm, signature)
    }
}

/// `SEQUENCE { toBeSigned, algorithm, signature }`: a certificate request or a certificate.
fn signed(to_be_signed: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    tlv::value(tlv::SEQUENCE, &[to_be_signed, algorithm.identifier_der(), &tlv::bit_string(signature)])
}

/// A CA's private key in software: for test CAs only.
#[derive(Debug)]
pub enum CaKey {
    /// RSA of 2048 bits or more.
    Rsa(RsaKeyPair),
    /// P-256 or P-384.
    Ecdsa(SignatureAlgorithm, EcdsaKeyPair),
    /// Ed25519.
    Ed25519(Ed25519KeyPair),
}

impl CaKey {
    /// Reads a key in DER: PKCS#8, or PKCS#1 for RSA. `issuer` tells what kind it must be.
    ///
    /// # Errors
    /// [`IssueError::CaKey`], [`IssueError::OtherCaKey`].
    pub fn from_der(der: &[u8], issuer: &Issuer) -> Result<Self, IssueError> {
        let unusable = |why: ring::error::KeyRejected| IssueError::CaKey(why.to_string());
        let random = SystemRandom::new();
        let ecdsa = |algorithm, ring| {
            EcdsaKeyPair::from_pkcs8(ring, der, &random)
                .map(|key| Self::Ecdsa(algorithm, key))
                .map_err(unusable)
        };
        let key = match issuer.certificate().key_algorithm() {
            Some(KeyAlgorithm::P256) => {
                ecdsa(SignatureAlgorithm::EcdsaP256Sha256, &signature::ECDSA_P256_SHA256_ASN1_SIGNING)?
            }
            Some(KeyAlgorithm::P384) => {
                ecdsa(SignatureAlgorithm::EcdsaP384Sha384, &signature::ECDSA_P384_SHA384_ASN1_SIGNING)?
            }
            Some(KeyAlgorithm::Ed25519) => {
                Self::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(unusable)?)
            }
            _ => RsaKeyPair::from_pkcs8(der)
                .or_else(|_| RsaKeyPair::from_der(der))
                .map(Self::Rsa)
                .map_err(unusable)?,
        };
        let probe = key.sign(b"goodstanding")?;
        match issuer.has_signed(key.algorithm().identifier_der(), b"goodstanding", &probe) {
            Some(true) => Ok(key),
            _ => Err(IssueError::OtherCaKey),
        }
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Rsa(_) => SignatureAlgorithm::RsaPkcs1Sha256,
            Self::Ecdsa(algorithm, _) => *algorithm,
            Self::Ed25519(_) => SignatureAlgorithm::Ed25519,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IssueError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| IssueError::Random)?;
                Ok(signature)
            }
            Self::Ecdsa(_, key) => {
                key.sign(&random, message).map(|made| made.as_ref().to_vec()).map_err(|_| IssueError::Random)
            }
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

/// Issues a delegated responder certificate for a PKCS#10 request: OCSPSigning only, critical
/// digitalSignature only, nocheck, both key identifiers, nothing else (BR 7.1.2.8, L6).
///
/// # Errors
/// [`IssueError`] for a request that does not verify.
pub fn certify(
    issuer: &Issuer,
    ca_key: &CaKey,
    request: &[u8],
    from: UnixTime,
    lifetime: Duration,
) -> Result<Vec<u8>, IssueError> {
    let parsed = CertReq::from_der(request).map_err(|error| IssueError::Request(error.to_string()))?;
    verify_request(request, &parsed)?;
    let encode = |part: der::Result<Vec<u8>>| part.map_err(|error| IssueError::Request(error.to_string()));
    let subject = encode(parsed.info.subject.to_der())?;
    let public_key_info = encode(parsed.info.public_key.to_der())?;
    let public_key = parsed.info.public_key.subject_public_key.raw_bytes();

    // 127 random bits: over 64 bits of output from a CSPRNG (BR 7.1.2.8), never negative or zero.
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| IssueError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;

    let algorithm = ca_key.algorithm();
    // notAfter is inclusive, so a lifetime of a day ends a second before the next one.
    let validity = [time(from), time(UnixTime(from.plus(lifetime).0 - 1))].concat();
    let to_be_signed = tlv::value(
        tlv::SEQUENCE,
        &[
            &tlv::value(tlv::context(0), &[&[tlv::INTEGER, 1, 2]]),
            &tlv::value(tlv::INTEGER, &[&serial]),
            algorithm.identifier_der(),
            issuer.certificate().subject_name(),
            &tlv::value(tlv::SEQUENCE, &[&validity]),
            &subject,
            &public_key_info,
            &tlv::value(tlv::context(3), &[&extensions(issuer, public_key)]),
        ],
    );
    Ok(signed(&to_be_signed, algorithm, &ca_key.sign(&to_be_signed)?))
}

fn verify_request(der: &[u8], request: &CertReq) -> Result<(), IssueError> {
    let key = request.info.public_key.to_der().map_err(|error| IssueError::Request(error.to_string()))?;
    let algorithm = request.algorithm.to_der().map_err(|error| IssueError::Request(error.to_string()))?;
    let info =
        tlv::only(der, tlv::SEQUENCE).and_then(|content| tlv::Reader::new(content).expect(tlv::SEQUENCE));
    let info = info.ok_or_else(|| IssueError::Request("not strict DER".to_owned()))?;
    let kind = certificate::key_algorithm(&key)
        .ok_or_else(|| IssueError::Request("its key is of no kind that signs here".to_owned()))?;
    let algorithm = SignatureAlgorithm::ALL
        .into_iter()
        .find(|known| known.fits(kind) && known.identifier_der() == algorithm)
        .ok_or_else(|| IssueError::Request("its signature algorithm does not fit its key".to_owned()))?;
    algorithm
        .verify(
            request.info.public_key.subject_public_key.raw_bytes(),
            info.whole,
            request.signature.raw_bytes(),
        )
        .map_err(|_| IssueError::RequestSignature)
}

/// UTCTime through 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5).
fn time(at: UnixTime) -> Vec<u8> {
    let at = at.to_datetime();
    let (tag, text) = if at.year() < 2050 {
        (0x17, at.format("%y%m%d%H%M%SZ").to_string())
    } else {
        (0x18, at.format("%Y%m%d%H%M%SZ").to_string())
    };
    tlv::value(tag, &[text.as_bytes()])
}

fn extensions(issuer: &Issuer, public_key: &[u8]) -> Vec<u8> {
    const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
    const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
    const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    // BIT STRING with seven unused bits and bit 0 (digitalSignature) set.
    const DIGITAL_SIGNATURE: &[u8] = &[tlv::BIT_STRING, 2, 7, 0x80];
    const TRUE: &[u8] = &[0x01, 1, 0xff];

    let extension = |oid: &[u8], critical: bool, value: &[u8]| {
        let oid = tlv::value(tlv::OBJECT_IDENTIFIER, &[oid]);
        let value = tlv::value(tlv::OCTET_STRING, &[value]);
        tlv::value(tlv::SEQUENCE, &[&oid, if critical { TRUE } else { &[] }, &value])
    };
    let identifier = |key: &[u8]| HashAlgorithm::Sha1.digest(key);
    let ca = issuer.certificate();
    let authority = ca.subject_key_identifier().unwrap_or_else(|| identifier(ca.public_key()));
    // keyIdentifier is [0] IMPLICIT OCTET STRING.
    let authority = tlv::value(tlv::SEQUENCE, &[&tlv::value(0x80, &[&authority])]);
    let subject = tlv::value(tlv::OCTET_STRING, &[&identifier(public_key)]);
    let usage = tlv::value(tlv::OBJECT_IDENTIFIER, &[oids::OCSP_SIGNING.as_bytes()]);
    tlv::value(
        tlv::SEQUENCE,
        &[
            &extension(AUTHORITY_KEY_IDENTIFIER, false, &authority),
            &extension(SUBJECT_KEY_IDENTIFIER, false, &subject),
            &extension(KEY_USAGE, true, DIGITAL_SIGNATURE),
            &extension(oids::EXTENDED_KEY_USAGE.as_bytes(), false, &tlv::value(tlv::SEQUENCE, &[&usage])),
            &extension(oids::OCSP_NO_CHECK.as_bytes(), false, &[tlv::NULL, 0]),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Certificate;
    use super::super::delegation::{Delegation, DelegationError, Warning};
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    };

    const NOW: UnixTime = UnixTime(1_795_315_054);
    const DAY: Duration = Duration::from_secs(86_400);

    struct TestCa {
        key: KeyPair,
        params: CertificateParams,
        issuer: Issuer,
    }

    fn ca(name: &str, usages: &[KeyUsagePurpose]) -> TestCa {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages.to_vec();
        let certificate = params.self_signed(&key).unwrap();
        TestCa { key, params, issuer: Issuer::from_der(certificate.der()).unwrap() }
    }

    fn leaf(ca: &TestCa, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let issuer = rcgen::Issuer::from_params(&ca.params, &ca.key);
        Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap()
    }

    fn request(subject: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        let point = signature::KeyPair::public_key(&key).as_ref();
        let identifier =
            b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
        let info = tlv::value(tlv::SEQUENCE, &[identifier, &tlv::bit_string(point)]);
        let request = RequestInfo::new(subject, &info).unwrap();
        let signature = key.sign(&random, request.der()).unwrap();
        request.signed(SignatureAlgorithm::EcdsaP256Sha256, signature.as_ref())
    }

    /// C18, C19, B12, L6.
    #[test]
    fn a_certified_delegate_breaks_and_bends_no_rule() {
        let ca = ca("Good CA", &[KeyUsagePurpose::KeyCertSign]);
        let key = CaKey::from_der(ca.key.serialized_der(), &ca.issuer).unwrap();
        let der = certify(&ca.issuer, &key, &request("CN=ocsp,O=Example,C=DE"), NOW, 30 * DAY).unwrap();
        let certificate = Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.not_after().0 - NOW.0, 30 * 86_400 - 1);
        assert_eq!(certificate.authority_key_identifier(), ca.issuer.certificate().subject_key_identifier());
        let delegation = Delegation::check(&ca.issuer, certificate, NOW).unwrap();
        assert_eq!(delegation.warnings(), []);
        assert!(delegation.is_delegated());
    }

    #[test]
    fn a_request_that_was_tampered_with_is_not_certified() {
        let ca = ca("Good CA", &[]);
        let key = CaKey::from_der(ca.key.serialized_der(), &ca.issuer).unwrap();
        let mut request = request("CN=ocsp");
        let at = request.windows(4).position(|window| window == b"ocsp").unwrap();
        request[at] = b'O';
        assert_eq!(certify(&ca.issuer, &key, &request, NOW, DAY), Err(IssueError::RequestSignature));
        assert!(matches!(certify(&ca.issuer, &key, &[0x30, 0], NOW, DAY), Err(IssueError::Request(_))));
        assert!(matches!(RequestInfo::new("no name", &[]), Err(IssueError::Subject { .. })));
    }

    #[test]
    fn the_key_of_another_ca_is_refused() {
        let (one, other) = (ca("One", &[]), ca("Other", &[]));
        let error = CaKey::from_der(other.key.serialized_der(), &one.issuer).unwrap_err();
        assert_eq!(error, IssueError::OtherCaKey);
        assert!(matches!(CaKey::from_der(&[1, 2, 3], &one.issuer), Err(IssueError::CaKey(_))));
    }

    /// C18, B12.
    #[test]
    fn a_certificate_that_may_not_sign_is_refused_with_the_rule() {
        let ca = ca("Good CA", &[]);
        let namesake = self::ca("Good CA", &[]);
        let stranger = self::ca("Other CA", &[]);
        let refusal = |certificate| Delegation::check(&ca.issuer, certificate, NOW).unwrap_err();
        assert!(matches!(refusal(leaf(&stranger, |_| {})), DelegationError::OtherIssuer { .. }));
        assert!(matches!(refusal(leaf(&namesake, |_| {})), DelegationError::NotSignedByIssuer(_)));
        assert_eq!(
            refusal(
                leaf(&ca, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])
            ),
            DelegationError::NoOcspSigning
        );
        assert_eq!(
            refusal(leaf(&ca, |params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
            DelegationError::NoDigitalSignature
        );
        assert_eq!(
            refusal(leaf(&ca, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
            DelegationError::IsCa
        );
        assert!(matches!(
            refusal(leaf(&ca, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))),
            DelegationError::Ended(_)
        ));
    }

    /// B12, L6.
    #[test]
    fn what_a_linter_would_say_is_a_warning() {
        let ca = ca("Good CA", &[]);
        let certificate = leaf(&ca, |params| {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names = vec![rcgen::SanType::DnsName("ocsp.example".try_into().unwrap())];
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2028, 1, 1);
        });
        let delegation = Delegation::check(&ca.issuer, certificate, NOW).unwrap();
        for expected in
            [Warning::NoNoCheck, Warning::OtherUsages, Warning::SubjectAltName, Warning::LongLived(730)]
        {
            assert!(delegation.warnings().contains(&expected), "{expected}: {:?}", delegation.warnings());
        }
    }

    /// B14.
    #[test]
    fn a_ca_signs_itself_only_with_digital_signature() {
        let own = |usages: &[KeyUsagePurpose]| {
            let ca = ca("Good CA", usages);
            let certificate = ca.issuer.certificate().clone();
            Delegation::check(&ca.issuer, certificate, NOW)
        };
        let forbidden = own(&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
        assert_eq!(forbidden.unwrap_err(), DelegationError::CaWithoutDigitalSignature);
        let allowed = own(&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature]).unwrap();
        assert!(!allowed.is_delegated());
    }

    #[test]
    fn a_signature_algorithm_must_fit_the_key() {
        let ca = ca("Good CA", &[]);
        let delegation = Delegation::check(&ca.issuer, leaf(&ca, |_| {}), NOW).unwrap();
        assert_eq!(delegation.signature_algorithm(None), Ok(SignatureAlgorithm::EcdsaP256Sha256));
        assert!(delegation.signature_algorithm(Some(SignatureAlgorithm::RsaPssSha256)).is_err());
    }
}
