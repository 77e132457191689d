//! Signature algorithms as PKCS#11 mechanisms.
//!
//! Hashing is done here wherever the token allows it: a digest is smaller than an answer on the way to
//! a network HSM, and SoftHSM has no hashing ECDSA mechanism.

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use sha2::Digest;

use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm, ecdsa};

/// The DER of DigestInfo for SHA-256 up to the digest (RFC 8017 section 9.2, note 1).
const DIGEST_INFO_SHA256: [u8; 19] =
    *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// How one key signs: the mechanism, what it is given, and what becomes of what it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// CKM_RSA_PKCS over a DigestInfo made here.
    RsaPkcs,
    /// CKM_SHA256_RSA_PKCS over the message.
    RsaPkcsHashing,
    /// CKM_RSA_PKCS_PSS over a digest made here.
    RsaPss,
    /// CKM_SHA256_RSA_PKCS_PSS over the message.
    RsaPssHashing,
    /// CKM_ECDSA over a SHA-256 made here.
    EcdsaP256,
    /// CKM_ECDSA over a SHA-384 made here.
    EcdsaP384,
    /// CKM_EDDSA over the message.
    Ed25519,
}

impl Scheme {
    /// The schemes for an algorithm, best first.
    pub(crate) const fn of(algorithm: SignatureAlgorithm) -> &'static [Self] {
        match algorithm {
            SignatureAlgorithm::RsaPkcs1Sha256 => &[Self::RsaPkcs, Self::RsaPkcsHashing],
            SignatureAlgorithm::RsaPssSha256 => &[Self::RsaPss, Self::RsaPssHashing],
            SignatureAlgorithm::EcdsaP256Sha256 => &[Self::EcdsaP256],
            SignatureAlgorithm::EcdsaP384Sha384 => &[Self::EcdsaP384],
            SignatureAlgorithm::Ed25519 => &[Self::Ed25519],
        }
    }

    /// The mechanism, as it appears in a token's list.
    pub(crate) const fn kind(self) -> MechanismType {
        match self {
            Self::RsaPkcs => MechanismType::RSA_PKCS,
            Self::RsaPkcsHashing => MechanismType::SHA256_RSA_PKCS,
            Self::RsaPss => MechanismType::RSA_PKCS_PSS,
            Self::RsaPssHashing => MechanismType::SHA256_RSA_PKCS_PSS,
            Self::EcdsaP256 | Self::EcdsaP384 => MechanismType::ECDSA,
            Self::Ed25519 => MechanismType::EDDSA,
        }
    }

    /// The mechanism with its parameters.
    pub(crate) fn mechanism(self) -> Mechanism<'static> {
        let pss = PkcsPssParams {
            hash_alg: MechanismType::SHA256,
            mgf: PkcsMgfType::MGF1_SHA256,
            s_len: cryptoki::types::Ulong::new(32),
        };
        match self {
            Self::RsaPkcs => Mechanism::RsaPkcs,
            Self::RsaPkcsHashing => Mechanism::Sha256RsaPkcs,
            Self::RsaPss => Mechanism::RsaPkcsPss(pss),
            Self::RsaPssHashing => Mechanism::Sha256RsaPkcsPss(pss),
            Self::EcdsaP256 | Self::EcdsaP384 => Mechanism::Ecdsa,
            Self::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
        }
    }

    /// What C_Sign is given for `message`.
    pub(crate) fn input(self, message: &[u8]) -> Input<'_> {
        match self {
            Self::RsaPkcs => Input::digest(&DIGEST_INFO_SHA256, &sha2::Sha256::digest(message)),
            Self::RsaPss | Self::EcdsaP256 => Input::digest(&[], &sha2::Sha256::digest(message)),
            Self::EcdsaP384 => Input::digest(&[], &sha2::Sha384::digest(message)),
            Self::RsaPkcsHashing | Self::RsaPssHashing | Self::Ed25519 => Input::Whole(message),
        }
    }

    /// The signature as it stands in X.509 structures; none when the token returned something else
    /// than two integers of the curve's size.
    pub(crate) fn output(self, signature: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::EcdsaP256 => ecdsa_der(&signature, 32),
            Self::EcdsaP384 => ecdsa_der(&signature, 48),
            _ => Some(signature),
        }
    }
}

/// What C_Sign is given: a digest made here, or the whole message.
pub(crate) enum Input<'a> {
    Digest([u8; 64], usize),
    Whole(&'a [u8]),
}

impl Input<'_> {
    fn digest(prefix: &[u8], digest: &[u8]) -> Self {
        let mut octets = [0; 64];
        let length = prefix.len() + digest.len();
        octets[..prefix.len()].copy_from_slice(prefix);
        octets[prefix.len()..length].copy_from_slice(digest);
        Self::Digest(octets, length)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Digest(octets, length) => &octets[..*length],
            Self::Whole(message) => message,
        }
    }
}

/// r‖s of the right width as it goes over the wire.
fn ecdsa_der(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    (signature.len() == 2 * width).then(|| ecdsa::der(signature).into_vec())
}

/// The mechanism that makes a key pair.
pub(crate) fn generation(algorithm: KeyAlgorithm) -> (MechanismType, Mechanism<'static>) {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            (MechanismType::RSA_PKCS_KEY_PAIR_GEN, Mechanism::RsaPkcsKeyPairGen)
        }
        KeyAlgorithm::P256 | KeyAlgorithm::P384 => {
            (MechanismType::ECC_KEY_PAIR_GEN, Mechanism::EccKeyPairGen)
        }
        KeyAlgorithm::Ed25519 => (MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, Mechanism::EccEdwardsKeyPairGen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecdsa_integers_are_minimal_and_positive() {
        let mut signature = vec![0; 64];
        signature[31] = 0x7f;
        signature[32] = 0x80;
        let der = ecdsa_der(&signature, 32).unwrap();
        assert_eq!(der[..6], [0x30, 38, 0x02, 1, 0x7f, 0x02]);
        assert_eq!(der[6..9], [33, 0, 0x80]);
        assert_eq!(der.len(), 40);
        assert_eq!(ecdsa_der(&[0; 64], 32).unwrap(), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert!(ecdsa_der(&[1; 63], 32).is_none());
    }

    #[test]
    fn the_widest_ecdsa_signature_fits_the_short_length_form() {
        let der = ecdsa_der(&[0xff; 96], 48).unwrap();
        assert_eq!((der.len(), der[1]), (104, 102));
    }

    #[test]
    fn every_algorithm_has_a_scheme_and_prefers_hashing_here() {
        for algorithm in SignatureAlgorithm::ALL {
            let best = Scheme::of(algorithm)[0];
            let whole = matches!(best.input(b"message"), Input::Whole(_));
            assert_eq!(whole, algorithm == SignatureAlgorithm::Ed25519, "{algorithm}");
        }
        assert_eq!(Scheme::RsaPkcs.input(b"").as_slice().len(), 51);
        assert_eq!(Scheme::EcdsaP384.input(b"").as_slice().len(), 48);
    }
}
