//! Every signature is verified before it leaves the signer, on threads beside the sessions, so that the
//! token signs the next one meanwhile.
//!
//! On a fast token under load signatures travel in groups: waking a thread for each of them costs as
//! much as a good part of a P-256 signature. A group waits for at most a millisecond, and never while a
//! session has nothing else to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::SignError;
use super::module::lock;
use super::pool::Pool;
use super::queue::{Job, Work};
use crate::clock::Stopwatch;

/// Signatures that travel together at the most.
const GROUP: usize = 16;
/// How long the first of a group waits for the others.
const GROUP_TIME: Duration = Duration::from_millis(1);

/// Signatures of one session on their way to the verifiers.
#[derive(Default)]
pub(crate) struct Group {
    checks: Vec<Check>,
    since: Option<Stopwatch>,
}

impl Group {
    /// Adds a signature. Whether the group is to go now: on a token that is not fast, always.
    pub(crate) fn add(&mut self, job: Job, signature: Vec<u8>, took: Duration) -> bool {
        self.checks.push(Check { job, signature });
        let since = *self.since.get_or_insert_with(Stopwatch::start);
        self.checks.len() >= GROUP || took >= GROUP_TIME / 2 || since.elapsed() >= GROUP_TIME
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> Vec<Check> {
        self.since = None;
        std::mem::take(&mut self.checks)
    }
}

/// A signature to verify.
pub(crate) struct Check {
    pub(crate) job: Job,
    pub(crate) signature: Vec<u8>,
}

/// The way from the session threads to the verifier threads.
pub(crate) struct Verification {
    sender: async_channel::Sender<Vec<Check>>,
    receiver: async_channel::Receiver<Vec<Check>>,
    /// How many threads verify; none only in measurements of what verification costs.
    threads: usize,
}

impl Verification {
    /// For `threads` verifiers. Enough room that a verifier never waits for a session, little enough
    /// that a slow verifier holds the sessions back.
    pub(crate) fn new(threads: usize) -> Self {
        let (sender, receiver) = async_channel::bounded((threads * 4).max(8));
        Self { sender, receiver, threads }
    }

    /// Lets the verifiers go home when they have done what is waiting.
    pub(crate) fn close(&self) {
        self.sender.close();
    }
}

impl Pool {
    /// Hands signatures on; waits while the verifiers are behind.
    pub(crate) fn hand_on(&self, group: Vec<Check>) {
        if group.is_empty() {
            return;
        }
        if self.verification.threads == 0 {
            for Check { job, signature } in group {
                self.stats.signed.fetch_add(1, Ordering::Relaxed);
                self.queue.count_verified(u64::from(job.measured));
                self.load.note_progress();
                job.reply.signed(signature);
            }
        } else if let Err(refused) = self.verification.sender.send_blocking(group) {
            for Check { job, .. } in refused.into_inner() {
                job.reply.fail(SignError::Stopped { token: Arc::clone(&self.token) });
            }
        }
    }

    /// The life of a verifier thread.
    pub(crate) fn verify(&self) {
        while let Ok(group) = self.verification.receiver.recv_blocking() {
            let mut good = Vec::with_capacity(group.len());
            let mut measured = 0;
            for Check { job, signature } in group {
                let Work::Sign { key, message } = &job.work else { continue };
                let prepared = &key.0;
                if prepared.algorithm.verify(&prepared.public_key, message, &signature).is_ok() {
                    measured += u64::from(job.measured);
                    good.push((job.reply, signature));
                } else {
                    self.unverified(job);
                }
            }
            if !good.is_empty() {
                self.stats.signed.fetch_add(good.len() as u64, Ordering::Relaxed);
                self.queue.count_verified(measured);
                self.load.note_progress();
                self.item_signed();
            }
            // All at once: whoever waits for a batch is woken once.
            for (reply, signature) in good {
                reply.signed(signature);
            }
        }
    }

    /// A signature that does not verify is never given out: the key is found anew and it is made again,
    /// once. After a restart of an HSM an old handle may name another key.
    fn unverified(&self, mut job: Job) {
        let Work::Sign { key, .. } = &job.work else { return };
        let prepared = Arc::clone(&key.0);
        self.stats.unverified.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(token = %self.token, key = %prepared.name, again = job.find_anew, "a signature does not verify");
        if std::mem::replace(&mut job.find_anew, true) {
            let error = SignError::Unverifiable {
                token: Arc::clone(&self.token),
                key: Arc::clone(&prepared.name),
                algorithm: prepared.algorithm,
            };
            job.reply.fail(error.clone());
            if self.item_failed() {
                let generation = lock(&self.module).as_ref().map_or(0, |using| using.module().generation());
                self.trip(&error.into(), generation);
            }
        } else {
            self.try_again(job);
        }
    }
}
