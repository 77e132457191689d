//! The handle on a signer: start, prepare, sign, stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::error::{SignError, SignerError};
use super::key::{KeyReference, PreparedKey};
use super::lane::{Lane, Order};
use super::module::{Module, lock};
use super::pool::Pool;
use super::queue::{Job, Reply, Work};
use super::settings::Settings;
use super::stats::{Snapshot, TokenState};
use super::token::{Access, Connection};
use super::verify::Verification;
use super::{supervisor, worker};
use crate::ocsp::SignatureAlgorithm;

static NEXT_SIGNER: AtomicU64 = AtomicU64::new(1);

/// Signs with the keys of one token. Clones share the same threads; when the last one goes without
/// [`Signer::stop`], the threads finish what waits and end by themselves.
#[derive(Clone)]
pub struct Signer(Arc<Handle>);

struct Handle {
    pool: Arc<Pool>,
    ended: watch::Receiver<bool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("token", &self.0.pool.token).finish_non_exhaustive()
    }
}

impl Signer {
    /// Starts a signer on a token that is there.
    ///
    /// # Errors
    /// Whatever keeps it from logging in: the module, the token, the PIN; [`SignerError::TimedOut`] when
    /// the module does not answer within the call timeout.
    pub async fn start(settings: Settings) -> Result<Self, SignerError> {
        Self::begin(settings, Patience::MustServe, None).await
    }

    /// Starts a signer; a token that is away now is tried again with back-off, as one that goes away
    /// later.
    ///
    /// # Errors
    /// What only the operator can mend: a module that is missing or none, no PIN, a refused PIN.
    pub async fn start_patiently(settings: Settings) -> Result<Self, SignerError> {
        Self::begin(settings, Patience::MayServeLater, None).await
    }

    /// As [`Signer::start`], with that many verifiers; with 0 nothing is verified, to measure what it
    /// costs.
    pub(crate) async fn start_measured(settings: Settings, verifiers: usize) -> Result<Self, SignerError> {
        Self::begin(settings, Patience::MustServe, Some(verifiers)).await
    }

