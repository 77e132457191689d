//! Every signature is verified before it leaves the signer, on threads beside the sessions, so that the
//! token signs the next one meanwhile.
//!
//! Under load signatures travel in groups: waking a verifier and then the caller for each of them costs as
//! much as a good part of a P-256 signature, and more than verifying one of RSA. Whoever has waited for a
//! session waits an eighth longer at the most ([`SHARE`]); answers for which nobody waits, refreshed ones and
//! all in a batch, take [`LONGEST`], which is also the most for the others. None waits while a session has nothing else to do,
//! nor so long that the sessions could run out of work because what they made has not come back to who
//! asks for more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::SignError;
use super::key::Prepared;
use super::lane::Order;
use super::module::lock;
use super::pool::Pool;
use super::queue::{Job, Work};
use crate::clock::Stopwatch;

/// Signatures that travel together at the most.
const GROUP: usize = 64;
/// The part of the time that a job has waited for its session that it may wait for others.
const SHARE: u32 = 8;
/// How long any may wait for others, however short it has waited before.
const LEAST: Duration = Duration::from_millis(1);
/// How long none waits longer for others.
const LONGEST: Duration = Duration::from_millis(100);

/// Signatures of one session on their way to the verifiers.
#[derive(Default)]
pub(crate) struct Group {
    checks: Vec<Check>,
    since: Option<Stopwatch>,
    /// When the first of them has waited long enough, from `since` on.
    limit: Duration,
}

/// How long a job that has `waited` may wait for others once it is signed.
fn patience(order: Order, waited: Duration) -> Duration {
    if order.awaited { (waited / SHARE).clamp(LEAST, LONGEST) } else { LONGEST }
}

