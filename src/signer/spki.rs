//! Public keys between PKCS#11 attributes and SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};

use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// CKA_EC_PARAMS: the curve's object identifier.
pub(crate) const P256_PARAMS: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// See [`P256_PARAMS`].
pub(crate) const P384_PARAMS: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
/// The PrintableString `edwards25519`, as PKCS#11 3.0 names the curve.
pub(crate) const ED25519_PARAMS: &[u8] = b"\x13\x0cedwards25519";
/// The curve by the object identifier of RFC 8410, which some tokens have instead.
const ED25519_OID_PARAMS: &[u8] = b"\x06\x03\x2b\x65\x70";

/// The kind of key that CKA_EC_PARAMS stands for.
pub(crate) fn curve(params: &[u8]) -> Option<KeyAlgorithm> {
    match params {
        P256_PARAMS => Some(KeyAlgorithm::P256),
        P384_PARAMS => Some(KeyAlgorithm::P384),
        ED25519_PARAMS | ED25519_OID_PARAMS => Some(KeyAlgorithm::Ed25519),
        _ => None,
    }
}

/// The RSA key of that many bits.
pub(crate) fn rsa_of_bits(bits: u64) -> Option<KeyAlgorithm> {
    KeyAlgorithm::ALL.into_iter().find(|key| key.modulus_bits().is_some_and(|known| u64::from(known) == bits))
}

/// Bits of an unsigned big-endian number.
pub(crate) fn bits(number: &[u8]) -> u64 {
    let digits = number.iter().skip_while(|octet| **octet == 0);
    let first = digits.clone().next().map_or(0, |octet| u64::from(octet.leading_zeros()));
    (digits.count() as u64 * 8).saturating_sub(first)
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

#[derive(Sequence)]
struct AlgorithmIdentifier<'a> {
    algorithm: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct SubjectPublicKeyInfo<'a> {
    algorithm: AlgorithmIdentifier<'a>,
    subject_public_key: BitStringRef<'a>,
}

/// A public key as its token shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Kind and size.
    pub algorithm: KeyAlgorithm,
    /// The SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// The content of its BIT STRING: what [`SignatureAlgorithm::verify`] takes.
    pub key: Vec<u8>,
}

impl PublicKey {
    /// From CKA_MODULUS and CKA_PUBLIC_EXPONENT.
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let algorithm = rsa_of_bits(bits(modulus))?;
        let key =
            RsaPublicKey { modulus: UintRef::new(modulus).ok()?, exponent: UintRef::new(exponent).ok()? }
                .to_der()
                .ok()?;
        Self::new(algorithm, key)
    }

    /// From CKA_EC_PARAMS and CKA_EC_POINT: an OCTET STRING around the point as PKCS#11 has it, or the
    /// bare point, as some tokens do.
    pub(crate) fn ec(params: &[u8], point: &[u8]) -> Option<Self> {
        let algorithm = curve(params)?;
        let fits = |point: &[u8]| match algorithm {
            KeyAlgorithm::P256 => point.len() == 65 && point[0] == 4,
            KeyAlgorithm::P384 => point.len() == 97 && point[0] == 4,
            _ => point.len() == 32,
        };
        let wrapped = <&OctetStringRef>::from_der(point).ok().map(OctetStringRef::as_bytes);
        let key = wrapped.filter(|inner| fits(inner)).or_else(|| fits(point).then_some(point))?;
        Self::new(algorithm, key.to_vec())
    }

    fn new(algorithm: KeyAlgorithm, key: Vec<u8>) -> Option<Self> {
        let (oid, parameters) = match algorithm {
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
                (RSA, Some(AnyRef::NULL))
            }
            KeyAlgorithm::P256 => (EC, Some(AnyRef::from(&P256))),
            KeyAlgorithm::P384 => (EC, Some(AnyRef::from(&P384))),
            KeyAlgorithm::Ed25519 => (ED25519, None),
        };
        let spki = SubjectPublicKeyInfo {
            algorithm: AlgorithmIdentifier { algorithm: oid, parameters },
            subject_public_key: BitStringRef::from_bytes(&key).ok()?,
        }
        .to_der()
        .ok()?;
        Some(Self { algorithm, spki, key })
    }
}

/// The kind and size of a public key, given as the content of the BIT STRING and what it verifies.
pub(crate) fn key_algorithm(public_key: &[u8], algorithm: SignatureAlgorithm) -> Option<KeyAlgorithm> {
    match algorithm {
        SignatureAlgorithm::RsaPkcs1Sha256 | SignatureAlgorithm::RsaPssSha256 => {
            rsa_of_bits(bits(RsaPublicKey::from_der(public_key).ok()?.modulus.as_bytes()))
        }
        SignatureAlgorithm::EcdsaP256Sha256 => (public_key.len() == 65).then_some(KeyAlgorithm::P256),
        SignatureAlgorithm::EcdsaP384Sha384 => (public_key.len() == 97).then_some(KeyAlgorithm::P384),
        SignatureAlgorithm::Ed25519 => (public_key.len() == 32).then_some(KeyAlgorithm::Ed25519),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_parameters_are_the_object_identifiers() {
        assert_eq!(P256.to_der().unwrap(), P256_PARAMS);
        assert_eq!(P384.to_der().unwrap(), P384_PARAMS);
        assert_eq!(ED25519.to_der().unwrap(), ED25519_OID_PARAMS);
    }

    #[test]
    fn an_ec_point_is_taken_wrapped_and_bare() {
        let point = [&[4_u8][..], &[7; 64]].concat();
        let wrapped = [&[0x04, 65][..], &point].concat();
        let key = PublicKey::ec(P256_PARAMS, &wrapped).unwrap();
        assert_eq!(key.key, point);
        assert_eq!(PublicKey::ec(P256_PARAMS, &point).unwrap(), key);
        assert!(PublicKey::ec(P256_PARAMS, &point[..64]).is_none());
        assert_eq!(
            x509_cert::spki::SubjectPublicKeyInfoRef::from_der(&key.spki).unwrap().to_der().unwrap(),
            key.spki
        );
    }

    #[test]
    fn an_rsa_modulus_counts_its_bits_without_leading_zeros() {
        let mut modulus = vec![0; 257];
        modulus[1] = 0x80;
        assert_eq!(bits(&modulus), 2048);
        let key = PublicKey::rsa(&modulus, &[1, 0, 1]).unwrap();
        assert_eq!(key.algorithm, KeyAlgorithm::Rsa2048);
        assert_eq!(key_algorithm(&key.key, SignatureAlgorithm::RsaPssSha256), Some(KeyAlgorithm::Rsa2048));
        assert_eq!(bits(&[0, 0]), 0);
        assert!(PublicKey::rsa(&[0x7f; 256], &[1, 0, 1]).is_none());
    }
}
