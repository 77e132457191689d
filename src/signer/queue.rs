//! Jobs on their way to a session, and where their results go.
//!
//! The queue is waited on from both worlds: callers wait for room asynchronously, session threads wait
//! for jobs with a time limit, so that they look after their session and notice a stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::error::{SignError, SignerError};
use super::key::{KeyReference, PreparedKey};
use super::lane::{Lane, Lanes, Order, Place};
use super::load::{Load, Meter, Outstanding, Rate};
use super::module::lock;
use super::pace::Pace;
use crate::clock::Stopwatch;
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
    pub(crate) order: Order,
    /// Where it stood in its lane, once it has been out of it.
    pub(crate) place: Option<Place>,
    pub(crate) reply: Reply,
    /// Its session broke once: should another one break with it, the token is at fault.
    pub(crate) session_tried: bool,
    /// The token failed once, and was mended: should it fail again with this job, the job is at fault.
    pub(crate) token_tried: bool,
    /// The last signature did not verify: the session's handle for the key is not to be trusted.
    pub(crate) find_anew: bool,
    /// Holds room in the queue (retried jobs do not).
    pub(crate) room: bool,
    /// Waited while every session worked: it counts for the rate.
    pub(crate) measured: bool,
    /// How many others waited when it was taken.
    pub(crate) behind: usize,
    arrived: Stopwatch,
    _outstanding: Outstanding,
}

impl Job {
    pub(crate) fn new(work: Work, order: Order, reply: Reply, load: &Arc<Load>) -> Self {
        Self {
            work,
            order,
            place: None,
            reply,
            session_tried: false,
            token_tried: false,
            find_anew: false,
            room: true,
            measured: false,
            behind: 0,
            arrived: Stopwatch::start(),
            _outstanding: load.enter(order.lane),
        }
    }

    /// How long ago it was handed in.
    pub(crate) fn age(&self) -> Duration {
        self.arrived.elapsed()
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

/// The bounded queue before a token. Every lane has room of its own, so that a full one makes nobody
/// wait in the others; the cap on signatures a second holds over all.
pub(crate) struct Queue {
    jobs: Mutex<Jobs>,
    ready: Condvar,
    room: [Semaphore; Lane::ALL.len()],
    /// Room is given back in portions, so that callers who wait for it are not woken for each job.
    portion: usize,
    pace: Option<Pace>,
    load: Arc<Load>,
    age: Stopwatch,
    /// Signatures that were verified and count for the rate.
    verified: AtomicU64,
}

#[derive(Default)]
struct Jobs {
    waiting: Lanes<Job>,
    /// Room that is free and not given back yet: never when nothing waits in the lane.
    freed: [usize; Lane::ALL.len()],
    idle: usize,
    /// One of those who wait does so for the cap, and will take the next job.
    pacing: bool,
    closed: bool,
    /// Whether the token signs: time without it says nothing of its rate.
    serving: bool,
    meter: Meter,
}

/// What waits in one lane of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneFigures {
    /// Jobs that wait for a session.
    pub queued: usize,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
}

/// What there is at the moment.
enum Next {
    Job(Job),
    Nothing,
    /// The cap allows none before.
    Later(Duration),
}

impl Queue {
    /// With room for so many jobs in each lane.
    pub(crate) fn new(room: usize, pace: Option<Pace>, load: Arc<Load>) -> Self {
        Self {
            jobs: Mutex::default(),
            ready: Condvar::new(),
            room: std::array::from_fn(|_| Semaphore::new(room)),
            portion: (room / 16).max(1),
            pace,
            load,
            age: Stopwatch::start(),
            verified: AtomicU64::new(0),
        }
    }