    async fn begin(
        settings: Settings,
        patience: Patience,
        verifiers: Option<usize>,
    ) -> Result<Self, SignerError> {
        check(&settings)?;
        let pin = settings
            .pin
            .read()
            .map_err(|source| SignerError::Pin { token: settings.name.clone(), source })?;
        let timeout = settings.call_timeout;
        let late = SignerError::TimedOut {
            token: settings.name.clone(),
            action: format!("logging in through {}", settings.module.display()),
            after: timeout,
        };
        let verifiers = verifiers.unwrap_or_else(|| {
            settings.verifiers.map_or_else(
                || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                |threads| usize::from(threads.max(1)),
            )
        });
        // A thread of its own: a module may hang, and must not take one of the runtime's with it.
        let (sender, receiver) = oneshot::channel();
        let first = settings.clone();
        spawn(&settings, "start", move || {
            let opened = Module::open(&first.module).map_err(|error| error.of_token(&first.name));
            let outcome = opened.map(|using| {
                let connection = Connection::open(using.module(), &first, &pin, Access::ReadOnly);
                (using, connection, pin)
            });
            drop(sender.send(outcome));
        })?;
        let (using, connection, pin) = match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) | Err(_) => return Err(late),
        };
        let (keeper, trouble) = match connection {
            Ok(connection) => (Some(connection), None),
            Err(error) if patience == Patience::MayServeLater && error.may_pass() => (None, Some(error)),
            Err(error) => {
                // Leaves the module, which may finalise it.
                spawn(&settings, "end", move || drop(using))?;
                return Err(error);
            }
        };
        let pool = Arc::new(Pool::new(
            NEXT_SIGNER.fetch_add(1, Ordering::Relaxed),
            settings,
            pin,
            using,
            Verification::new(verifiers),
        ));
        *lock(&pool.keeper) = keeper;
        match trouble {
            Some(error) => pool.begin_down(&error),
            None => pool.begin_serving(),
        }
        let (ending, ended) = watch::channel(false);
        let supervised = Arc::clone(&pool);
        for _ in 0..pool.settings.sessions {
            add_worker(&pool)?;
        }
        let mut threads = Vec::with_capacity(verifiers);
        for _ in 0..verifiers {
            let verifier = Arc::clone(&pool);
            threads.push(spawn(&pool.settings, "verify", move || verifier.verify())?);
        }
        spawn(&pool.settings, "watch", move || supervisor::run(&supervised, threads, &ending))?;
        Ok(Self(Arc::new(Handle { pool, ended })))
    }

    /// The configured name of the token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.0.pool.token
    }

    /// The settings it was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.pool.settings
    }

    /// Finds exactly one private key, checks that it fits, and proves with a signature that it belongs
    /// to `public_key`, the content of the SubjectPublicKeyInfo's BIT STRING.
    ///
    /// # Errors
    /// The key is missing, ambiguous, of another kind, or another one than the certificate's; the token
    /// lacks the mechanism; or the token is away.
    pub async fn prepare_key(
        &self,
        reference: KeyReference,
        algorithm: SignatureAlgorithm,
        public_key: Vec<u8>,
    ) -> Result<PreparedKey, SignerError> {
        let (sender, receiver) = oneshot::channel();
        let work = Work::Prepare { reference, algorithm, public_key };
        // A key that is made ready is one that certificates wait for.
        self.submit(Job::new(work, Order::at_once(Lane::First), Reply::Prepared(sender), &self.0.pool.load))
            .await;
        receiver.await.unwrap_or_else(|_| Err(self.stopped().into()))
    }

    /// Signs a message and verifies the signature. Waits while the lane of the order is full. Dropping
    /// the future gives the job up, if it has not reached the token yet.
    ///
    /// # Errors
    /// [`SignError`]; its class says whether the item or the token is at fault.
    pub async fn sign(&self, key: &PreparedKey, message: Bytes, order: Order) -> Result<Vec<u8>, SignError> {
        let (sender, receiver) = oneshot::channel();
        self.submit_sign(key, message, order, Reply::One(sender)).await;
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    pub(crate) async fn submit_sign(&self, key: &PreparedKey, message: Bytes, order: Order, reply: Reply) {
        let pool = &self.0.pool;
        if key.0.signer != pool.number {
            let (token, key) = (Arc::clone(&pool.token), Arc::clone(&key.0.name));
            return reply.fail(SignError::ForeignKey { token, key });
        }
        self.submit(Job::new(Work::Sign { key: key.clone(), message }, order, reply, &self.0.pool.load))
            .await;
    }

    async fn submit(&self, job: Job) {
        let pool = &self.0.pool;
        if let Some(refusal) = pool.refusal() {
            return job.reply.fail(refusal);
        }
        if let Err(job) = pool.queue.push(job).await {
            job.reply.fail(pool.refusal().unwrap_or_else(|| self.stopped()));
        }
    }

    fn stopped(&self) -> SignError {
        SignError::Stopped { token: Arc::clone(&self.0.pool.token) }
    }

    /// How the token stands.
    #[must_use]
    pub fn state(&self) -> TokenState {
        self.0.pool.state()
    }

    /// Follows how the token stands.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<TokenState> {
        self.0.pool.watch()
    }

    /// How long one more signature of this lane would take, if the token goes on as it did: by its
    /// measured rate and what is on its way to it. Says nothing of a token that does not serve.
    #[must_use]
    pub fn expected_wait(&self, lane: Lane) -> Duration {
        let settings = self.settings();
        let cap = settings.max_rate.map(|rate| f64::from(rate.get()));
        self.0.pool.load.expected_wait(lane, settings.sessions, cap)
    }

    /// The figures since the start.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.0.pool.snapshot()
    }

    /// Takes no more jobs, signs those that wait, closes the sessions and leaves the module, which is
    /// finalised when nobody else uses it. Returns whether all that was done within `patience`.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.0.pool.stop();
        let mut ended = self.0.ended.clone();
        tokio::time::timeout(patience, ended.wait_for(|ended| *ended)).await.is_ok_and(|end| end.is_ok())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    MustServe,
    MayServeLater,
}

fn check(settings: &Settings) -> Result<(), SignerError> {
    let wrong =
        |what: &str| Err(SignerError::Settings { token: settings.name.clone(), what: what.to_owned() });
    if settings.sessions == 0 {
        return wrong("`sessions` is 0; at least 1 is needed to sign");
    }
    if settings.queue == 0 {
        return wrong("`queue` is 0; at least 1 is needed, 256 is a good start");
    }
    if settings.call_timeout < Duration::from_millis(10) {
        return wrong("`call_timeout` is under 10 ms, which no token keeps; 10s is a good start");
    }
    Ok(())
}

/// Starts one more session thread.
pub(crate) fn add_worker(pool: &Arc<Pool>) -> Result<(), SignerError> {
    let member = pool.enlist();
    let (theirs, crew) = (Arc::clone(pool), Arc::clone(&member));
    let started = spawn(&pool.settings, "sign", move || worker::run(&theirs, &crew));
    if started.is_err() {
        pool.discharge(&member);
    }
    started.map(drop)
}

pub(crate) fn spawn(
    settings: &Settings,
    role: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, SignerError> {
    std::thread::Builder::new().name(format!("{role} {}", settings.name)).spawn(body).map_err(|error| {
        SignerError::Settings {
            token: settings.name.clone(),
            what: format!(
                "a thread could not be started: {error}; raise the limit of threads, or lower `sessions`"
            ),
        }
    })
}
