//! What the threads of one signer share: the queue, the state of the token, who works.
//!
//! ```text
//!             token failure                 first try failed
//!   Serving ───────────────► Recovering ───────────────────► Down ──┐ half-open probe,
//!      ▲                         │ mended                     │  ▲   │ back-off 1 s … 60 s
//!      └─────────────────────────┴────────────────────────────┘  └──┘
//!   any ── PIN refused ──► PinRefused          any ── stop ──► Stopped
//! ```
//! One session thread at a time is the mender; the others let go of their sessions and wait.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;

use super::error::{FailureClass, SignError, SignerError};
use super::key::Prepared;
use super::module::{ModuleUse, lock};
use super::pace::Pace;
use super::queue::{Job, Queue, Reply};
use super::settings::Settings;
use super::stats::{Snapshot, Stats, TokenState};
use super::token::Connection;
use super::verify::Verification;
use crate::clock::Stopwatch;

/// How long an idle session thread sleeps before it looks around.
pub(crate) const LOOK_AROUND: Duration = Duration::from_millis(250);
/// The back-off between tries to mend a token.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Items that fail one after the other, without any success between, before the token is suspected.
const SUSPICIOUS: u32 = 16;
/// A token that fails again so soon after it was mended is mended with back-off.
const STABLE: Duration = Duration::from_secs(10);
/// Every so many tries the module is initialised anew even if another token serves well through it.
const FORCED: u32 = 5;

/// Shared by the threads and handles of one signer.
pub(crate) struct Pool {
    /// Tells keys of this signer from those of others.
    pub(crate) number: u64,
    pub(crate) token: Arc<str>,
    pub(crate) settings: Settings,
    pub(crate) pin: SecretString,
    pub(crate) module: Mutex<Option<ModuleUse>>,
    pub(crate) queue: Queue,
    pub(crate) verification: Verification,
    pub(crate) stats: Stats,
    pub(crate) pace: Option<Pace>,
    /// Every key prepared and still in use: the half-open probe signs with one.
    pub(crate) keys: Mutex<Vec<Weak<Prepared>>>,
    /// A session that nobody uses: while it lives, the login does.
    pub(crate) keeper: Mutex<Option<Connection>>,
    crew: Mutex<Crew>,
    changed: Condvar,
    state: watch::Sender<TokenState>,
    /// Not serving: sessions are to be let go.
    halted: AtomicBool,
    failures_in_a_row: AtomicU32,
    age: Stopwatch,
}

/// Who works, and how the token stands.
struct Crew {
    workers: Vec<Arc<Worker>>,
    next: u64,
    mender: Option<u64>,
    tries: u32,
    /// When it was mended last, by the age of the pool.
    mended: Option<Duration>,
    /// When the next try is due, by the age of the pool.
    next_try: Duration,
    /// The generation of the module that failed.
    failed_generation: u64,
    stopping: bool,
}

/// One session thread, as the others see it.
pub(crate) struct Worker {
    pub(crate) number: u64,
    call: Mutex<Option<Call>>,
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

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }
}

/// What a session thread without a session is to do.
pub(crate) enum Duty {
    /// Open a session and serve.
    Connect,
    /// Mend the token.
    Mend { failed_generation: u64, forced: bool },
    /// Go home.
    Leave,
}

impl Pool {
    pub(crate) fn new(
        number: u64,
        settings: Settings,
        pin: SecretString,
        module: ModuleUse,
        verification: Verification,
    ) -> Self {
        Self {
            number,
            token: Arc::from(settings.name.as_str()),
            queue: Queue::new(settings.queue),
            pace: settings.max_rate.map(Pace::new),
            settings,
            pin,
            module: Mutex::new(Some(module)),
            verification,
            stats: Stats::default(),
            keys: Mutex::default(),
            keeper: Mutex::default(),
            crew: Mutex::new(Crew {
                workers: Vec::new(),
                next: 0,
                mender: None,
                tries: 0,
                mended: None,
                next_try: Duration::ZERO,
                failed_generation: 0,
                stopping: false,
            }),
            changed: Condvar::new(),
            state: watch::Sender::new(TokenState::Serving),
            halted: AtomicBool::new(false),
            failures_in_a_row: AtomicU32::new(0),
            age: Stopwatch::start(),
        }
    }

