//! Hash and signature algorithms, with the exact octets they take on the wire.

use std::fmt;
use std::str::FromStr;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sha2::Digest;

/// A hash that a CertID may be made with (RFC 6960 section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// SHA-1: what nearly every client asks with; no security rests on it here.
    Sha1,
    /// SHA-256: what RFC 9919 asks for.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashAlgorithm {
    /// Every hash understood.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Octets of a digest.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The arcs of the object identifier.
    #[must_use]
    pub const fn oid(self) -> &'static [u32] {
        match self {
            Self::Sha1 => &[1, 3, 14, 3, 2, 26],
            Self::Sha256 => &[2, 16, 840, 1, 101, 3, 4, 2, 1],
            Self::Sha384 => &[2, 16, 840, 1, 101, 3, 4, 2, 2],
            Self::Sha512 => &[2, 16, 840, 1, 101, 3, 4, 2, 3],
        }
    }

    /// The content octets of the object identifier in DER.
    #[must_use]
    pub const fn oid_content(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"\x2b\x0e\x03\x02\x1a",
            Self::Sha256 => b"\x60\x86\x48\x01\x65\x03\x04\x02\x01",
            Self::Sha384 => b"\x60\x86\x48\x01\x65\x03\x04\x02\x02",
            Self::Sha512 => b"\x60\x86\x48\x01\x65\x03\x04\x02\x03",
        }
    }

    /// The hash with these arcs.
    #[must_use]
    pub fn from_oid(arcs: &[u32]) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.oid() == arcs)
    }

    /// The hash whose object identifier has these content octets.
    #[must_use]
    pub fn from_oid_content(content: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.oid_content() == content)
    }

    /// The digest of `data`.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => sha1::Sha1::digest(data).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(data).to_vec(),
            Self::Sha384 => sha2::Sha384::digest(data).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(data).to_vec(),
        }
    }

    /// `sha1`, `sha256`, `sha384` or `sha512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no algorithm of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {known}")]
pub struct UnknownAlgorithm {
    given: String,
    known: String,
}

fn by_name<T: Copy + fmt::Display>(text: &str, all: &[T]) -> Result<T, UnknownAlgorithm> {
    let plain = |name: &str| name.replace('-', "").to_ascii_lowercase();
    all.iter().copied().find(|each| plain(&each.to_string()) == plain(text)).ok_or_else(|| UnknownAlgorithm {
        given: text.to_owned(),
        known: all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for HashAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        by_name(text, &Self::ALL)
    }
}

/// The kind and size of a responder's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAlgorithm {
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Ed25519 (RFC 8410).
    Ed25519,
}

impl KeyAlgorithm {
    /// Every key that can sign here.
    pub const ALL: [Self; 6] =
        [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::P256, Self::P384, Self::Ed25519];

    /// `rsa-2048`, `rsa-3072`, `rsa-4096`, `p256`, `p384` or `ed25519`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Bits of the RSA modulus, none for the other kinds.
    #[must_use]
    pub const fn modulus_bits(self) -> Option<u32> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            Self::P256 | Self::P384 | Self::Ed25519 => None,
        }
    }

    /// The signature algorithm used with the key unless the configuration says otherwise.
    #[must_use]
    pub const fn default_signature(self) -> SignatureAlgorithm {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha256,
            Self::P256 => SignatureAlgorithm::EcdsaP256Sha256,
            Self::P384 => SignatureAlgorithm::EcdsaP384Sha384,
            Self::Ed25519 => SignatureAlgorithm::Ed25519,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "ecdsa-p256" | "p-256" => Ok(Self::P256),
            "ecdsa-p384" | "p-384" => Ok(Self::P384),
            other => by_name(other, &Self::ALL),
        }
    }
}

/// How an answer is signed. None of them uses SHA-1 (BR 7.1.3.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017).
    RsaPkcs1Sha256,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256, 32 octets of salt (RFC 4055).
    RsaPssSha256,
    /// ECDSA on P-256 with SHA-256 (RFC 5758).
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384 (RFC 5758).
    EcdsaP384Sha384,
    /// Ed25519 (RFC 8410).
    Ed25519,
}

impl SignatureAlgorithm {
    /// Every signature algorithm.
    pub const ALL: [Self; 5] = [
        Self::RsaPkcs1Sha256,
        Self::RsaPssSha256,
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::Ed25519,
    ];

