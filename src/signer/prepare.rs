//! Proving that a key in the token is the one a certificate was issued for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::class::{classify, code_of, is_vague};
use super::error::{FailureClass, SignerError, misfit};
use super::key::{KeyReference, Prepared, PreparedKey};
use super::mechanism::Scheme;
use super::module::lock;
use super::pool::Pool;
use super::spki;
use super::token::Connection;
use crate::clock::Stopwatch;
use crate::ocsp::{KeyAlgorithm, SignatureAlgorithm, Verifier};

/// What is signed to prove that a key belongs to its certificate: nothing that could pass for a
/// structure of X.509.
pub(crate) const PROOF: &[u8] = b"goodstanding: does this key belong to this certificate?";

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

impl Pool {
    /// Finds a key, proves that it belongs to the public key, and makes it known to the signer.
    pub(crate) fn prepare(
        &self,
        connection: &Connection,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        public_key: Vec<u8>,
    ) -> Result<PreparedKey, SignerError> {
        let scheme = self.prove(connection, reference, algorithm, &public_key, Scheme::of(algorithm))?;
        let key_algorithm = self.key_algorithm(reference, algorithm, &public_key)?;
        let prepared = Arc::new(Prepared {
            signer: self.number,
            number: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            reference: reference.clone(),
            name: reference.to_string().into(),
            key_algorithm,
            verifier: Verifier::new(algorithm, public_key),
            scheme,
        });
        let mut keys = lock(&self.keys);
        keys.retain(|key| key.strong_count() > 0);
        keys.push(Arc::downgrade(&prepared));
        Ok(PreparedKey(prepared))
    }

    fn key_algorithm(
        &self,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        public_key: &[u8],
    ) -> Result<KeyAlgorithm, SignerError> {
        spki::key_algorithm(public_key, algorithm).ok_or_else(|| SignerError::KeyUnfit {
            token: self.settings.name.clone(),
            key: reference.clone(),
            what: format!("the certificate's public key: {}", misfit(None, algorithm)),
        })
    }

    /// Finds the key, signs and verifies. Returns the first of the schemes that works.
    pub(crate) fn prove(
        &self,
        connection: &Connection,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        public_key: &[u8],
        schemes: &[Scheme],
    ) -> Result<Scheme, SignerError> {
        let wanted = self.key_algorithm(reference, algorithm, public_key)?;
        let handle = connection.private_key(reference)?;
        connection.check_fit(handle, reference, wanted, algorithm)?;
        let mechanisms = connection.mechanisms()?;
        let mut refused = None;
        for scheme in schemes.iter().filter(|scheme| mechanisms.contains(&scheme.kind())) {
            let watch = Stopwatch::start();
            let signed = connection.sign(*scheme, handle, PROOF);
            let took = watch.elapsed();
            match signed {
                Ok(Some(signature)) if algorithm.verify(public_key, PROOF, &signature).is_ok() => {
                    self.load.guess(self.settings.sessions, took);
                    return Ok(*scheme);
                }
                Ok(_) => {
                    return Err(SignerError::KeyMismatch {
                        token: self.settings.name.clone(),
                        key: reference.clone(),
                        algorithm,
                    });
                }
                // A mechanism that does not work is refused with whatever code its vendor likes.
                Err(error) if classify(&error) == FailureClass::Request || is_vague(&code_of(&error)) => {
                    refused = Some(error);
                }
                Err(error) => return Err(connection.failure("signing to try a key", &error)),
            }
        }
        Err(match refused {
            Some(error) => connection.failure("signing to try a key", &error),
            None => SignerError::MechanismMissing {
                token: self.settings.name.clone(),
                act: "sign with",
                algorithm: algorithm.to_string(),
                mechanisms: schemes
                    .iter()
                    .map(|scheme| scheme.kind().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            },
        })
    }
}
