//! The issuer: the CA that issued the certificates asked about.

use der::oid::ObjectIdentifier;
use der::oid::db::{rfc5912, rfc8410};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::algorithm::{HashAlgorithm, KeyAlgorithm, SignatureAlgorithm};
use super::cert_id::CertId;
use super::certificate::{Certificate, CertificateError};
use super::serial::Serial;
use super::tlv::{self, Reader};

/// A CA certificate with the digests that CertIDs name it by.
#[derive(Clone, Debug)]
pub struct Issuer {
    certificate: Certificate,
    digests: [IssuerDigests; HashAlgorithm::ALL.len()],
}

/// The two digests that name an issuer in a CertID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerDigests {
    /// The hash that made them.
    pub hash: HashAlgorithm,
    /// Of the name's DER.
    pub name: Vec<u8>,
    /// Of the public key's octets (never the subject key identifier, C6).
    pub key: Vec<u8>,
}

impl Issuer {
    /// Reads the issuer's certificate from DER.
    ///
    /// # Errors
    /// As [`Certificate::from_der`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        Certificate::from_der(der).map(Self::new)
    }

    /// The issuer that this certificate belongs to.
    #[must_use]
    pub fn new(certificate: Certificate) -> Self {
        let digests = HashAlgorithm::ALL.map(|hash| IssuerDigests {
            hash,
            name: hash.digest(certificate.subject_name()),
            key: hash.digest(certificate.public_key()),
        });
        Self { certificate, digests }
    }

    /// The CA certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its digests, one pair a hash, in the order of [`HashAlgorithm::ALL`].
    #[must_use]
    pub const fn digests(&self) -> &[IssuerDigests] {
        &self.digests
    }

    /// The CertID of one of its certificates.
    #[must_use]
    pub fn cert_id(&self, hash: HashAlgorithm, serial: Serial) -> CertId {
        let digests = &self.digests[hash as usize];
        CertId {
            hash,
            issuer_name_hash: digests.name.clone().into(),
            issuer_key_hash: digests.key.clone().into(),
            serial,
        }
    }
}

impl Issuer {
    /// Whether this issuer's key made `signature` over `message`; none when the algorithm (an
    /// AlgorithmIdentifier in DER) is not one that can be verified here.
    #[must_use]
    pub fn has_signed(&self, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        let verification =
            verification(algorithm, self.certificate.key_algorithm(), self.certificate.public_key_info())?;
        let key = UnparsedPublicKey::new(verification, self.certificate.public_key());
        Some(key.verify(message, signature).is_ok())
    }
}

/// ring's algorithm for an AlgorithmIdentifier that a CA signs with, which may be more than
/// responders do.
fn verification(
    algorithm: &[u8],
    key: Option<KeyAlgorithm>,
    public_key_info: &[u8],
) -> Option<&'static dyn VerificationAlgorithm> {
    let oid = Reader::new(tlv::only(algorithm, tlv::SEQUENCE)?).expect(tlv::OBJECT_IDENTIFIER)?.content;
    let is_rsa = super::certificate::is_rsa(public_key_info);
    match (ObjectIdentifier::from_bytes(oid).ok()?, key) {
        (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, _) if is_rsa => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        (rfc5912::SHA_384_WITH_RSA_ENCRYPTION, _) if is_rsa => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        (rfc5912::SHA_512_WITH_RSA_ENCRYPTION, _) if is_rsa => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        (rfc5912::ID_RSASSA_PSS, _)
            if is_rsa && algorithm == SignatureAlgorithm::RsaPssSha256.identifier_der() =>
        {
            Some(&signature::RSA_PSS_2048_8192_SHA256)
        }
        (rfc5912::ECDSA_WITH_SHA_256, Some(KeyAlgorithm::P256)) => Some(&signature::ECDSA_P256_SHA256_ASN1),
        (rfc5912::ECDSA_WITH_SHA_384, Some(KeyAlgorithm::P256)) => Some(&signature::ECDSA_P256_SHA384_ASN1),
        (rfc5912::ECDSA_WITH_SHA_256, Some(KeyAlgorithm::P384)) => Some(&signature::ECDSA_P384_SHA256_ASN1),
        (rfc5912::ECDSA_WITH_SHA_384, Some(KeyAlgorithm::P384)) => Some(&signature::ECDSA_P384_SHA384_ASN1),
        (rfc8410::ID_ED_25519, Some(KeyAlgorithm::Ed25519)) => Some(&signature::ED25519),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyIdMethod, KeyPair, PublicKeyData};

    /// C6.
    #[test]
    fn the_key_hash_covers_the_key_and_not_the_key_identifier() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![0x5a; 20]);
        let issuer = Issuer::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(issuer.certificate().subject_key_identifier(), Some(vec![0x5a; 20]));
        for hash in HashAlgorithm::ALL {
            // An uncompressed point: without tag, length and unused-bits octet it begins with 4.
            assert_eq!(key.der_bytes()[0], 4);
            let cert_id = issuer.cert_id(hash, "01".parse().unwrap());
            assert_eq!(cert_id.issuer_key_hash[..], hash.digest(key.der_bytes()));
            assert_eq!(cert_id.issuer_name_hash[..], hash.digest(issuer.certificate().subject_name()));
        }
    }
}
