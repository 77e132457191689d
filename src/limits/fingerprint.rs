//! What stands for a key of a limit in memory: 128 bits of it under a random secret.
//!
//! A limiter knows millions of keys, and each decision looks at a handful of them that no cache holds.
//! Sixteen octets lie in the table itself, where the text would be one more place in memory to go to.
//! Two keys are taken for one with a chance of 2⁻¹²⁸ a pair: at a billion keys, once in 10²¹ books; and
//! nobody who does not know the secret can make two that are.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// A key of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64, u64);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// The secret of one book.
#[derive(Clone, Debug, Default)]
pub(super) struct Secret(RandomState);

impl Secret {
    /// Two hashes of 64 bits: of the key, and of the key with something after it. To a keyed hash
    /// (SipHash) those are two texts like any other two, and the second costs one block more.
    pub(super) fn fingerprint(&self, key: &str) -> Fingerprint {
        let mut hasher = self.0.build_hasher();
        key.hash(&mut hasher);
        let first = hasher.finish();
        hasher.write_u64(0);
        Fingerprint(first, hasher.finish())
    }
}

/// Takes the first half of a fingerprint for its hash: it is one.
#[derive(Clone, Debug, Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A map by fingerprint.
pub(super) type ByFingerprint<T> = HashMap<Fingerprint, T, BuildHasherDefault<AsIs>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_fingerprint_in_a_book_and_another_in_the_next() {
        let (one, other) = (Secret::default(), Secret::default());
        assert_eq!(one.fingerprint("example.com"), one.clone().fingerprint("example.com"));
        assert_ne!(one.fingerprint("example.com"), other.fingerprint("example.com"));
        let mut map = ByFingerprint::default();
        for number in 0..10_000_u32 {
            map.insert(one.fingerprint(&format!("domain-{number}.example")), number);
        }
        assert_eq!(map.len(), 10_000);
        for number in 0..10_000_u32 {
            let key = one.fingerprint(&format!("domain-{number}.example"));
            assert_eq!(map.get(&key), Some(&number));
            assert_ne!(key.0, key.1, "the halves are two hashes");
        }
    }
}
