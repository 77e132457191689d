//! CertID: how a request names a certificate (RFC 6960 section 4.1.1).

use rasn::types::{Any, Integer, ObjectIdentifier};
use rasn_pkix::AlgorithmIdentifier;
use smallvec::SmallVec;

use super::algorithm::HashAlgorithm;
use super::serial::{Serial, SerialError};
use super::tlv;

/// A digest in a CertID. Those of SHA-1 and SHA-256 are kept in place: every request holds two.
pub type Digest = SmallVec<[u8; 32]>;

/// A CertID whose hash is one of those understood.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertId {
    /// The hash that made the two digests.
    pub hash: HashAlgorithm,
    /// The digest of the issuer's name in DER.
    pub issuer_name_hash: Digest,
    /// The digest of the issuer's public key octets.
    pub issuer_key_hash: Digest,
    /// The certificate's serial number.
    pub serial: Serial,
}

/// Why a CertID cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertIdError {
    /// The hash algorithm is none of those understood.
    #[error("the CertID's hash algorithm {0} is not known")]
    UnknownHash(String),
    /// A digest has not the length of its hash.
    #[error("a digest in the CertID has {found} octets, {hash} makes {expected}", expected = hash.length())]
    DigestLength {
        /// The hash named.
        hash: HashAlgorithm,
        /// Octets found.
        found: usize,
    },
    /// The serial number is no INTEGER that a certificate can carry.
    #[error(transparent)]
    Serial(#[from] SerialError),
}

impl CertId {
    /// As rasn's type, parameters of the hash being NULL as every client in use writes them.
    #[must_use]
    pub fn to_rasn(&self) -> rasn_ocsp::CertId {
        rasn_ocsp::CertId {
            hash_algorithm: AlgorithmIdentifier {
                algorithm: ObjectIdentifier::new_unchecked(self.hash.oid().into()),
                parameters: Some(Any::new(vec![tlv::NULL, 0])),
            },
            issuer_name_hash: self.issuer_name_hash.to_vec().into(),
            issuer_key_hash: self.issuer_key_hash.to_vec().into(),
            serial_number: serial_to_rasn(&self.serial),
        }
    }
}

impl TryFrom<&rasn_ocsp::CertId> for CertId {
    type Error = CertIdError;

    /// Absent and NULL parameters of the hash are the same (RFC 8017 appendix A.2.4).
    fn try_from(cert_id: &rasn_ocsp::CertId) -> Result<Self, Self::Error> {
        let oid = &cert_id.hash_algorithm.algorithm;
        let hash = HashAlgorithm::from_oid(oid).ok_or_else(|| CertIdError::UnknownHash(oid.to_string()))?;
        for digest in [&cert_id.issuer_name_hash, &cert_id.issuer_key_hash] {
            if digest.len() != hash.length() {
                return Err(CertIdError::DigestLength { hash, found: digest.len() });
            }
        }
        Ok(Self {
            hash,
            issuer_name_hash: cert_id.issuer_name_hash[..].into(),
            issuer_key_hash: cert_id.issuer_key_hash[..].into(),
            serial: serial_from_rasn(&cert_id.serial_number)?,
        })
    }
}

#[expect(clippy::expect_used, reason = "a DER INTEGER made from a Serial always decodes")]
fn serial_to_rasn(serial: &Serial) -> Integer {
    rasn::der::decode(&tlv::value(tlv::INTEGER, &[serial.as_der_content()])).expect("an INTEGER")
}

#[expect(clippy::expect_used, reason = "an Integer always encodes")]
fn serial_from_rasn(serial: &Integer) -> Result<Serial, SerialError> {
    let der = rasn::der::encode(serial).expect("an Integer");
    tlv::only(&der, tlv::INTEGER).map_or(Err(SerialError::TooLong), Serial::from_der_content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn serials_cross_over_to_rasn_and_back(content in proptest::collection::vec(any::<u8>(), 1..=20)) {
            let serial = Serial::from_der_content(&content).unwrap();
            prop_assert_eq!(serial_from_rasn(&serial_to_rasn(&serial)), Ok(serial));
        }
    }

    #[test]
    fn a_digest_of_the_wrong_length_names_no_issuer() {
        let cert_id = CertId {
            hash: HashAlgorithm::Sha256,
            issuer_name_hash: vec![0; 32].into(),
            issuer_key_hash: vec![0; 20].into(),
            serial: "01".parse().unwrap(),
        };
        let error = CertId::try_from(&cert_id.to_rasn()).unwrap_err();
        assert_eq!(error, CertIdError::DigestLength { hash: HashAlgorithm::Sha256, found: 20 });
    }

    /// C9.
    #[test]
    fn absent_and_null_hash_parameters_are_the_same() {
        let cert_id = CertId {
            hash: HashAlgorithm::Sha1,
            issuer_name_hash: vec![1; 20].into(),
            issuer_key_hash: vec![2; 20].into(),
            serial: "80".parse().unwrap(),
        };
        let mut bare = cert_id.to_rasn();
        bare.hash_algorithm.parameters = None;
        assert_eq!(CertId::try_from(&bare), Ok(cert_id));
    }
}