    /// Hands in a job, after waiting for room in its lane. Gives it back when the queue is closed.
    pub(crate) async fn push(&self, job: Job) -> Result<(), Job> {
        let Ok(permit) = self.room[job.order.lane.index()].acquire().await else { return Err(job) };
        let mut jobs = lock(&self.jobs);
        if jobs.closed {
            return Err(job);
        }
        permit.forget();
        jobs.waiting.push(job.order, None, job);
        self.weigh(&mut jobs);
        let wake = jobs.idle > 0;
        drop(jobs);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Puts a job back where it stood. Takes no room: it is bounded by what sessions and verifiers hold.
    pub(crate) fn push_again(&self, mut job: Job) {
        job.room = false;
        let mut jobs = lock(&self.jobs);
        jobs.waiting.push(job.order, job.place, job);
        self.weigh(&mut jobs);
        drop(jobs);
        self.ready.notify_one();
    }

    /// The next job, waited for at most `patience`.
    pub(crate) fn pop(&self, patience: Duration) -> Popped {
        let waited = Stopwatch::start();
        let mut jobs = lock(&self.jobs);
        loop {
            let paced = match self.take(&mut jobs) {
                Next::Job(job) => {
                    // Whoever stood back for the one who waited for the cap has his turn.
                    if self.pace.is_some() && jobs.idle > 0 && !jobs.waiting.is_empty() {
                        self.ready.notify_one();
                    }
                    return Popped::Job(job);
                }
                Next::Nothing if jobs.closed => return Popped::End,
                Next::Nothing => None,
                Next::Later(wait) => Some(wait),
            };
            let left = patience.saturating_sub(waited.elapsed());
            if left.is_zero() {
                return Popped::Nothing;
            }
            // One waits for the cap, the others for him: they could do nothing before.
            let leads = paced.is_some() && !jobs.pacing;
            jobs.pacing |= leads;
            jobs.idle += 1;
            self.weigh(&mut jobs);
            let limit = paced.filter(|_| leads).map_or(left, |wait| wait.min(left));
            jobs = self.ready.wait_timeout(jobs, limit).unwrap_or_else(PoisonError::into_inner).0;
            jobs.idle -= 1;
            if leads {
                jobs.pacing = false;
            }
        }
    }

    /// The next job, if one waits and the cap allows it now.
    pub(crate) fn try_pop(&self) -> Option<Job> {
        match self.take(&mut lock(&self.jobs)) {
            Next::Job(job) => Some(job),
            Next::Nothing | Next::Later(_) => None,
        }
    }

    /// How long a job that did not come out of the queue just now has to wait for the cap.
    pub(crate) fn book(&self) -> Duration {
        let _jobs = lock(&self.jobs);
        self.pace.as_ref().map_or(Duration::ZERO, Pace::book)
    }

    fn take(&self, jobs: &mut Jobs) -> Next {
        let Jobs { waiting, freed, .. } = jobs;
        if waiting.is_empty() {
            return Next::Nothing;
        }
        if let Some(wait) = self.pace.as_ref().map(Pace::wait).filter(|wait| !wait.is_zero()) {
            return Next::Later(wait);
        }
        let bury = |lane: Lane, job: Job| freed[lane.index()] += usize::from(job.room);
        let popped = waiting.pop(|job| job.reply.is_abandoned(), bury);
        if let Some((lane, _, job)) = &popped {
            freed[lane.index()] += usize::from(job.room);
        }
        for lane in Lane::ALL {
            let free = &mut freed[lane.index()];
            if *free >= self.portion || (*free > 0 && waiting.len(lane) == 0) {
                self.room[lane.index()].add_permits(std::mem::take(free));
            }
        }
        if popped.is_some()
            && let Some(pace) = &self.pace
        {
            pace.book();
        }
        let measured = jobs.meter.is_busy();
        if measured
            && let Some(rate) =
                jobs.meter.close_slice(self.age.elapsed(), self.verified.load(Ordering::Relaxed))
        {
            self.load.measured(rate);
        }
        self.weigh(jobs);
        let Some((_, place, mut job)) = popped else { return Next::Nothing };
        job.behind = Lane::ALL.into_iter().map(|lane| jobs.waiting.len(lane)).sum();
        job.place = Some(place);
        job.measured = measured;
        Next::Job(job)
    }

    /// Notes whether work waits for sessions that all work, or for the cap.
    fn weigh(&self, jobs: &mut Jobs) {
        let busy = jobs.serving
            && !jobs.waiting.is_empty()
            && (jobs.idle == 0
                || jobs.pacing
                || self.pace.as_ref().is_some_and(|pace| !pace.wait().is_zero()));
        jobs.meter.set_busy(busy, || self.age.elapsed());
    }

    /// Counts signatures of measured jobs, verified.
    pub(crate) fn count_verified(&self, signatures: u64) {
        self.verified.fetch_add(signatures, Ordering::Relaxed);
    }

    /// Notes whether the token signs.
    pub(crate) fn set_serving(&self, serving: bool) {
        let mut jobs = lock(&self.jobs);
        jobs.serving = serving;
        self.forget_in(&mut jobs);
        self.weigh(&mut jobs);
    }

    /// Leaves the time since the last measurement out of the rate: calls did not come back.
    pub(crate) fn forget_slice(&self) {
        self.forget_in(&mut lock(&self.jobs));
    }

    fn forget_in(&self, jobs: &mut Jobs) {
        jobs.meter.discard_slice(self.age.elapsed(), self.verified.load(Ordering::Relaxed));
    }

    /// The sustained rate, once enough work has waited.
    pub(crate) fn rate(&self) -> Option<Rate> {
        lock(&self.jobs).meter.rate()
    }

    /// Takes no more jobs. Those inside stay.
    pub(crate) fn close(&self) {
        for room in &self.room {
            room.close();
        }
        lock(&self.jobs).closed = true;
        self.ready.notify_all();
    }

    /// Takes out every job that waits.
    pub(crate) fn drain(&self) -> Vec<Job> {
        let mut jobs = lock(&self.jobs);
        let drained = jobs.waiting.drain();
        let mut freed = std::mem::take(&mut jobs.freed);
        self.weigh(&mut jobs);
        drop(jobs);
        for (lane, job) in &drained {
            freed[lane.index()] += usize::from(job.room);
        }
        for (room, freed) in self.room.iter().zip(freed) {
            room.add_permits(freed);
        }
        drained.into_iter().map(|(_, job)| job).collect()
    }

    /// What waits, by lane.
    pub(crate) fn lanes(&self) -> [LaneFigures; Lane::ALL.len()] {
        let jobs = lock(&self.jobs);
        Lane::ALL.map(|lane| LaneFigures {
            queued: jobs.waiting.len(lane),
            oldest: jobs.waiting.iter(lane).map(Job::age).max().unwrap_or_default(),
        })
    }

    /// Lets idle session threads look around.
    pub(crate) fn wake(&self) {
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::clock::UnixTime;

    type Receiver = oneshot::Receiver<Result<PreparedKey, SignerError>>;

    fn job(lane: Lane, deadline: i64) -> (Job, Receiver) {
        let (sender, receiver) = oneshot::channel();
        let work = Work::Prepare {
            reference: KeyReference::Label("key".into()),
            algorithm: SignatureAlgorithm::Ed25519,
            public_key: Vec::new(),
        };
        (
            Job::new(work, Order::new(lane, UnixTime(deadline)), Reply::Prepared(sender), &Arc::default()),
            receiver,
        )
    }

    /// Hands in a job that somebody waits for.
    async fn push(queue: &Queue, lane: Lane, deadline: i64) -> Receiver {
        let (job, receiver) = job(lane, deadline);
        assert!(queue.push(job).await.is_ok());
        receiver
    }

    fn depths(queue: &Queue) -> [usize; 4] {
        queue.lanes().map(|lane| lane.queued)
    }

    fn popped(queue: &Queue) -> (Lane, i64) {
        match queue.pop(Duration::ZERO) {
            Popped::Job(job) => (job.order.lane, job.order.deadline.0),
            Popped::Nothing | Popped::End => panic!("no job"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_lane_makes_its_own_callers_wait_and_nobody_else() {
        let queue = Queue::new(2, None, Arc::default());
        let mut receivers = Vec::new();
        for _ in 0..2 {
            receivers.push(push(&queue, Lane::Refresh, 1).await);
        }
        let third = queue.push(job(Lane::Refresh, 1).0);
        assert!(tokio::time::timeout(Duration::from_secs(1), third).await.is_err());
        for lane in [Lane::Revocation, Lane::First, Lane::Live] {
            receivers.push(push(&queue, lane, 1).await);
        }
        assert_eq!(depths(&queue), [1, 1, 1, 2]);
        for lane in [Lane::Revocation, Lane::First, Lane::Live, Lane::Refresh] {
            assert_eq!(popped(&queue).0, lane);
        }
        receivers.push(push(&queue, Lane::Refresh, 1).await);
        assert_eq!(depths(&queue), [0, 0, 0, 2]);
    }

    #[tokio::test]
    async fn a_job_put_back_is_the_next_of_its_deadline() {
        let queue = Queue::new(4, None, Arc::default());
        let mut receivers = Vec::new();
        for deadline in [5, 5, 4] {
            receivers.push(push(&queue, Lane::Refresh, deadline).await);
        }
        let Popped::Job(job) = queue.pop(Duration::ZERO) else { panic!("no job") };
        assert_eq!(job.order.deadline, UnixTime(4));
        queue.push_again(job);
        assert_eq!(popped(&queue), (Lane::Refresh, 4));
    }

    #[tokio::test]
    async fn a_closed_queue_gives_out_what_it_holds_and_takes_nothing() {
        let queue = Queue::new(2, None, Arc::default());
        let _waits = push(&queue, Lane::Live, 1).await;
        queue.close();
        assert!(queue.push(job(Lane::Live, 1).0).await.is_err());
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Job(_)));
        assert!(matches!(queue.pop(Duration::from_secs(60)), Popped::End));
    }

    #[tokio::test]
    async fn draining_makes_room_again() {
        let queue = Queue::new(1, None, Arc::default());
        let _waits = push(&queue, Lane::First, 1).await;
        assert_eq!(queue.drain().len(), 1);
        let _waits = push(&queue, Lane::First, 1).await;
    }

    #[tokio::test]
    async fn a_caller_who_gave_up_leaves_his_room_and_takes_no_turn() {
        let queue = Queue::new(1, None, Arc::default());
        drop(push(&queue, Lane::Live, 1).await);
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Nothing));
        let _waits = push(&queue, Lane::Live, 2).await;
        assert_eq!(popped(&queue), (Lane::Live, 2));
    }

    #[tokio::test]
    async fn under_a_cap_the_job_is_chosen_when_its_time_has_come() {
        let queue = Queue::new(4, NonZeroU32::new(10).map(Pace::new), Arc::default());
        let mut receivers = Vec::new();
        for deadline in 0..3 {
            receivers.push(push(&queue, Lane::Refresh, deadline).await);
        }
        assert_eq!(popped(&queue), (Lane::Refresh, 0));
        assert!(matches!(queue.pop(Duration::from_millis(1)), Popped::Nothing));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.pop(Duration::from_secs(10)));
            let after = scope.spawn(|| queue.pop(Duration::from_secs(10)));
            std::thread::sleep(Duration::from_millis(10));
            let revocation = futures_util::FutureExt::now_or_never(push(&queue, Lane::Revocation, 9));
            receivers.push(revocation.expect("there is room in its lane"));
            let mut lanes = [next, after].map(|thread| match thread.join().unwrap() {
                Popped::Job(job) => job.order.lane,
                Popped::Nothing | Popped::End => panic!("no job"),
            });
            lanes.sort();
            assert_eq!(lanes, [Lane::Revocation, Lane::Refresh], "not both of those who came before");
        });
    }
}
