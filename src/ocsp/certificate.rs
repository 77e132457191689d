//! Certificates as OCSP needs them: read with x509-cert, with the original octets kept for
//! everything that is hashed, compared or sent.

use der::Decode;
use der::oid::ObjectIdentifier;
use der::oid::db::{rfc5280, rfc5912, rfc8410};
use x509_cert::Certificate as X509;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectKeyIdentifier};

use super::algorithm::KeyAlgorithm;
use super::serial::Serial;
use super::tlv::{self, Reader};
use crate::clock::UnixTime;

/// A certificate that was read.
#[derive(Clone, Debug)]
pub struct Certificate {
    x509: X509,
    der: Vec<u8>,
    serial: Serial,
    slices: Slices,
}

/// Where the parts whose octets matter stand in the DER.
#[derive(Clone, Debug)]
struct Slices {
    tbs: std::ops::Range<usize>,
    issuer: std::ops::Range<usize>,
    subject: std::ops::Range<usize>,
    public_key_info: std::ops::Range<usize>,
    public_key: std::ops::Range<usize>,
    signature_algorithm: std::ops::Range<usize>,
    signature: std::ops::Range<usize>,
}

/// Why octets are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// x509-cert does not read them.
    #[error("not an X.509 certificate: {0}")]
    NotX509(String),
    /// The frame of the certificate is not strict DER.
    #[error("not an X.509 certificate: the {0} is not strict DER")]
    NotDer(&'static str),
    /// The serial number is longer than RFC 5280 allows.
    #[error("the certificate's serial number: {0}")]
    Serial(#[from] super::serial::SerialError),
}

impl Certificate {
    /// Reads a certificate from DER.
    ///
    /// # Errors
    /// [`CertificateError`] when the octets are no certificate, or more than one.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let x509 = X509::from_der(der).map_err(|error| CertificateError::NotX509(error.to_string()))?;
        let serial = Serial::from_der_content(x509.tbs_certificate().serial_number().as_bytes())?;
        let slices = Slices::find(der)?;
        Ok(Self { x509, der: der.to_vec(), serial, slices })
    }

    /// The certificate as given.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The serial number.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// The DER of the issuer field: what a CertID's name hash covers.
    #[must_use]
    pub fn issuer_name(&self) -> &[u8] {
        &self.der[self.slices.issuer.clone()]
    }

    /// The DER of the subject field.
    #[must_use]
    pub fn subject_name(&self) -> &[u8] {
        &self.der[self.slices.subject.clone()]
    }

    /// The issuer for people, in RFC 4514 form.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.x509.tbs_certificate().issuer().to_string()
    }

    /// The subject for people, in RFC 4514 form.
    #[must_use]
    pub fn subject(&self) -> String {
        self.x509.tbs_certificate().subject().to_string()
    }

    /// The DER of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        &self.der[self.slices.public_key_info.clone()]
    }

    /// The public key: the content of its BIT STRING without the unused-bits octet. This is what a
    /// CertID's key hash and a byKey responderID cover (RFC 6960 section 4.1.1).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.der[self.slices.public_key.clone()]
    }

    /// The kind of public key, if answers can be signed with it.
    #[must_use]
    pub fn key_algorithm(&self) -> Option<KeyAlgorithm> {
        key_algorithm(self.public_key_info())
    }

    /// The start of validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        unix(&self.x509.tbs_certificate().validity().not_before)
    }

    /// The end of validity, inclusive.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        unix(&self.x509.tbs_certificate().validity().not_after)
    }

    /// The TBSCertificate as signed.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.der[self.slices.tbs.clone()]
    }

    /// The DER of the signature's AlgorithmIdentifier.
    #[must_use]
    pub fn signature_algorithm(&self) -> &[u8] {
        &self.der[self.slices.signature_algorithm.clone()]
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.der[self.slices.signature.clone()]
    }

    /// The subject key identifier extension.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<Vec<u8>> {
        let (_, found) = self.x509.tbs_certificate().get_extension::<SubjectKeyIdentifier>().ok()??;
        Some(found.0.as_bytes().to_vec())
    }

    /// The key identifier of the authority key identifier extension.
    #[must_use]
    pub fn authority_key_identifier(&self) -> Option<Vec<u8>> {
        let (_, found) = self.x509.tbs_certificate().get_extension::<AuthorityKeyIdentifier>().ok()??;
        found.key_identifier.map(|identifier| identifier.as_bytes().to_vec())
    }

    /// The key usage extension and whether it is critical.
    #[must_use]
    pub fn key_usage(&self) -> Option<(bool, KeyUsage)> {
        self.x509.tbs_certificate().get_extension::<KeyUsage>().ok()?
    }

    /// Whether basic constraints make it a CA certificate.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        let found = self.x509.tbs_certificate().get_extension::<BasicConstraints>();
        found.is_ok_and(|found| found.is_some_and(|(_, constraints)| constraints.ca))
    }

    /// An extension's criticality and the octets inside its OCTET STRING.
    #[must_use]
    pub fn extension(&self, oid: ObjectIdentifier) -> Option<(bool, &[u8])> {
        let extensions = self.x509.tbs_certificate().extensions()?;
        let found = extensions.iter().find(|extension| extension.extn_id == oid)?;
        Some((found.critical, found.extn_value.as_bytes()))
    }

    /// Whether this certificate is in force at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.not_before() <= now && now <= self.not_after()
    }
}