impl Group {
    /// Adds a signature that one of so many sessions made. Whether the group is to go now: when the next
    /// signature would make it wait too long, always.
    pub(crate) fn add(&mut self, job: Job, signature: Vec<u8>, took: Duration, sessions: usize) -> bool {
        let now = self.since.get_or_insert_with(Stopwatch::start).elapsed();
        let limit = now + patience(job.order, job.age());
        self.limit = if self.checks.is_empty() { limit } else { self.limit.min(limit) };
        let behind = job.behind;
        self.checks.push(Check { job, signature });
        // As much is to wait for the sessions as they all may hold back.
        let short = behind < self.checks.len() * sessions;
        short || self.checks.len() >= GROUP || now + took >= self.limit
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

impl Check {
    /// The key that made the signature, and what it signed.
    fn signs(&self) -> Option<(&Prepared, &[u8])> {
        match &self.job.work {
            Work::Sign { key, message } => Some((&key.0, message)),
            Work::Prepare { .. } => None,
        }
    }

    fn key_number(&self) -> Option<u64> {
        self.signs().map(|(key, _)| key.number)
    }
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
            for (check, verifies) in judged(group) {
                if verifies {
                    measured += u64::from(check.job.measured);
                    good.push((check.job.reply, check.signature));
                } else {
                    self.unverified(check.job);
                }
            }
            if !good.is_empty() {
                self.stats.signed.fetch_add(good.len() as u64, Ordering::Relaxed);
                self.queue.count_verified(measured);
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
                algorithm: prepared.verifier.algorithm(),
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

/// Signatures, those of one key together, and whether each verifies.
fn judged(mut group: Vec<Check>) -> impl Iterator<Item = (Check, bool)> {
    group.sort_by_key(Check::key_number);
    let mut verdicts = Vec::with_capacity(group.len());
    for checks in group.chunk_by(|a, b| a.key_number() == b.key_number()) {
        let signed: Vec<_> =
            checks.iter().filter_map(|check| Some((check.signs()?.1, &check.signature[..]))).collect();
        match checks.first().and_then(Check::signs) {
            Some((key, _)) => verdicts.extend(key.verifier.verify_all(&signed)),
            // What is no signature does not verify.
            None => verdicts.extend(checks.iter().map(|_| false)),
        }
    }
    debug_assert_eq!(verdicts.len(), group.len());
    group.into_iter().zip(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::ocsp::SignatureAlgorithm;
    use crate::signer::KeyReference;
    use crate::signer::lane::Lane;
    use crate::signer::queue::Reply;

    /// A job of a lane behind which so many others waited.
    fn job(lane: Lane, behind: usize) -> Job {
        ordered(Order::new(lane, UnixTime(1)), behind)
    }

    fn ordered(order: Order, behind: usize) -> Job {
        let work = Work::Prepare {
            reference: KeyReference::Label("key".into()),
            algorithm: SignatureAlgorithm::Ed25519,
            public_key: Vec::new(),
        };
        let mut job = Job::new(work, order, Reply::Nobody, &Arc::default());
        job.behind = behind;
        job
    }

    /// After how many signatures of that lane and time, made without pause, a group goes.
    fn length(lane: Lane, took: Duration, behind: usize, sessions: usize) -> usize {
        let mut group = Group::default();
        (1..).find(|_| group.add(job(lane, behind), Vec::new(), took, sessions)).unwrap_or_default()
    }

    #[test]
    fn refreshed_answers_travel_together_on_a_token_of_a_millisecond_and_others_alone() {
        let millisecond = Duration::from_millis(1);
        assert_eq!(length(Lane::Refresh, millisecond / 2, 200, 2), GROUP);
        for lane in [Lane::Revocation, Lane::First, Lane::Live] {
            assert_eq!(length(lane, millisecond, 200, 2), 1, "{lane}");
        }
        assert_eq!(length(Lane::Refresh, LONGEST, 200, 2), 1, "a slow token");
    }

    #[test]
    fn whoever_has_waited_long_waits_an_eighth_longer_and_no_refreshed_answer_forever() {
        let waits =
            |lane, millis| patience(Order::new(lane, UnixTime(1)), Duration::from_millis(millis)).as_millis();
        for lane in [Lane::Revocation, Lane::First, Lane::Live] {
            assert_eq!(
                [0, 8, 80, 320, 60_000].map(|waited| waits(lane, waited)),
                [1, 1, 10, 40, 100],
                "{lane}"
            );
        }
        assert_eq!([0, 60_000].map(|waited| waits(Lane::Refresh, waited)), [100, 100]);
    }

    #[test]
    fn in_a_batch_first_answers_travel_together() {
        let mut group = Group::default();
        let first = Order::at_once(Lane::First).unhurried();
        let took = Duration::from_millis(1);
        let length = (1..).find(|_| group.add(ordered(first, 200), Vec::new(), took, 2));
        assert_eq!(length, Some(GROUP));
    }

    #[test]
    fn sessions_hold_nothing_back_that_would_leave_them_without_work() {
        let millisecond = Duration::from_millis(1);
        for lane in [Lane::First, Lane::Refresh] {
            assert_eq!(length(lane, millisecond, 0, 1), 1, "{lane}");
        }
        assert_eq!(length(Lane::Refresh, millisecond, 192, 64), 4);
        assert_eq!(length(Lane::Refresh, millisecond, 7, 2), 4);
    }

    #[test]
    fn one_that_somebody_waits_for_takes_the_others_along() {
        let mut group = Group::default();
        let took = Duration::from_millis(1);
        assert!(!group.add(job(Lane::Refresh, 100), Vec::new(), took, 2));
        assert!(group.add(job(Lane::Live, 100), Vec::new(), took, 2));
        assert_eq!(group.take().len(), 2);
        assert!(!group.add(job(Lane::Refresh, 100), Vec::new(), took, 2), "the next group begins anew");
    }

    #[test]
    fn a_group_goes_when_its_time_is_over() {
        let mut group = Group::default();
        let took = Duration::from_micros(100);
        assert!(!group.add(job(Lane::Refresh, 100), Vec::new(), took, 2));
        std::thread::sleep(LONGEST);
        assert!(group.add(job(Lane::Refresh, 100), Vec::new(), took, 2));
    }
}
