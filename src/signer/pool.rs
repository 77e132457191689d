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
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;

use super::crew::{Crew, Worker};
use super::error::{FailureClass, SignError, SignerError};
use super::key::Prepared;
use super::load::Load;
use super::module::{ModuleUse, lock};
use super::pace::Pace;
use super::queue::{Job, Queue};
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
/// A suspicion that was wrong is not raised again for so long: one bad key must not keep the others out.
const TRUSTED: Duration = Duration::from_secs(60);
/// A token that fails again so soon after it was mended is mended with back-off.
const STABLE: Duration = Duration::from_secs(10);
/// The longest back-off of one that every mending helps for a while: it signs between its failures.
const FLAPPING: Duration = Duration::from_secs(8);

/// Shared by the threads and handles of one signer.
pub(crate) struct Pool {
    /// Tells keys of this signer from those of others.
    pub(crate) number: u64,
    pub(crate) token: Arc<str>,
    pub(crate) settings: Settings,
    pub(crate) pin: SecretString,
    pub(crate) module: Mutex<Option<ModuleUse>>,
    pub(crate) queue: Queue,
    pub(crate) load: Arc<Load>,
    pub(crate) verification: Verification,
    pub(crate) stats: Stats,
    /// Every key prepared and still in use: the half-open probe signs with one.
    pub(crate) keys: Mutex<Vec<Weak<Prepared>>>,
    /// A session that nobody uses: while it lives, the login does.
    pub(crate) keeper: Mutex<Option<Connection>>,
    pub(crate) crew: Mutex<Crew>,
    pub(crate) changed: Condvar,
    state: watch::Sender<TokenState>,
    /// Not serving: sessions are to be let go.
    halted: AtomicBool,
    failures_in_a_row: AtomicU32,
    pub(crate) age: Stopwatch,
}

impl Pool {
    pub(crate) fn new(
        number: u64,
        settings: Settings,
        pin: SecretString,
        module: ModuleUse,
        verification: Verification,
    ) -> Self {
        let load = Arc::<Load>::default();
        Self {
            number,
            token: Arc::from(settings.name.as_str()),
            queue: Queue::new(settings.queue, settings.max_rate.map(Pace::new), Arc::clone(&load)),
            load,
            settings,
            pin,
            module: Mutex::new(Some(module)),
            verification,
            stats: Stats::default(),
            keys: Mutex::default(),
            keeper: Mutex::default(),
            crew: Mutex::default(),
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
            sessions: count(|worker| worker.is_connected()),
            hung: count(Worker::is_hung),
            lanes: self.queue.lanes(),
            rate: self.queue.rate(),
            call_time: self.stats.call_time.summary(),
            call_times: self.stats.call_time.classes(),
        }
    }

    /// Whether sessions are to be let go.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_state(&self, state: TokenState) {
        let serving = state == TokenState::Serving;
        self.halted.store(!serving, Ordering::SeqCst);
        self.queue.set_serving(serving);
        if let Some(module) = &*lock(&self.module) {
            module.set_serving(serving);
        }
        self.state.send_replace(state);
        self.changed.notify_all();
        self.queue.wake();
    }

    /// Closes the session that nobody uses. Not under the lock: closing may hang.
    pub(crate) fn drop_keeper(&self) {
        let keeper = lock(&self.keeper).take();
        drop(keeper);
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
        // Counted apart from tries that fail: else a token that flapped for a while and then does not come
        // back at once would be left alone for minutes.
        crew.flaps = if again { crew.flaps + 1 } else { 0 };
        crew.tries = 0;
        crew.next_try = now + if again { backoff(crew.flaps).min(FLAPPING) } else { Duration::ZERO };
        let reason: Arc<str> = error.to_string().into();
        tracing::warn!(token = %self.token, %reason, "the token failed, mending it");
        if error.class() == FailureClass::Pin {
            self.pin_refused(reason);
        } else if again {
            self.set_state(TokenState::Down { reason, tries: crew.flaps });
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

    /// Sets the generation of the module that the next mending starts from.
    pub(crate) fn note_generation(&self, generation: u64) {
        lock(&self.crew).failed_generation = generation;
    }

    /// An item failed by itself. Whether so many have, one after the other, that the token is to be
    /// suspected.
    pub(crate) fn item_failed(&self) -> bool {
        if self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 < SUSPICIOUS {
            return false;
        }
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        let mut crew = lock(&self.crew);
        let now = self.age.elapsed();
        if crew.suspected.is_some_and(|before| now.saturating_sub(before) < TRUSTED) {
            return false;
        }
        crew.suspected = Some(now);
        true
    }

    pub(crate) fn item_signed(&self) {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
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

    /// The end: whatever still waits fails, nothing is taken any more.
    pub(crate) fn set_stopped(&self) {
        self.set_state(TokenState::Stopped);
        self.fail_waiting();
    }

    /// Puts a job back that failed through no fault of its own.
    pub(crate) fn try_again(&self, job: Job) {
        self.queue.push_again(job);
        // The token may have gone down between: then nobody else would look at the job.
        if self.refusal().is_some() {
            self.fail_waiting();
        }
    }
}

/// 1 s after the first failure, doubled after each, 60 s at most.
pub(crate) fn backoff(tries: u32) -> Duration {
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