    /// The name used in the configuration and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaPkcs1Sha256 => "rsa-sha256",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The DER of the AlgorithmIdentifier, octet for octet as BR 7.1.3.2 prescribes it: RSA with
    /// NULL parameters, ECDSA and Ed25519 without any.
    #[must_use]
    pub const fn identifier_der(self) -> &'static [u8] {
        match self {
            Self::RsaPkcs1Sha256 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
            Self::RsaPssSha256 => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
                  \xa2\x03\x02\x01\x20"
            }
            Self::EcdsaP256Sha256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            Self::EcdsaP384Sha384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            Self::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
        }
    }

    /// The algorithm with this AlgorithmIdentifier. RSA without its NULL is understood as well; other
    /// parameters are another algorithm.
    #[must_use]
    pub fn from_identifier_der(der: &[u8]) -> Option<Self> {
        const RSA_WITHOUT_NULL: &[u8] = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
        if der == RSA_WITHOUT_NULL {
            return Some(Self::RsaPkcs1Sha256);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.identifier_der() == der)
    }

    /// The hash applied to the message before the key; none for Ed25519, which takes it whole.
    #[must_use]
    pub const fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 | Self::EcdsaP256Sha256 => Some(HashAlgorithm::Sha256),
            Self::EcdsaP384Sha384 => Some(HashAlgorithm::Sha384),
            Self::Ed25519 => None,
        }
    }

    /// Whether a key of this kind can make such a signature.
    #[must_use]
    pub fn fits(self, key: KeyAlgorithm) -> bool {
        match self {
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => key.modulus_bits().is_some(),
            other => other == key.default_signature(),
        }
    }

    /// Checks `signature` over `message` with a public key.
    ///
    /// `public_key` is the content of the SubjectPublicKeyInfo's BIT STRING: an RSAPublicKey in
    /// DER, an uncompressed EC point, or 32 octets for Ed25519. ECDSA signatures are in DER.
    ///
    /// # Errors
    /// [`BadSignature`] when it does not verify, or the key does not fit the algorithm.
    pub fn verify(self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Self::Ed25519 => &signature::ED25519,
        };
        UnparsedPublicKey::new(algorithm, public_key)
            .verify(message, signature)
            .map_err(|_| BadSignature { algorithm: self })
    }
}

/// A signature did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {algorithm} signature does not verify with the public key")]
pub struct BadSignature {
    algorithm: SignatureAlgorithm,
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        by_name(text, &Self::ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_with_or_without_hyphens() {
        for hash in HashAlgorithm::ALL {
            assert_eq!(hash.name().parse::<HashAlgorithm>().unwrap(), hash);
            assert_eq!(HashAlgorithm::from_oid(hash.oid()), Some(hash));
            assert_eq!(hash.digest(b"abc").len(), hash.length());
            let oid = rasn::types::ObjectIdentifier::new(hash.oid()).unwrap();
            assert_eq!(rasn::der::encode(&oid).unwrap()[2..], *hash.oid_content());
        }
        assert_eq!("SHA-256".parse::<HashAlgorithm>().unwrap(), HashAlgorithm::Sha256);
        for key in KeyAlgorithm::ALL {
            assert_eq!(key.name().parse::<KeyAlgorithm>().unwrap(), key);
            assert!(key.default_signature().fits(key));
        }
        for algorithm in SignatureAlgorithm::ALL {
            assert_eq!(algorithm.name().parse::<SignatureAlgorithm>().unwrap(), algorithm);
        }
        assert!("md5".parse::<HashAlgorithm>().unwrap_err().to_string().contains("sha512"));
    }

    #[test]
    fn algorithm_identifiers_are_whole_der_sequences() {
        for algorithm in SignatureAlgorithm::ALL {
            let der = algorithm.identifier_der();
            assert_eq!((der[0], usize::from(der[1])), (0x30, der.len() - 2), "{algorithm}");
            assert_eq!(SignatureAlgorithm::from_identifier_der(der), Some(algorithm));
        }
    }

    #[test]
    fn pss_goes_with_any_rsa_key_and_no_other() {
        let fits: Vec<_> =
            KeyAlgorithm::ALL.into_iter().filter(|key| SignatureAlgorithm::RsaPssSha256.fits(*key)).collect();
        assert_eq!(fits, [KeyAlgorithm::Rsa2048, KeyAlgorithm::Rsa3072, KeyAlgorithm::Rsa4096]);
    }

    #[test]
    fn a_key_that_does_not_fit_verifies_nothing() {
        for algorithm in SignatureAlgorithm::ALL {
            assert!(algorithm.verify(&[4; 65], b"message", &[0; 64]).is_err());
        }
    }
}
