//! The session threads of one signer, as the others see them: who works, who hangs, who mends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::SignError;
use super::module::lock;
use super::pool::{LOOK_AROUND, Pool, backoff};
use super::queue::{Job, Reply};
use super::stats::TokenState;
use super::verify::{Check, Group};
use crate::clock::Stopwatch;

/// Every so many tries the module is initialised anew even if another token serves well through it.
const FORCED: u32 = 5;

/// Who works, and how the token stands.
#[derive(Default)]
pub(crate) struct Crew {
    pub(crate) workers: Vec<Arc<Worker>>,
    pub(crate) next: u64,
    pub(crate) mender: Option<u64>,
    pub(crate) tries: u32,
    /// How often in a row it failed again soon after it was mended.
    pub(crate) flaps: u32,
    /// When it was mended last, by the age of the pool.
    pub(crate) mended: Option<Duration>,
    /// When the next try is due, by the age of the pool.
    pub(crate) next_try: Duration,
    /// The generation of the module that failed.
    pub(crate) failed_generation: u64,
    pub(crate) stopping: bool,
    /// When failing items made it suspect, by the age of the pool.
    pub(crate) suspected: Option<Duration>,
}

/// One session thread, as the others see it.
pub(crate) struct Worker {
    pub(crate) number: u64,
    call: Mutex<Option<Call>>,
    /// Signatures made and not yet handed on; should the next call hang, the watcher hands them on.
    signed: Mutex<Group>,
    hung: AtomicBool,
    connected: AtomicBool,
}

/// A call into the module that is under way.
struct Call {
    what: &'static str,
    since: Stopwatch,
    reply: Option<Reply>,
}

impl Worker {
    /// Notes that a call begins, with the reply to fail should it not come back.
    pub(crate) fn begin(&self, what: &'static str, reply: Option<Reply>) {
        *lock(&self.call) = Some(Call { what, since: Stopwatch::start(), reply });
    }

    /// Notes that the call came back: the reply, unless it was failed meanwhile, and the time taken.
    pub(crate) fn end(&self) -> (Option<Reply>, Duration) {
        lock(&self.call).take().map_or((None, Duration::ZERO), |call| (call.reply, call.since.elapsed()))
    }

    /// Whether the thread was given up; it asks to be taken back with [`Pool::rejoin`].
    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::SeqCst)
    }

    /// Keeps a signature of one of so many sessions, and how long it took, for its group. Whether the
    /// group is to go now.
    pub(crate) fn keep(&self, job: Job, signature: Vec<u8>, took: Duration, sessions: u16) -> bool {
        lock(&self.signed).add(job, signature, took, usize::from(sessions))
    }

    /// The signatures to hand on.
    pub(crate) fn take_signed(&self) -> Vec<Check> {
        lock(&self.signed).take()
    }

    /// Whether it has a session and answers.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed) && !self.is_hung()
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }
}

/// What a session thread without a session is to do.
pub(crate) enum Duty {
    /// Nothing at present.
    Wait,
    /// Open a session and serve.
    Connect,
    /// Mend the token.
    Mend { failed_generation: u64, forced: bool },
    /// Go home.
    Leave,
}

impl Pool {
    /// What a session thread without a session is to do next. Waits a little when there is nothing.
    pub(crate) fn duty(&self, worker: &Worker) -> Duty {
        let mut crew = lock(&self.crew);
        if worker.is_hung() {
            return Duty::Leave;
        }
        let state = self.state();
        if crew.stopping && state != TokenState::Serving {
            return Duty::Leave;
        }
        let mut patience = LOOK_AROUND;
        match state {
            TokenState::Serving => return Duty::Connect,
            TokenState::Recovering { .. } | TokenState::Down { .. } if crew.mender.is_none() => {
                let now = self.age.elapsed();
                if now >= crew.next_try {
                    crew.mender = Some(worker.number);
                    self.stats.recoveries.fetch_add(1, Ordering::Relaxed);
                    let forced = (crew.tries + crew.flaps) % FORCED == FORCED - 1;
                    return Duty::Mend { failed_generation: crew.failed_generation, forced };
                }
                patience = patience.min(crew.next_try - now);
            }
            _ => {}
        }
        drop(self.changed.wait_timeout(crew, patience).unwrap_or_else(PoisonError::into_inner));
        Duty::Wait
    }

    /// Whether another session thread than this one has a session.
    pub(crate) fn others_connected(&self, worker: &Worker) -> bool {
        let crew = lock(&self.crew);
        crew.workers.iter().any(|each| each.number != worker.number && each.is_connected())
    }

