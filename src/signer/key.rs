//! Keys: how the operator names them, and keys that are ready to sign.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cryptoki::object::Attribute;

use super::mechanism::Scheme;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm, Verifier};

/// How a key is found in its token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyReference {
    /// By CKA_LABEL.
    Label(String),
    /// By CKA_ID.
    Id(Vec<u8>),
}

impl KeyReference {
    pub(crate) fn attribute(&self) -> Attribute {
        match self {
            Self::Label(label) => Attribute::Label(label.clone().into_bytes()),
            Self::Id(id) => Attribute::Id(id.clone()),
        }
    }
}

/// Octets as lower-case hex.
pub(crate) fn hex(octets: &[u8]) -> String {
    use fmt::Write;
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

impl fmt::Display for KeyReference {
    /// The label, or `id:` and hex: the form kept in the store and understood by [`FromStr`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => f.write_str(label),
            Self::Id(id) => write!(f, "id:{}", hex(id)),
        }
    }
}

/// The text is no key reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no key: give a label (CKA_LABEL), or id: and CKA_ID in hex, for example id:01ab")]
pub struct BadKeyReference(String);

impl FromStr for KeyReference {
    type Err = BadKeyReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadKeyReference(text.to_owned());
        let Some(digits) = text.strip_prefix("id:") else {
            return if text.is_empty() { Err(bad()) } else { Ok(Self::Label(text.to_owned())) };
        };
        if digits.is_empty() || digits.len() % 2 != 0 || !digits.is_ascii() {
            return Err(bad());
        }
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16))
            .collect::<Result<_, _>>()
            .map(Self::Id)
            .map_err(|_| bad())
    }
}

/// A private key that was found in its token and proved to belong to its public key. Cheap to clone;
/// outlives sessions and re-initialisations.
#[derive(Clone)]
pub struct PreparedKey(pub(crate) Arc<Prepared>);

pub(crate) struct Prepared {
    /// The number of the signer that prepared it.
    pub(crate) signer: u64,
    /// Unique in the process: sessions keep their handles by it.
    pub(crate) number: u64,
    pub(crate) reference: KeyReference,
    /// The reference as text, for errors.
    pub(crate) name: Arc<str>,
    pub(crate) key_algorithm: KeyAlgorithm,
    /// How it signs, and what its signatures are verified with.
    pub(crate) verifier: Verifier,
    pub(crate) scheme: Scheme,
}

impl PreparedKey {
    /// How the key is found in its token.
    #[must_use]
    pub fn reference(&self) -> &KeyReference {
        &self.0.reference
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.0.verifier.algorithm()
    }

    /// Its kind and size.
    #[must_use]
    pub fn key_algorithm(&self) -> KeyAlgorithm {
        self.0.key_algorithm
    }

    /// The content of the SubjectPublicKeyInfo's BIT STRING.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.0.verifier.public_key()
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedKey")
            .field("reference", &self.0.reference)
            .field("algorithm", &self.algorithm())
            .field("key_algorithm", &self.0.key_algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reference_is_read_back_as_it_prints() {
        for reference in [KeyReference::Label("ocsp-demo-1".into()), KeyReference::Id(vec![0, 0xab])] {
            assert_eq!(reference.to_string().parse::<KeyReference>().unwrap(), reference);
        }
        for bad in ["", "id:", "id:1", "id:zz", "id:é1"] {
            assert!(bad.parse::<KeyReference>().unwrap_err().to_string().contains("CKA_ID in hex"), "{bad}");
        }
    }
}
