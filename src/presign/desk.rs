//! The desk: where others in the process ask the running keeper for a certificate's answer, out of
//! turn, and are told when it is on the shelf.
//!
//! Whoever changes the store through the process's own handle must come here: the feed tells of
//! other handles' changes only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::engine::Obstacles;
use crate::clock::UnixTime;
use crate::store::{CertificateKey, CertificateState, IssuerId};

/// Requests that wait to be taken up by the keeper.
const ROOM: usize = 64;

/// Certificates in one request to the keeper: what it reads from the store at once.
const PORTION: usize = 500;

/// What is told of the wait before the keeper has reckoned one.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);

/// How far a certificate's answer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The answer for its present status is signed, stored and on the shelf.
    Signed(Box<CertificateState>),
    /// Not yet.
    Waiting {
        /// When it may be expected, counted from now.
        eta: Duration,
    },
    /// There will be none, or not before somebody does something about the reason.
    Failed(String),
}

/// A handle on the running keeper.
#[derive(Clone, Debug)]
pub struct Desk {
    requests: mpsc::Sender<Request>,
    /// The wait for a first answer or a revocation, in milliseconds; `u64::MAX` when not known.
    wait: Arc<AtomicU64>,
}

/// What comes over the desk.
#[derive(Debug)]
pub(super) enum Request {
    /// Certificates to answer for, and where to tell how each went.
    Answer { keys: Vec<CertificateKey>, told: mpsc::Sender<(CertificateKey, Progress)> },
    /// What stands in the way of a certificate; none is told where nothing is signed.
    Obstacles { key: CertificateKey, issuer: IssuerId, told: oneshot::Sender<Option<Obstacles>> },
}

/// The keeper's side of the desk.
#[derive(Debug)]
pub(super) struct Tray {
    requests: mpsc::Receiver<Request>,
    wait: Arc<AtomicU64>,
    waiting: HashMap<CertificateKey, Vec<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    /// The version that the answer must have at least.
    version: i64,
    told: mpsc::Sender<(CertificateKey, Progress)>,
}

/// A desk and its keeper's side.
pub(super) fn desk() -> (Desk, Tray) {
    let (requests, taken) = mpsc::channel(ROOM);
    let wait = Arc::new(AtomicU64::new(u64::MAX));
    (Desk { requests, wait: Arc::clone(&wait) }, Tray { requests: taken, wait, waiting: HashMap::new() })
}

impl Desk {
    /// Has the keeper read these certificates at once, shelve them as they are, and sign what has no
    /// answer for its present status before all else in its lane. Returns how far each has come, in
    /// the order of `keys`, when all have an end or `patience` is over; the work goes on then.
    ///
    /// In a process that does not sign, what others sign within `patience` is seen too.
    pub async fn answer(&self, keys: Vec<CertificateKey>, patience: Duration) -> Vec<Progress> {
        let mut found = HashMap::with_capacity(keys.len());
        let mut asked = keys.clone();
        asked.sort_unstable();
        asked.dedup();
        let asking = async {
            let (told, mut news) = mpsc::channel(asked.len().max(1));
            for portion in asked.chunks(PORTION) {
                let request = Request::Answer { keys: portion.to_vec(), told: told.clone() };
                if self.requests.send(request).await.is_err() {
                    break;
                }
            }
            drop(told);
            while let Some((key, progress)) = news.recv().await {
                found.insert(key, progress);
            }
        };
        // Out of patience: what is not known then is still on its way.
        _ = tokio::time::timeout(patience, asking).await;
        let eta = self.wait();
        keys.iter().map(|key| found.get(key).cloned().unwrap_or(Progress::Waiting { eta })).collect()
    }

    /// What stands in the way of a certificate's answer; none in a process that does not sign, and where
    /// the keeper does not say within `patience`.
    pub async fn obstacles(
        &self,
        key: CertificateKey,
        issuer: IssuerId,
        patience: Duration,
    ) -> Option<Obstacles> {
        let (told, news) = oneshot::channel();
        let asking = async {
            self.requests.send(Request::Obstacles { key, issuer, told }).await.ok()?;
            news.await.ok()?
        };
        tokio::time::timeout(patience, asking).await.ok()?
    }

    /// How long a revocation or a first answer that is asked for now will take.
    #[must_use]
    pub fn wait(&self) -> Duration {
        match self.wait.load(Ordering::Relaxed) {
            u64::MAX => UNKNOWN_WAIT,
            wait => Duration::from_millis(wait),
        }
    }
}

impl Tray {
    /// The next request; none when every desk is gone.
    pub(super) async fn next(&mut self) -> Option<Request> {
        self.requests.recv().await
    }

    /// Keeps a waiter until an answer of this version is on the shelf.
    pub(super) fn keep(
        &mut self,
        key: CertificateKey,
        version: i64,
        told: mpsc::Sender<(CertificateKey, Progress)>,
    ) {
        self.waiting.entry(key).or_default().push(Waiter { version, told });
    }

    /// Tells those who wait for it that a certificate's answer is on the shelf.
    pub(super) fn shelved(&mut self, state: &CertificateState) {
        let key = state.certificate.key;
        // Almost always nobody waits for anything.
        let Some(waiters) = self.waiting.get_mut(&key) else { return };
        let version = state.certificate.version;
        waiters.retain(|waiter| {
            let served = waiter.version <= version;
            if served {
                tell(&waiter.told, key, Progress::Signed(Box::new(state.clone())));
            }
            !served
        });
        if waiters.is_empty() {
            self.waiting.remove(&key);
        }
    }

    /// Tells those who wait for a certificate's answer that there will be none.
    pub(super) fn failed(&mut self, key: CertificateKey, reason: &str) {
        for waiter in self.waiting.remove(&key).into_iter().flatten() {
            tell(&waiter.told, key, Progress::Failed(reason.to_owned()));
        }
    }

    /// Tells those who wait for a certificate's answer when it may be expected.
    pub(super) fn not_before(&mut self, key: CertificateKey, at: UnixTime, now: UnixTime) {
        for waiter in self.waiting.remove(&key).into_iter().flatten() {
            tell(&waiter.told, key, Progress::Waiting { eta: at.since(now) });
        }
    }

    /// Sets what is told of the wait.
    pub(super) fn set_wait(&self, wait: Duration) {
        self.wait.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Forgets waiters who have gone.
    pub(super) fn tidy(&mut self) {
        self.waiting.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.told.is_closed());
            !waiters.is_empty()
        });
    }
}

/// Tells one waiter. There is room for one word a certificate, and who has gone need not know.
pub(super) fn tell(told: &mpsc::Sender<(CertificateKey, Progress)>, key: CertificateKey, progress: Progress) {
    drop(told.try_send((key, progress)));
}