fn unix(time: &x509_cert::time::Time) -> UnixTime {
    UnixTime(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

/// The kind of key in a SubjectPublicKeyInfo, if answers can be signed with it.
#[must_use]
pub fn key_algorithm(public_key_info: &[u8]) -> Option<KeyAlgorithm> {
    let mut reader = Reader::new(tlv::only(public_key_info, tlv::SEQUENCE)?);
    let mut algorithm = Reader::new(reader.expect(tlv::SEQUENCE)?.content);
    let key = tlv::whole_octets(reader.expect(tlv::BIT_STRING)?.content)?;
    let oid = ObjectIdentifier::from_bytes(algorithm.expect(tlv::OBJECT_IDENTIFIER)?.content).ok()?;
    match oid {
        rfc5912::RSA_ENCRYPTION => {
            let modulus = Reader::new(tlv::only(key, tlv::SEQUENCE)?).expect(tlv::INTEGER)?.content;
            let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
            match modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()? {
                2048 => Some(KeyAlgorithm::Rsa2048),
                3072 => Some(KeyAlgorithm::Rsa3072),
                4096 => Some(KeyAlgorithm::Rsa4096),
                _ => None,
            }
        }
        rfc5912::ID_EC_PUBLIC_KEY => {
            let curve = algorithm.expect(tlv::OBJECT_IDENTIFIER)?.content;
            match ObjectIdentifier::from_bytes(curve).ok()? {
                rfc5912::SECP_256_R_1 => Some(KeyAlgorithm::P256),
                rfc5912::SECP_384_R_1 => Some(KeyAlgorithm::P384),
                _ => None,
            }
        }
        rfc8410::ID_ED_25519 => Some(KeyAlgorithm::Ed25519),
        _ => None,
    }
}

/// Whether the public key is RSA of any size.
pub(super) fn is_rsa(public_key_info: &[u8]) -> bool {
    let algorithm = tlv::only(public_key_info, tlv::SEQUENCE)
        .and_then(|content| Reader::new(content).expect(tlv::SEQUENCE));
    let oid = algorithm.and_then(|algorithm| Reader::new(algorithm.content).expect(tlv::OBJECT_IDENTIFIER));
    oid.is_some_and(|oid| oid.content == rfc5912::RSA_ENCRYPTION.as_bytes())
}

impl Slices {
    fn find(der: &[u8]) -> Result<Self, CertificateError> {
        let at = |part: &[u8]| {
            let start = part.as_ptr() as usize - der.as_ptr() as usize;
            start..start + part.len()
        };
        let part = |found: Option<tlv::Tlv<'_>>, name| {
            found.map(|found| at(found.whole)).ok_or(CertificateError::NotDer(name))
        };
        let mut outer =
            Reader::new(tlv::only(der, tlv::SEQUENCE).ok_or(CertificateError::NotDer("certificate"))?);
        let tbs = outer.expect(tlv::SEQUENCE).ok_or(CertificateError::NotDer("TBSCertificate"))?;
        let signature_algorithm = part(outer.expect(tlv::SEQUENCE), "signature algorithm")?;
        let signature = outer.expect(tlv::BIT_STRING).and_then(|bits| tlv::whole_octets(bits.content));
        let mut fields = Reader::new(tbs.content);
        fields.expect(tlv::context(0));
        part(fields.expect(tlv::INTEGER), "serial number")?;
        part(fields.expect(tlv::SEQUENCE), "signature field")?;
        let issuer = part(fields.expect(tlv::SEQUENCE), "issuer")?;
        part(fields.expect(tlv::SEQUENCE), "validity")?;
        let subject = part(fields.expect(tlv::SEQUENCE), "subject")?;
        let public_key_info = fields.expect(tlv::SEQUENCE).ok_or(CertificateError::NotDer("public key"))?;
        let mut key = Reader::new(public_key_info.content);
        key.expect(tlv::SEQUENCE);
        let public_key = key.expect(tlv::BIT_STRING).and_then(|bits| tlv::whole_octets(bits.content));
        Ok(Self {
            tbs: at(tbs.whole),
            issuer,
            subject,
            public_key_info: at(public_key_info.whole),
            public_key: at(public_key.ok_or(CertificateError::NotDer("public key"))?),
            signature_algorithm,
            signature: at(signature.ok_or(CertificateError::NotDer("signature"))?),
        })
    }
}

/// The extensions that a responder certificate is judged by.
pub(super) mod oids {
    use super::{ObjectIdentifier, rfc5280};

    pub(crate) const EXTENDED_KEY_USAGE: ObjectIdentifier = rfc5280::ID_CE_EXT_KEY_USAGE;
    pub(crate) const OCSP_SIGNING: ObjectIdentifier = rfc5280::ID_KP_OCSP_SIGNING;
    pub(crate) const OCSP_NO_CHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");
    pub(crate) const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS;
    pub(crate) const AUTHORITY_INFO_ACCESS: ObjectIdentifier = rfc5280::ID_PE_AUTHORITY_INFO_ACCESS;
    pub(crate) const SUBJECT_ALT_NAME: ObjectIdentifier = rfc5280::ID_CE_SUBJECT_ALT_NAME;
    pub(crate) const ACCESS_OCSP: ObjectIdentifier = rfc5280::ID_AD_OCSP;
}
