//! Which issuer a CertID names.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ocsp::{CertId, HashAlgorithm, Issuer};
use crate::store::IssuerId;

/// The issuers that are answered for, found by the digests in a CertID.
#[derive(Debug, Default)]
pub struct IssuerDirectory {
    by_key_hash: HashMap<Vec<u8>, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    hash: HashAlgorithm,
    name_hash: Vec<u8>,
    id: IssuerId,
    issuer: Arc<Issuer>,
}

impl IssuerDirectory {
    /// A directory of these issuers. Two CAs of one name are told apart by their keys (C5).
    #[must_use]
    pub fn new(issuers: impl IntoIterator<Item = (IssuerId, Arc<Issuer>)>) -> Self {
        let mut by_key_hash: HashMap<Vec<u8>, Vec<Entry>> = HashMap::new();
        for (id, issuer) in issuers {
            for digests in issuer.digests() {
                by_key_hash.entry(digests.key.clone()).or_default().push(Entry {
                    hash: digests.hash,
                    name_hash: digests.name.clone(),
                    id,
                    issuer: Arc::clone(&issuer),
                });
            }
        }
        Self { by_key_hash }
    }

    /// The issuer that a CertID names: both digests must match.
    #[must_use]
    pub fn find(&self, cert_id: &CertId) -> Option<(IssuerId, &Arc<Issuer>)> {
        let entries = self.by_key_hash.get(&cert_id.issuer_key_hash[..])?;
        let entry = entries.iter().find(|entry| {
            entry.hash == cert_id.hash && entry.name_hash[..] == cert_id.issuer_name_hash[..]
        })?;
        Some((entry.id, &entry.issuer))
    }
}