    /// Waits a while, or until something changes.
    pub(crate) fn rest(&self) {
        self.wait_for_change(LOOK_AROUND);
    }

    /// Puts a new session thread on the list.
    pub(crate) fn enlist(&self) -> Arc<Worker> {
        let mut crew = lock(&self.crew);
        let worker = Arc::new(Worker {
            number: crew.next,
            call: Mutex::default(),
            signed: Mutex::default(),
            hung: AtomicBool::new(false),
            connected: AtomicBool::new(false),
        });
        crew.next += 1;
        crew.workers.push(Arc::clone(&worker));
        worker
    }

    /// Takes a session thread off the list: it ends.
    pub(crate) fn discharge(&self, worker: &Worker) {
        let mut crew = lock(&self.crew);
        crew.workers.retain(|each| each.number != worker.number);
        if crew.mender == Some(worker.number) {
            crew.mender = None;
        }
        self.changed.notify_all();
    }

    /// A thread whose call came back after it was given up: whether there is work for it.
    pub(crate) fn rejoin(&self, worker: &Worker) -> bool {
        let crew = lock(&self.crew);
        let working = crew.workers.iter().filter(|each| !each.is_hung()).count();
        let wanted = working < usize::from(self.settings.sessions) && !crew.stopping;
        if wanted {
            worker.hung.store(false, Ordering::SeqCst);
            tracing::info!(token = %self.token, thread = worker.number, "a hung call came back");
        }
        wanted
    }

    /// Gives up calls that take too long, and says how many session threads are missing. There are never
    /// more than twice the configured sessions.
    pub(crate) fn watch_calls(&self) -> usize {
        let mut late = Vec::new();
        let mut left_behind = Vec::new();
        let mut crew = lock(&self.crew);
        let mut mender_hangs = false;
        for worker in &crew.workers {
            let mut call = lock(&worker.call);
            let Some(under_way) = call.as_mut() else { continue };
            if worker.is_hung() || under_way.since.elapsed() <= self.settings.call_timeout {
                continue;
            }
            worker.hung.store(true, Ordering::SeqCst);
            self.stats.timeouts.fetch_add(1, Ordering::Relaxed);
            tracing::error!(token = %self.token, thread = worker.number, call = under_way.what, "a call into the module does not come back");
            late.extend(under_way.reply.take());
            left_behind.push(worker.take_signed());
            mender_hangs |= crew.mender == Some(worker.number);
        }
        if mender_hangs {
            crew.mender = None;
            crew.tries += 1;
            crew.next_try = self.age.elapsed() + backoff(crew.tries);
            let reason = format!("mending it took longer than {:?}", self.settings.call_timeout);
            self.set_state(TokenState::Down { reason: reason.into(), tries: crew.tries });
        }
        let hung = crew.workers.iter().filter(|worker| worker.is_hung()).count();
        let working = crew.workers.len() - hung;
        let sessions = usize::from(self.settings.sessions);
        let missing = if crew.stopping {
            0
        } else {
            sessions.min((2 * sessions).saturating_sub(hung)).saturating_sub(working)
        };
        let abandoned = working == 0 && missing == 0 && hung > 0 && !crew.stopping;
        if abandoned && !matches!(self.state(), TokenState::Down { .. } | TokenState::PinRefused { .. }) {
            let reason = format!(
                "{hung} calls into the module have not come back within {:?}; look at the HSM and its network, and restart this process if they are well",
                self.settings.call_timeout
            );
            crew.next_try = self.age.elapsed();
            self.set_state(TokenState::Down { reason: reason.into(), tries: crew.tries });
        }
        drop(crew);
        if !left_behind.is_empty() {
            self.queue.forget_slice();
        }
        for group in left_behind {
            self.hand_on(group);
        }
        for reply in late {
            reply.fail(SignError::TimedOut {
                token: Arc::clone(&self.token),
                after: self.settings.call_timeout,
            });
        }
        if self.refusal().is_some() {
            self.fail_waiting();
        }
        missing
    }

    /// Session threads that still work, and those that hang.
    pub(crate) fn crew_size(&self) -> (usize, usize) {
        let crew = lock(&self.crew);
        let hung = crew.workers.iter().filter(|worker| worker.is_hung()).count();
        (crew.workers.len() - hung, hung)
    }

    /// Waits until something changes with the crew, `patience` at most.
    pub(crate) fn wait_for_change(&self, patience: Duration) {
        let crew = lock(&self.crew);
        drop(self.changed.wait_timeout(crew, patience).unwrap_or_else(PoisonError::into_inner));
    }
}
