//! Keeps the fleet fresh while serving: fills the shelf, follows the store's feed, and signs what
//! comes due.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use super::desk::{self, Desk, Progress, Request, Tray};
use super::pipeline::{ItemError, Outcome, Pipeline};
use super::schedule::Schedule;
use super::{Frames, entry};
use crate::clock::{Stopwatch, UnixTime};
use crate::shelf::Shelf;
use crate::shutdown::Shutdown;
use crate::signer::FailureClass;
use crate::store::{CertificateKey, CertificateState, FeedPosition, Shard, StoreError};

/// Certificates read at a time when the shelf is filled.
const PAGE: u32 = 2_000;

/// How often the feed is read and the schedule looked at. A revocation made by another process is
/// on its way to the token after half of it on average.
const TICK: Duration = Duration::from_millis(200);

/// How long the feed's entries are kept for readers that were away.
pub const FEED_KEPT: Duration = Duration::from_secs(3_600);

/// The first wait after a failure; doubled with each further one up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The longest wait after a failure that is not the certificate's own, such as a token that is away.
const LONGEST_WAIT_FOR_OTHERS: Duration = Duration::from_secs(30);

/// How often the same reason is logged.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Ticks between two looks at the whole shelf.
const HOUSEKEEPING: u64 = 300;

/// When an answer that cannot be framed yet is looked at again, if nothing happens before.
const FRAME_WAIT: Duration = Duration::from_secs(30);

/// Why there is no answer for a certificate that was asked for.
const EXPIRED: &str = "the certificate has expired or is gone: it gets no answer";

/// What the keeper tells of itself.
#[derive(Debug, Default)]
pub struct KeeperStats {
    /// Answers signed and stored.
    pub signed: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Certificates on their way through the pipeline.
    pub under_way: AtomicU64,
    /// The oldest due time among those that wait, in Unix seconds; 0 when none is due.
    pub oldest_due: AtomicI64,
    /// When the store's feed was last read to its end, in Unix seconds; 0 before the shelf is full.
    pub feed_read_at: AtomicI64,
    /// Answers on the shelf that had expired when it was last looked over.
    pub expired: AtomicU64,
}

/// What the keeper and the process around it tell each other.
#[derive(Debug, Default)]
pub struct Signals {
    /// From the keeper: issuers or responders changed in the store.
    pub registry_changed: Notify,
    /// To the keeper: other responders sign now, or came back.
    pub responders_changed: Notify,
    /// To the keeper: validity or refresh changed, so every due time has.
    pub policy_changed: Notify,
}

/// Keeps the shelf and the store's answers fresh.
pub struct Keeper {
    pipeline: Pipeline,
    shelf: Arc<Shelf>,
    frames: Arc<ArcSwap<Frames>>,
    signals: Arc<Signals>,
    stats: Arc<KeeperStats>,
    signs: bool,
    schedule: Schedule,
    position: FeedPosition,
    /// Certificates that the feed named and that are still to be read.
    news: VecDeque<CertificateKey>,
    /// Certificates with an answer of a responder whose frame is not here yet.
    unframed: Vec<CertificateKey>,
    /// When each reason for a failure was last logged.
    told: HashMap<String, UnixTime>,
    desk: Desk,
    tray: Tray,
    /// The count of answers signed when it was last looked at.
    counted: (u64, Stopwatch),
    /// Answers signed a second while some were; 0 before the first.
    rate: f64,
}

impl Keeper {
    /// A keeper that fills `shelf`. `frames` must hold every installed responder's frame. With `signs`
    /// off it only follows what others sign.
    #[must_use]
    pub fn new(
        pipeline: Pipeline,
        shelf: Arc<Shelf>,
        frames: Arc<ArcSwap<Frames>>,
        signals: Arc<Signals>,
        stats: Arc<KeeperStats>,
        signs: bool,
    ) -> Self {
        let (desk, tray) = desk::desk();
        Self {
            pipeline,
            shelf,
            frames,
            signals,
            stats,
            signs,
            schedule: Schedule::default(),
            position: FeedPosition(0),
            news: VecDeque::new(),
            unframed: Vec::new(),
            told: HashMap::new(),
            desk,
            tray,
            counted: (0, Stopwatch::start()),
            rate: 0.0,
        }
    }

