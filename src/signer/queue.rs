//! Jobs on their way to a session, and where their results go.
//!
//! The queue is waited on from both worlds: callers wait for room asynchronously, session threads wait
//! for jobs with a time limit, so that they look after their session and notice a stop.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::error::{SignError, SignerError};
use super::key::{KeyReference, PreparedKey};
use super::module::lock;
use crate::ocsp::SignatureAlgorithm;

/// What is to be done.
pub(crate) enum Work {
    /// One signature.
    Sign { key: PreparedKey, message: Bytes },
    /// Find a key and prove that it belongs to the public key.
    Prepare { reference: KeyReference, algorithm: SignatureAlgorithm, public_key: Vec<u8> },
}

/// One job.
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) reply: Reply,
    /// Its session broke once: should another one break with it, the token is at fault.
    pub(crate) session_tried: bool,
    /// The token failed once, and was mended: should it fail again with this job, the job is at fault.
    pub(crate) token_tried: bool,
    /// The last signature did not verify: the session's handle for the key is not to be trusted.
    pub(crate) find_anew: bool,
    /// Holds room in the queue (retried jobs do not).
    pub(crate) room: bool,
}

impl Job {
    pub(crate) fn new(work: Work, reply: Reply) -> Self {
        Self { work, reply, session_tried: false, token_tried: false, find_anew: false, room: true }
    }

    /// Takes the reply out, for the time of a call that may hang.
    pub(crate) fn take_reply(&mut self) -> Reply {
        std::mem::replace(&mut self.reply, Reply::Nobody)
    }
}

/// Where a signature goes in a batch.
pub(crate) type Deliver = Box<dyn FnOnce(Result<Vec<u8>, SignError>) + Send>;

/// Where a result goes.
pub(crate) enum Reply {
    One(oneshot::Sender<Result<Vec<u8>, SignError>>),
    Batch(Deliver),
    Prepared(oneshot::Sender<Result<PreparedKey, SignerError>>),
    /// The reply is elsewhere.
    Nobody,
}

impl Reply {
    /// Whether nobody waits any more: the signature would be a waste of the token's time.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Prepared(sender) => sender.is_closed(),
            Self::Batch(_) | Self::Nobody => false,
        }
    }

    pub(crate) fn signed(self, signature: Vec<u8>) {
        match self {
            // The caller may have gone meanwhile: then the signature is of no use to anybody.
            Self::One(sender) => drop(sender.send(Ok(signature))),
            Self::Batch(deliver) => deliver(Ok(signature)),
            Self::Prepared(_) | Self::Nobody => {}
        }
    }

    pub(crate) fn prepared(self, key: Result<PreparedKey, SignerError>) {
        if let Self::Prepared(sender) = self {
            drop(sender.send(key));
        }
    }

    pub(crate) fn fail(self, error: SignError) {
        match self {
            Self::One(sender) => drop(sender.send(Err(error))),
            Self::Batch(deliver) => deliver(Err(error)),
            Self::Prepared(sender) => drop(sender.send(Err(error.into()))),
            Self::Nobody => {}
        }
    }
}

/// What a session thread found.
pub(crate) enum Popped {
    Job(Job),
    Nothing,
    /// Closed, and empty.
    End,
}

/// The bounded queue before a token.
pub(crate) struct Queue {
    jobs: Mutex<Jobs>,
    ready: Condvar,
    room: Semaphore,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(length: usize) -> Self {
        Self { jobs: Mutex::default(), ready: Condvar::new(), room: Semaphore::new(length) }
    }

    /// Hands in a job, after waiting for room. Gives it back when the queue is closed.
    pub(crate) async fn push(&self, job: Job) -> Result<(), Job> {
        let Ok(permit) = self.room.acquire().await else { return Err(job) };
        let mut jobs = lock(&self.jobs);
        if jobs.closed {
            return Err(job);
        }
        permit.forget();
        jobs.waiting.push_back(job);
        let wake = jobs.idle > 0;
        drop(jobs);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Puts a job back to be next. Takes no room: it is bounded by what sessions and verifiers hold.
    pub(crate) fn push_again(&self, mut job: Job) {
        job.room = false;
        lock(&self.jobs).waiting.push_front(job);
        self.ready.notify_one();
    }

    /// The next job, waited for at most `patience`.
    pub(crate) fn pop(&self, patience: Duration) -> Popped {
        let mut jobs = lock(&self.jobs);
        if jobs.waiting.is_empty() && !jobs.closed {
            jobs.idle += 1;
            jobs = self.ready.wait_timeout(jobs, patience).unwrap_or_else(PoisonError::into_inner).0;
            jobs.idle -= 1;
        }
        let Some(job) = jobs.waiting.pop_front() else {
            return if jobs.closed { Popped::End } else { Popped::Nothing };
        };
        drop(jobs);
        if job.room {
            self.room.add_permits(1);
        }
        Popped::Job(job)
    }

    /// Takes no more jobs. Those inside stay.
    pub(crate) fn close(&self) {
        self.room.close();
        lock(&self.jobs).closed = true;
        self.ready.notify_all();
    }

    /// Takes out every job that waits.
    pub(crate) fn drain(&self) -> Vec<Job> {
        let jobs: Vec<Job> = lock(&self.jobs).waiting.drain(..).collect();
        self.room.add_permits(jobs.iter().filter(|job| job.room).count());
        jobs
    }

    /// Jobs that wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.jobs).waiting.len()
    }

    /// Lets idle session threads look around.
    pub(crate) fn wake(&self) {
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> (Job, oneshot::Receiver<Result<PreparedKey, SignerError>>) {
        let (sender, receiver) = oneshot::channel();
        let work = Work::Prepare {
            reference: KeyReference::Label("key".into()),
            algorithm: SignatureAlgorithm::Ed25519,
            public_key: Vec::new(),
        };
        (Job::new(work, Reply::Prepared(sender)), receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_makes_callers_wait() {
        let queue = Queue::new(2);
        for _ in 0..2 {
            assert!(queue.push(job().0).await.is_ok());
        }
        let third = queue.push(job().0);
        assert!(tokio::time::timeout(Duration::from_secs(1), third).await.is_err());
        assert_eq!(queue.len(), 2);
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Job(_)));
        assert!(queue.push(job().0).await.is_ok());
        assert_eq!(queue.len(), 2);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_out_what_it_holds_and_takes_nothing() {
        let queue = Queue::new(2);
        assert!(queue.push(job().0).await.is_ok());
        queue.close();
        assert!(queue.push(job().0).await.is_err());
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Job(_)));
        assert!(matches!(queue.pop(Duration::from_secs(60)), Popped::End));
    }

    #[tokio::test]
    async fn draining_makes_room_again() {
        let queue = Queue::new(1);
        assert!(queue.push(job().0).await.is_ok());
        assert_eq!(queue.drain().len(), 1);
        assert!(queue.push(job().0).await.is_ok());
    }

    #[tokio::test]
    async fn a_caller_who_gave_up_is_noticed() {
        let (job, receiver) = job();
        assert!(!job.reply.is_abandoned());
        drop(receiver);
        assert!(job.reply.is_abandoned());
    }
}