    pub(crate) fn state(&self) -> TokenState {
        self.state.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<TokenState> {
        self.state.subscribe()
    }

    /// Why a job cannot be taken now; none while the token serves or is being mended for the first time.
    pub(crate) fn refusal(&self) -> Option<SignError> {
        let token = Arc::clone(&self.token);
        match &*self.state.borrow() {
            TokenState::Serving | TokenState::Recovering { .. } => None,
            TokenState::Down { reason, .. } => {
                Some(SignError::Unavailable { token, reason: Arc::clone(reason) })
            }
            TokenState::PinRefused { reason } => {
                Some(SignError::PinRefused { token, reason: Arc::clone(reason) })
            }
            TokenState::Stopped => Some(SignError::Stopped { token }),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let crew = lock(&self.crew);
        let count = |test: fn(&Worker) -> bool| crew.workers.iter().filter(|worker| test(worker)).count();
        Snapshot {
            token: self.settings.name.clone(),
            state: self.state(),
            signed: self.stats.signed.load(Ordering::Relaxed),
            failures: self.stats.failures(),
            unverified: self.stats.unverified.load(Ordering::Relaxed),
            timeouts: self.stats.timeouts.load(Ordering::Relaxed),
            sessions_reopened: self.stats.reopened.load(Ordering::Relaxed),
            recoveries: self.stats.recoveries.load(Ordering::Relaxed),
            sessions: count(|worker| worker.connected.load(Ordering::Relaxed) && !worker.is_hung()),
            hung: count(Worker::is_hung),
            queued: self.queue.len(),
            call_time: self.stats.call_time.summary(),
        }
    }

    /// Whether sessions are to be let go.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    fn set_state(&self, state: TokenState) {
        let serving = state == TokenState::Serving;
        self.halted.store(!serving, Ordering::SeqCst);
        if let Some(module) = &*lock(&self.module) {
            module.set_serving(serving);
        }
        self.state.send_replace(state);
        self.changed.notify_all();
        self.queue.wake();
    }

    /// Whether another session thread than this one has a session.
    pub(crate) fn others_connected(&self, worker: &Worker) -> bool {
        let crew = lock(&self.crew);
        crew.workers.iter().any(|each| {
            each.number != worker.number && each.connected.load(Ordering::Relaxed) && !each.is_hung()
        })
    }

    /// Closes the session that nobody uses. Not under the lock: closing may hang.
    pub(crate) fn drop_keeper(&self) {
        let keeper = lock(&self.keeper).take();
        drop(keeper);
    }

    /// Waits a while, or until something changes.
    pub(crate) fn rest(&self) {
        self.wait_for_change(LOOK_AROUND);
    }

    /// Signals that the token or module failed as a whole; the first one to say so counts.
    pub(crate) fn trip(&self, error: &SignerError, generation: u64) {
        let mut crew = lock(&self.crew);
        if crew.stopping || self.is_halted() {
            return;
        }
        let now = self.age.elapsed();
        let again = crew.mended.is_some_and(|mended| now.saturating_sub(mended) < STABLE);
        crew.failed_generation = generation;
        crew.tries = if again { crew.tries + 1 } else { 0 };
        crew.next_try = now + if again { backoff(crew.tries) } else { Duration::ZERO };
        let reason: Arc<str> = error.to_string().into();
        tracing::warn!(token = %self.token, %reason, "the token failed, mending it");
        if error.class() == FailureClass::Pin {
            self.pin_refused(reason);
        } else if again {
            self.set_state(TokenState::Down { reason, tries: crew.tries });
            self.fail_waiting();
        } else {
            self.set_state(TokenState::Recovering { reason });
        }
    }

    fn pin_refused(&self, reason: Arc<str>) {
        tracing::error!(token = %self.token, %reason, "signing stopped: the PIN was refused");
        self.set_state(TokenState::PinRefused { reason });
        self.fail_waiting();
    }

    /// Begins with a token that is there.
    pub(crate) fn begin_serving(&self) {
        self.set_state(TokenState::Serving);
    }

    /// Begins with a token that is away.
    pub(crate) fn begin_down(&self, error: &SignerError) {
        let mut crew = lock(&self.crew);
        crew.tries = 1;
        crew.next_try = self.age.elapsed() + backoff(1);
        tracing::warn!(token = %self.token, %error, "starting without the token, it is tried again");
        self.set_state(TokenState::Down { reason: error.to_string().into(), tries: 1 });
    }

    /// Fails every waiting job with the present refusal.
    pub(crate) fn fail_waiting(&self) {
        let refusal = self.refusal().unwrap_or_else(|| SignError::Stopped { token: Arc::clone(&self.token) });
        for job in self.queue.drain() {
            job.reply.fail(refusal.clone());
        }
    }

    /// What became of the mending.
    pub(crate) fn mended(&self, worker: &Worker, outcome: Result<(), SignerError>) {
        let mut crew = lock(&self.crew);
        if crew.mender != Some(worker.number) {
            return;
        }
        crew.mender = None;
        if crew.stopping {
            self.changed.notify_all();
            return;
        }
        match outcome {
            Ok(()) => {
                tracing::info!(token = %self.token, tries = crew.tries + 1, "the token signs again");
                // The count stays: should it fail again at once, the back-off goes on.
                crew.mended = Some(self.age.elapsed());
                self.failures_in_a_row.store(0, Ordering::Relaxed);
                self.set_state(TokenState::Serving);
            }
            Err(error) if error.class() == FailureClass::Pin => self.pin_refused(error.to_string().into()),
            Err(error) => {
                crew.tries += 1;
                let wait = backoff(crew.tries);
                crew.next_try = self.age.elapsed() + wait;
                tracing::warn!(token = %self.token, %error, tries = crew.tries, wait_seconds = wait.as_secs_f64(), "the token is away");
                self.set_state(TokenState::Down { reason: error.to_string().into(), tries: crew.tries });
                self.fail_waiting();
            }
        }
    }

    /// What a session thread without a session is to do next. Waits while there is nothing.
    pub(crate) fn duty(&self, worker: &Worker) -> Duty {
        let mut crew = lock(&self.crew);
        loop {
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
                        let forced = crew.tries % FORCED == FORCED - 1;
                        return Duty::Mend { failed_generation: crew.failed_generation, forced };
                    }
                    patience = patience.min(crew.next_try - now);
                }
                _ => {}
            }
            crew = self.changed.wait_timeout(crew, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sets the generation of the module that the next mending starts from.
    pub(crate) fn note_generation(&self, generation: u64) {
        lock(&self.crew).failed_generation = generation;
    }

    /// An item failed by itself; too many in a row make the token suspicious.
    pub(crate) fn item_failed(&self) -> bool {
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= SUSPICIOUS
    }

    pub(crate) fn item_signed(&self) {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Puts a new session thread on the list.
    pub(crate) fn enlist(&self) -> Arc<Worker> {
        let mut crew = lock(&self.crew);
        let worker = Arc::new(Worker {
            number: crew.next,
            call: Mutex::default(),
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

    /// Takes no more jobs; session threads go home when the queue is empty.
    pub(crate) fn stop(&self) {
        lock(&self.crew).stopping = true;
        self.queue.close();
        self.changed.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.crew).stopping
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

    /// The end: whatever still waits fails, nothing is taken any more.
    pub(crate) fn set_stopped(&self) {
        self.set_state(TokenState::Stopped);
        self.fail_waiting();
    }

    /// Puts a job back that failed through no fault of its own, unless it had its second try.
    pub(crate) fn try_again(&self, mut job: Job, otherwise: SignError) {
        job.tries += 1;
        if job.tries > 1 {
            job.reply.fail(otherwise);
        } else {
            self.queue.push_again(job);
            // The token may have gone down between: then nobody else would look at the job.
            if self.refusal().is_some() {
                self.fail_waiting();
            }
        }
    }
}

/// 1 s after the first failure, doubled after each, 60 s at most.
fn backoff(tries: u32) -> Duration {
    BACKOFF.0.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_up_to_a_minute() {
        let seconds: Vec<u64> = (1..=8).map(|tries| backoff(tries).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(u32::MAX), Duration::from_secs(60));
    }
}