    /// Where others ask this keeper for an answer out of turn.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Fills the shelf, then keeps everything fresh until the stop. Failures are logged and tried
    /// again; signatures under way at the stop are stored.
    pub async fn run(mut self, shutdown: Shutdown) {
        while let Err(error) = self.load().await {
            tracing::error!(%error, "cannot fill the shelf from the store; trying again");
            tokio::select! {
                () = tokio::time::sleep(FIRST_WAIT) => {}
                () = shutdown.stopped() => return,
            }
        }
        let (to_pipeline, keys) = mpsc::channel(self.pipeline.settings.portion);
        let (outcomes, results) = mpsc::channel(self.pipeline.settings.portion);
        let pipeline = self.pipeline.clone();
        tokio::join!(pipeline.run(keys, outcomes), self.keep(to_pipeline, results, &shutdown));
    }

    /// Puts every unexpired certificate on the shelf and into the schedule.
    async fn load(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.pipeline.store);
        let history = self.pipeline.policies.load().longest_history();
        // Taken before the first page, so that what changes while pages are read is not missed.
        self.position = store.feed_position().await?;
        for shard in Shard::all() {
            let mut after = 0;
            loop {
                let page = store.states(shard, after, PAGE, self.now().minus(history)).await?;
                let Some(last) = page.last() else { break };
                after = last.certificate.key.row;
                page.iter().for_each(|state| self.note(state));
            }
        }
        self.news.clear();
        self.shelf.set_complete();
        self.stats.feed_read_at.store(self.now().0, Ordering::Relaxed);
        tracing::info!(
            certificates = self.shelf.certificates(),
            answers = self.shelf.answers(),
            "the shelf holds everything that the store does"
        );
        Ok(())
    }

    fn now(&self) -> UnixTime {
        self.pipeline.clock.now()
    }

    /// Shelves a certificate as it is now, and schedules it. A revocation goes before all else.
    fn note(&mut self, state: &CertificateState) {
        let certificate = &state.certificate;
        let policy = *self.pipeline.policies.load().of(certificate.issuer);
        if policy.answered_until(certificate.not_after) < self.now()
            && self.shelf.get(certificate.issuer, &certificate.serial).is_none()
        {
            return;
        }
        let due = self.shelve(state);
        if self.signs {
            let certificate = &state.certificate;
            self.plan(certificate.key, due, certificate.revocation.is_some() && !is_answered(state));
        }
    }

    fn plan(&mut self, key: CertificateKey, due: UnixTime, urgent: bool) {
        if urgent {
            self.schedule.set_urgent(key, due);
        } else {
            self.schedule.set(key, due);
        }
    }

    /// Shelves a certificate, and tells who waits for it; returns when it is due.
    fn shelve(&mut self, state: &CertificateState) -> UnixTime {
        let certificate = &state.certificate;
        let now = self.now();
        let entry = entry(state, &self.frames.load(), &self.pipeline.policies.load());
        let answered = entry.answer.as_ref().map(|answer| (answer.this_update, answer.renewed_at));
        self.shelf.put(certificate.issuer, certificate.serial, &entry);
        match answered {
            // One from the future was made while the clock was ahead: nobody may serve it.
            Some((this_update, renewed_at)) if this_update <= now => {
                if state.answer.as_ref().is_some_and(|answer| now <= answer.next_update) {
                    self.tray.shelved(state);
                }
                return renewed_at;
            }
            Some(_) => return now,
            None => {}
        }
        if is_answered(state) {
            // Another process signed it with a responder that this one is just getting to know.
            self.unframed.push(certificate.key);
            return now.plus(FRAME_WAIT);
        }
        certificate.not_before.map_or(now, |not_before| not_before.max(now))
    }

    async fn keep(
        &mut self,
        to_pipeline: mpsc::Sender<CertificateKey>,
        mut results: mpsc::Receiver<Outcome>,
        shutdown: &Shutdown,
    ) {
        let signals = Arc::clone(&self.signals);
        let mut to_pipeline = Some(to_pipeline);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        let mut next = None;
        let mut stopping = false;
        loop {
            if stopping {
                // The pipeline ends when its source does, and then the outcomes do.
                to_pipeline = None;
            } else if next.is_none() && self.signs {
                next = self.schedule.take(self.now());
            }
            tokio::select! {
                biased;
                () = shutdown.stopped(), if !stopping => stopping = true,
                outcome = results.recv() => match outcome {
                    Some(outcome) => self.finish(outcome),
                    None => return,
                },
                Some(request) = self.tray.next(), if !stopping => self.take_up(request).await,
                _ = tick.tick(), if !stopping => {
                    ticks += 1;
                    self.follow(ticks).await;
                }
                () = signals.responders_changed.notified(), if !stopping => self.responders_changed(),
                () = signals.policy_changed.notified(), if !stopping => self.plan_anew().await,
                permit = reserve(to_pipeline.as_ref()), if next.is_some() && !stopping => {
                    if let (Some(permit), Some(key)) = (permit, next.take()) {
                        permit.send(key);
                    }
                }
                // After the permit: a long import must not keep what is due from the token.
                () = std::future::ready(()), if !self.news.is_empty() && !stopping => self.take_in().await,
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        let now = self.now();
        match outcome {
            Outcome::Stored(state) => {
                self.stats.signed.fetch_add(1, Ordering::Relaxed);
                let due = self.shelve(&state);
                self.schedule.finish(state.certificate.key, due, false);
            }
            // Its news come through the feed or came already; look at it again at once.
            Outcome::Superseded(key) => self.schedule.finish(key, now, false),
            Outcome::NotDue(key, None) => {
                self.tray.failed(key, EXPIRED);
                self.schedule.forget(key, now);
            }
            Outcome::NotDue(key, Some(not_before)) => {
                self.tray.not_before(key, not_before, now);
                self.schedule.finish(key, not_before, false);
            }
            Outcome::Failed(key, error) => {
                self.stats.failed.fetch_add(1, Ordering::Relaxed);
                let own = is_its_own(&error);
                let longest = if own { LONGEST_WAIT } else { LONGEST_WAIT_FOR_OTHERS };
                if own {
                    self.tray.failed(key, &error.to_string());
                }
                let wait = FIRST_WAIT.saturating_mul(1 << self.schedule.failures(key).min(16)).min(longest);
                self.tell(key, &error);
                self.schedule.finish(key, now.plus(wait), true);
            }
        }
    }

    /// Logs a failure, each reason once a minute: when a token is away, the whole fleet fails for it.
    fn tell(&mut self, key: CertificateKey, error: &ItemError) {
        let now = self.now();
        let reason = error.to_string();
        self.told.retain(|_, at| now.since(*at) < TOLD_EVERY);
        if let Entry::Vacant(untold) = self.told.entry(reason) {
            tracing::error!(shard = key.shard.0, row = key.row, %error, "no answer; trying again with growing waits");
            untold.insert(now);
        }
    }

    /// Reads what was asked for over the desk, shelves it as it is, and signs what has no answer
    /// before all else.
    async fn take_up(&mut self, request: Request) {
        let Request { keys, told } = request;
        let states = match self.pipeline.store.certificates(&keys).await {
            Ok(states) => states,
            Err(error) => {
                tracing::error!(%error, certificates = keys.len(), "cannot read what was asked for");
                let reason = error.to_string();
                for key in &keys {
                    desk::tell(&told, *key, Progress::Failed(reason.clone()));
                }
                self.news.extend(keys);
                return;
            }
        };
        let mut by_key: HashMap<_, _> =
            states.into_iter().map(|state| (state.certificate.key, state)).collect();
        let now = self.now();
        for key in keys {
            let Some(state) = by_key.remove(&key) else {
                desk::tell(&told, key, Progress::Failed("there is no such certificate".to_owned()));
                continue;
            };
            let certificate = &state.certificate;
            if certificate.not_after < now {
                desk::tell(&told, key, Progress::Failed(EXPIRED.to_owned()));
                continue;
            }
            self.tray.keep(key, certificate.version, told.clone());
            let due = self.shelve(&state);
            if self.signs {
                self.plan(key, due, due <= now);
            }
            if let Some(at) = certificate.not_before.filter(|at| now < *at) {
                self.tray.not_before(key, at, now);
            }
        }
    }

    fn responders_changed(&mut self) {
        self.schedule.wake(self.now());
        self.news.extend(self.unframed.drain(..));
    }

    async fn plan_anew(&mut self) {
        if let Err(error) = self.load().await {
            tracing::error!(%error, "cannot plan anew; due times stay as they were until each is signed again");
        }
    }

    /// Reads the feed, and now and then does the housekeeping.
    async fn follow(&mut self, ticks: u64) {
        match self.read_feed().await {
            Ok(()) => self.stats.feed_read_at.store(self.now().0, Ordering::Relaxed),
            Err(error) => {
                let now = self.now();
                let reason = error.to_string();
                if self.told.insert(reason, now).is_none_or(|at| now.since(at) >= TOLD_EVERY) {
                    tracing::error!(%error, "cannot follow the store's changes; trying again");
                }
            }
        }
        let now = self.now();
        self.stats.oldest_due.store(self.schedule.oldest_due(now).map_or(0, |at| at.0), Ordering::Relaxed);
        self.stats.under_way.store(self.schedule.under_way(), Ordering::Relaxed);
        self.tray.tidy();
        self.tell_wait();
        if ticks.is_multiple_of(HOUSEKEEPING) {
            let expired = self.shelf.sweep(now);
            self.stats.expired.store(expired as u64, Ordering::Relaxed);
            if let Err(error) = self.pipeline.store.prune_feed(now, FEED_KEPT).await {
                tracing::warn!(%error, "cannot prune the feed");
            }
        }
    }

    /// Reckons how long an answer that is asked for now will take: what is in the pipeline goes first.
    fn tell_wait(&mut self) {
        let signed = self.stats.signed.load(Ordering::Relaxed);
        let (before, watch) = std::mem::replace(&mut self.counted, (signed, Stopwatch::start()));
        let rate = (signed - before) as f64 / watch.elapsed().as_secs_f64();
        // While nothing is under way, the last known rate stands.
        if rate > 0.0 {
            self.rate = if self.rate == 0.0 { rate } else { self.rate + 0.2 * (rate - self.rate) };
        }
        if self.rate > 0.0 {
            let ahead = (self.schedule.under_way() + 1) as f64;
            self.tray.set_wait(Duration::from_secs_f64(ahead / self.rate) + self.pipeline.settings.patience);
        }
    }

    async fn read_feed(&mut self) -> Result<(), StoreError> {
        let changes = self.pipeline.store.changes(self.position).await?;
        if changes.registry {
            self.signals.registry_changed.notify_one();
        }
        if changes.gap {
            tracing::warn!("the feed was pruned past this reader; reading everything again");
            return self.load().await;
        }
        self.position = changes.position;
        let mut keys = changes.keys;
        keys.sort_unstable();
        keys.dedup();
        // A few certificates are a revocation or a registration, and do not wait behind an import.
        if keys.len() <= self.pipeline.settings.portion {
            keys.into_iter().rev().for_each(|key| self.news.push_front(key));
            self.take_in().await;
        } else {
            self.news.extend(keys);
        }
        Ok(())
    }

    /// Reads the next portion of the certificates that the feed named.
    async fn take_in(&mut self) {
        let count = self.pipeline.settings.portion.min(self.news.len());
        let portion: Vec<_> = self.news.drain(..count).collect();
        match self.pipeline.store.certificates(&portion).await {
            Ok(states) => states.iter().for_each(|state| self.note(state)),
            Err(error) => {
                tracing::error!(%error, certificates = count, "cannot read what the feed named; trying again");
                self.news.extend(portion);
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// Whether its stored answer is for its present status.
fn is_answered(state: &CertificateState) -> bool {
    state.answer.as_ref().is_some_and(|answer| answer.version == state.certificate.version)
}

/// Whether the certificate itself is the matter, and not the token, the responder or the store.
fn is_its_own(error: &ItemError) -> bool {
    match error {
        ItemError::Compose(_) => true,
        ItemError::Sign(error) => error.class() == FailureClass::Request,
        ItemError::NoResponder | ItemError::Store(_) => false,
    }
}

async fn reserve(
    to_pipeline: Option<&mpsc::Sender<CertificateKey>>,
) -> Option<mpsc::Permit<'_, CertificateKey>> {
    to_pipeline?.reserve().await.ok()
}
