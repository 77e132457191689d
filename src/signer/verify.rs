//! Every signature is verified before it leaves the signer, on threads beside the sessions, so that the
//! token signs the next one meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::SignError;
use super::pool::Pool;
use super::queue::{Job, Work};

/// A signature to verify.
pub(crate) struct Check {
    pub(crate) job: Job,
    pub(crate) signature: Vec<u8>,
}

/// The way from the session threads to the verifier threads.
pub(crate) struct Verification {
    sender: async_channel::Sender<Check>,
    receiver: async_channel::Receiver<Check>,
    /// How many threads verify; none only in measurements of what verification costs.
    threads: usize,
}

impl Verification {
    /// For `threads` verifiers. Enough room that a verifier never waits for a session, little enough
    /// that a slow verifier holds the sessions back.
    pub(crate) fn new(threads: usize) -> Self {
        let (sender, receiver) = async_channel::bounded((threads * 32).max(64));
        Self { sender, receiver, threads }
    }

    /// Lets the verifiers go home when they have done what is waiting.
    pub(crate) fn close(&self) {
        self.sender.close();
    }
}

impl Pool {
    /// Hands a signature on; waits while the verifiers are behind.
    pub(crate) fn hand_on(&self, job: Job, signature: Vec<u8>) {
        if self.verification.threads == 0 {
            self.stats.signed.fetch_add(1, Ordering::Relaxed);
            job.reply.signed(signature);
        } else if let Err(refused) = self.verification.sender.send_blocking(Check { job, signature }) {
            refused.into_inner().job.reply.fail(SignError::Stopped { token: Arc::clone(&self.token) });
        }
    }

    /// The life of a verifier thread.
    pub(crate) fn verify(&self) {
        while let Ok(Check { mut job, signature }) = self.verification.receiver.recv_blocking() {
            let Work::Sign { key, message } = &job.work else { continue };
            let prepared = &key.0;
            if prepared.algorithm.verify(&prepared.public_key, message, &signature).is_ok() {
                self.stats.signed.fetch_add(1, Ordering::Relaxed);
                self.item_signed();
                job.reply.signed(signature);
                continue;
            }
            self.stats.unverified.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(token = %self.token, key = %prepared.name, again = job.find_anew, "a signature does not verify");
            let otherwise = SignError::Unverifiable {
                token: Arc::clone(&self.token),
                key: Arc::clone(&prepared.name),
                algorithm: prepared.algorithm,
            };
            if std::mem::replace(&mut job.find_anew, true) {
                job.reply.fail(otherwise);
            } else {
                self.try_again(job);
            }
        }
    }
}
